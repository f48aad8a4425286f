"""What every loader yields, whichever makes it."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch of b samples.

    Attributes
    ----------
    image
        Tensor (b, c, d, h, w), its memory in NDHWC order (``channels_last_3d``), or
        (b, 8 c, d/2, h/2, w/2) where space-to-depth was asked for.
    label
        float32 (b,); NaN where unknown.
    index
        Which crops of the store, int64 (b,).
    epoch, step
        Where in the run this batch stands.
    """

    image: "torch.Tensor"
    label: "torch.Tensor"
    index: NDArray[np.int64]
    epoch: int
    step: int


class Loader(Protocol):
    """Yields the batches of one epoch at a time.

    The state that a checkpoint keeps is (seed, epoch, step consumed), never the step prefetched: `epoch`
    starts at any step, and what comes is what an uninterrupted run would have had.
    """

    reason: str
    """Why this loader was taken, in words."""

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from a step on."""

    def steps(self, epoch: int) -> int:
        """Return how many batches an epoch has."""

    def close(self) -> None:
        """End threads and free memory."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

"""What every loader yields, whichever makes it."""

from collections import deque
from collections.abc import Iterable, Iterator
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


LENT = 2  # a loader's buffer is written again once the batch after the next is asked for


def on_device(batches: Iterable[Batch], device: "torch.device") -> "Iterator[tuple[Batch, torch.Tensor]]":
    """Yield batches with their images on the device.

    Copies run behind the host's back, so a lent buffer is given back only after its copy has ended: the host
    waits for the copy before the last, while the device still has work.
    """
    import torch

    copies: deque[torch.cuda.Event] = deque()
    for batch in batches:
        if batch.image.device.type == device.type:
            yield batch, batch.image
            continue
        image = batch.image.to(device, non_blocking=True)
        copies.append(torch.cuda.Event())  # type: ignore[no-untyped-call]
        copies[-1].record()
        yield batch, image
        if len(copies) == LENT:
            copies.popleft().synchronize()

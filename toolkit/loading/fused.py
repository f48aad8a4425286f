"""The fused loader: crops in, the model's tensors out, one operation a sample.

On the CPU a pool of threads (Numba's code holds no GIL) reads the store's memory maps and writes into a ring
of batch buffers made beforehand, pinned where there is a GPU to copy to. A batch lends its buffer: it stays
as it is until the batch after the next is asked for.
"""

import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from kernels.augment import DType, Rows
from toolkit.errors import Problem, UsageError
from toolkit.loading.augment import AugmentConfig
from toolkit.loading.batch import Batch
from toolkit.loading.draw import CropGeometry, draw
from toolkit.loading.table import AugmentTable
from toolkit.store.reader import Store

if TYPE_CHECKING:
    import torch

LENT = 2  # batches that the consumer may hold: the last, and the one before it
AHEAD = 2  # batches that are made before they are asked for


class Sampler(Protocol):
    """Says who is in which batch; already cut to this rank."""

    def steps(self, epoch: int) -> int:
        """Return how many batches an epoch has."""

    def batch(self, epoch: int, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return which crops, int64 (b,), and the number of each draw in the epoch, int64 (b,)."""


@dataclass(frozen=True)
class Plan:
    """What every loader needs to know, checked before any work is done.

    Attributes
    ----------
    store, sampler, config
        Where crops come from, which of them, and what happens to them.
    size
        Voxels along each side of the patch.
    seed
        Of all draws.
    dtype
        ``float32`` or ``bfloat16`` (and ``float16`` on a GPU).
    space_to_depth
        Whether cells of 2x2x2 voxels become channels.

    Raises
    ------
    UsageError
        E-AUG-003 where the patch is larger than the crop, E-AUG-004 where a mask mode meets nodules without
        a mask, E-LOAD-001 on another wrong setting.
    """

    store: Store
    sampler: Sampler
    config: AugmentConfig
    size: int
    seed: int = 0
    dtype: DType = "float32"
    space_to_depth: bool = False

    def __post_init__(self) -> None:
        _ = self.geometry
        if self.dtype not in ("float32", "bfloat16", "float16"):
            refuse("dtype", self.dtype, "float32, bfloat16 or float16")
        if not 0 <= self.seed < 2**64:
            refuse("seed", str(self.seed), "0 to 2^64 - 1")
        if self.space_to_depth and self.size % 2:
            refuse("size", f"{self.size} voxels", "an even number with space to depth")
        if self.config.mask_mode != "none":
            bare = sum(nodule.mask_source == "none" for nodule in self.store.nodules)
            if bare:
                measured = f"mask_mode {self.config.mask_mode}, {bare} of {len(self.store)} nodules have no mask"
                action = "Nothing done; use mask_mode none, or a store whose nodules all have masks"
                raise UsageError(Problem("E-AUG-004", "setting mask_mode is wrong", measured, "", action))

    @property
    def geometry(self) -> CropGeometry:
        """The stored crops and the patch."""
        side = self.store.size + 2 * self.store.margin
        return CropGeometry(side, self.size, self.store.spacing_mm)

    def table(self, epoch: int, step: int) -> AugmentTable:
        """Draw the rows of one batch."""
        index, number = self.sampler.batch(epoch, step)
        return draw(self.config, self.geometry, index, self.seed, epoch, number)

    def labels(self) -> NDArray[np.float32]:
        """Return the label of every crop of the store, float32 (n,); NaN where unknown."""
        known = (nodule.label for nodule in self.store.nodules)
        return np.array([math.nan if label is None else label for label in known], np.float32)


def refuse(name: str, measured: str, expected: str) -> None:
    """Raise `UsageError` E-LOAD-001 on a setting."""
    problem = Problem("E-LOAD-001", f"setting {name} is wrong", measured, expected, "Nothing done; correct it")
    raise UsageError(problem)


class FusedLoader:
    """Makes batches on the CPU ahead of their use; implements `toolkit.loading.batch.Loader`.

    The same plan yields the same batches for any number of threads, and from any step on. An error in a
    thread is raised where its batch is asked for. One epoch runs at a time: starting another ends the first.
    """

    def __init__(self, plan: Plan, *, threads: int | None = None, reason: str = "asked for") -> None:
        if threads is not None and threads < 1:
            refuse("threads", str(threads), "at least 1")
        if plan.dtype == "float16":
            refuse("dtype", plan.dtype, "float32 or bfloat16 on the CPU")
        self.reason, self.plan = reason, plan
        self._labels = plan.labels()
        threads = threads or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else threads
        self._pool = ThreadPoolExecutor(threads or os.cpu_count() or 1, thread_name_prefix="fused-loader")
        self._ring: list[_Buffer] = []
        self._pending: deque[_Work] = deque()

    def steps(self, epoch: int) -> int:
        """Return how many batches an epoch has."""
        return self.plan.sampler.steps(epoch)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from a step on.

        The tensors of a batch are overwritten once the batch after the next is asked for; clone what must
        live longer.
        """
        steps = self.steps(epoch)
        if not 0 <= first_step <= steps:
            refuse("first_step", str(first_step), f"0 to {steps}")
        return self._batches(epoch, first_step, steps)

    def _batches(self, epoch: int, first_step: int, steps: int) -> Iterator[Batch]:
        self._abandon()
        following = first_step
        for step in range(first_step, steps):
            # the buffer that is filled next was lent LENT batches ago
            while following < min(step + 1 + AHEAD, steps):
                self._pending.append(self._start(epoch, following, following % (AHEAD + 1 + LENT - 1)))
                following += 1
            work = self._pending.popleft()
            for future in work.futures:
                future.result()
            index = work.table.index
            label = work.buffer.labels[: len(index)]
            yield Batch(work.image, label, index, epoch, step)

    def _start(self, epoch: int, step: int, slot: int) -> "_Work":
        """Draw a batch and hand its samples to the threads."""
        table = self.plan.table(epoch, step)
        rows = Rows(table, self.plan.dtype, self.plan.space_to_depth)
        while len(self._ring) <= slot:
            self._ring.append(_Buffer.make(rows.shape, self.plan.dtype))
        buffer = self._ring[slot]
        if buffer.shape[0] < rows.shape[0]:
            buffer = self._ring[slot] = _Buffer.make(rows.shape, self.plan.dtype)
        np.take(self._labels, table.index, out=buffer.label_array[: len(rows)])
        image = buffer.image[: len(rows)].permute(0, 4, 1, 2, 3)
        futures = [self._pool.submit(self._fill, rows, k, int(i), buffer) for k, i in enumerate(table.index)]
        return _Work(table, buffer, image, futures)

    def _fill(self, rows: Rows, k: int, index: int, buffer: "_Buffer") -> None:
        store = self.plan.store
        rows.fill(k, store.image(index), store.mask(index) if rows.mode else None, buffer.array[k])

    def _abandon(self) -> None:
        """Wait for what was begun and will not be asked for: its buffers are about to be used again."""
        while self._pending:
            for future in self._pending.popleft().futures:
                future.cancel()
                if not future.cancelled():
                    future.exception()

    def close(self) -> None:
        """End the threads and free the buffers."""
        self._abandon()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._ring.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, eq=False)
class _Buffer:
    """Memory of one batch: `image` (b, d, h, w, c) and `labels`, each also as a NumPy array."""

    image: "torch.Tensor"
    array: NDArray[Any]
    labels: "torch.Tensor"
    label_array: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @classmethod
    def make(cls, shape: Sequence[int], dtype: DType) -> "_Buffer":
        import torch

        pin = torch.cuda.is_available()
        image = torch.empty(tuple(shape), dtype=getattr(torch, dtype), pin_memory=pin)
        labels = torch.empty(shape[0], dtype=torch.float32, pin_memory=pin)
        bits = image.view(torch.uint16) if dtype == "bfloat16" else image
        return cls(image, bits.numpy(), labels, labels.numpy())


@dataclass(frozen=True, eq=False)
class _Work:
    """A batch that is being made."""

    table: AugmentTable
    buffer: _Buffer
    image: "torch.Tensor"
    futures: list["Future[None]"]


Kind = Literal["fused", "fused-cuda", "dali"]


def choose(
    plan: Plan, asked: Literal["auto", "fused", "dali"], device: Literal["cpu", "cuda"], free_bytes: int = 0
) -> tuple[Kind, str]:
    """Return which loader makes the batches, and a sentence that says why.

    `free_bytes` is the memory of the GPU that the store may take. On a GPU the fused loader keeps the store
    resident; one that does not fit is read by the CPU's threads.
    """
    if asked == "dali":
        return "dali", "DALI was asked for"
    if device == "cpu":
        return "fused", "fused: no GPU is used, and its threads read the store where it lies"
    side = plan.geometry.side
    needed = len(plan.store) * side**3 * (3 if plan.config.mask_mode != "none" else 2)
    sizes = f"the store takes {needed / 1e9:.1f} GB, the GPU has {free_bytes / 1e9:.1f} GB for it"
    if needed <= free_bytes:
        return "fused-cuda", f"fused on the GPU: {sizes}"
    return "fused", f"fused on the CPU: {sizes}"

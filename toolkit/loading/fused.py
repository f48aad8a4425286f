"""The fused loader: crops in, the model's tensors out, one operation a sample.

On the CPU a pool of threads (Numba's code holds no GIL) reads the store's memory maps and writes into a ring
of batch buffers made beforehand, pinned where there is a GPU to copy to. A batch lends its buffer: it stays
as it is until the batch after the next is asked for.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from kernels.augment import DType, Rows
from toolkit.loading.batch import Batch
from toolkit.loading.plan import Plan, refuse
from toolkit.loading.table import AugmentTable
from toolkit.memory import cores

if TYPE_CHECKING:
    import torch

AHEAD = 2  # batches that are made before they are asked for
BUFFERS = AHEAD + 2  # and the one that is asked for, and the one before it, which is still lent


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
        self._pool = ThreadPoolExecutor(threads or cores(), thread_name_prefix="fused-loader")
        self._ring: list[_Buffer] = []
        self._begun = 0
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
            while following < min(step + 1 + AHEAD, steps):
                self._pending.append(self._start(epoch, following))
                following += 1
            work = self._pending.popleft()
            for future in work.futures:
                future.result()
            index = work.table.index
            label = work.buffer.labels[: len(index)]
            yield Batch(work.image, label, index, epoch, step)

    def _start(self, epoch: int, step: int) -> "_Work":
        """Draw a batch and hand its samples to the threads."""
        slot = self._begun % BUFFERS
        self._begun += 1
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

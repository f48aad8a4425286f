"""The DALI loader: balanced reading and 3-D augmentation as a DALI pipeline, on the GPU or on the CPU.

For stores larger than memory (crops are read straight from the store's memory maps, and only where a
patch lies) and for those who standardise on DALI. It executes the same table as the fused loader, the noise
included; elastic deformation and edge softening it does not have.
"""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from toolkit.device import Device, resolve
from toolkit.loading.batch import Batch
from toolkit.loading.dali_graph import Chain, build, chain_for, chain_of, inputs
from toolkit.loading.plan import Plan, refuse
from toolkit.loading.table import AugmentTable
from toolkit.memory import cores

if TYPE_CHECKING:
    import torch


class DaliLoader:
    """A `toolkit.loading.batch.Loader` made of a DALI pipeline.

    Batches are the same for any number of threads, after any resume, and for any number of ranks. The image
    is DALI's own memory (DLPack), which lives as long as the tensor: float32 and float16 are not copied,
    bfloat16, which DALI does not have, is made by torch in one pass more. Space to depth costs one pass on
    DALI's threads. One epoch runs at a time: starting another ends the first.

    Parameters
    ----------
    plan
        What is read and what happens to it. Rows are drawn ahead, from the thread that iterates; no batch
        of its sampler may be larger than the first of epoch 0.
    device
        ``auto`` takes the GPU where there is one.
    threads
        DALI's CPU threads; all cores when None.
    prefetch
        Batches that DALI has under way, the one that is asked for included. The state counts what was
        yielded, not these.

    Raises
    ------
    UsageError
        E-LOAD-001 on a wrong setting, E-LOAD-021 where DALI is not installed, E-LOAD-022 on elastic
        deformation and edge softening, which DALI does not have.
    """

    def __init__(
        self, plan: Plan, *, device: Device = "auto", threads: int | None = None, prefetch: int = 2
    ) -> None:
        threads = cores() if threads is None else threads
        for name, value in (("threads", threads), ("prefetch", prefetch)):
            if value < 1:
                refuse(name, str(value), "at least 1")
        half = plan.dtype == "float16"
        chain = chain_for(plan.config, plan.size, half=half, space_to_depth=plan.space_to_depth)
        self.plan, self._device_id, self._labels = plan, _device_id(device), plan.labels()
        self._feed = _Feed(plan, chain, keep=prefetch + 2)
        self._pipeline = build(
            chain,
            self._feed,
            batch=len(plan.sampler.batch(0, 0)[0]) if plan.sampler.steps(0) else 1,
            threads=threads,
            device_id=self._device_id,
            depth=prefetch,
        )
        where = f"the CPU with {threads} threads" if self._device_id is None else f"GPU {self._device_id}"
        self.reason = f"DALI was asked for; it runs on {where}"
        self._running: Generator[Batch] | None = None

    def steps(self, epoch: int) -> int:
        """Return how many batches an epoch has."""
        return self.plan.sampler.steps(epoch)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from a step on."""
        steps = self.steps(epoch)
        if not 0 <= first_step <= steps:
            refuse("first_step", str(first_step), f"0 to {steps}")
        self._end_running()
        if self._pipeline is None:
            raise RuntimeError("the loader is closed")
        self._running = self._batches(epoch, range(first_step, steps))
        return self._running

    def close(self) -> None:
        """End DALI's threads and free its memory; tensors that were handed out stay valid."""
        self._end_running()
        self._pipeline = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _end_running(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None

    def _batches(self, epoch: int, steps: range) -> Generator[Batch]:
        self._feed.start(epoch, steps)
        try:
            while (image := self._next()) is not None:
                step, index = self._feed.asked.popleft()
                labels = self._to_device(self._labels[index])
                yield Batch(image, labels, index, epoch, step)
        finally:  # also where the caller left early: what was made ahead has to come out
            self._feed.start(epoch, range(0))
            while self._next() is not None:
                pass
            self._pipeline.reset()

    def _next(self) -> "torch.Tensor | None":
        """Return the next image (b, c, d, h, w), or None when all that was asked for has come out."""
        import torch
        from torch.utils.dlpack import from_dlpack

        # on a GPU the outputs are ordered on this stream, and the host does not wait
        stream = None if self._device_id is None else torch.cuda.current_stream(self._device_id)
        try:
            (made,) = self._pipeline.run(stream)
        except StopIteration:
            return None
        image = from_dlpack(made.as_tensor()).permute(0, 4, 1, 2, 3)
        return image.to(torch.bfloat16) if self.plan.dtype == "bfloat16" else image

    def _to_device(self, values: NDArray[np.float32]) -> "torch.Tensor":
        import torch

        tensor = torch.from_numpy(values)
        return tensor if self._device_id is None else tensor.to(f"cuda:{self._device_id}")


class _Feed:
    """Answers DALI, which asks ahead; knows nothing of the pipeline, so that both can be freed.

    Attributes
    ----------
    asked
        Step and crops of each batch that was handed out and has not come back.
    """

    def __init__(self, plan: Plan, chain: Chain, *, keep: int) -> None:
        self._plan, self._chain = plan, chain
        self._epoch, self._steps = 0, iter(range(0))
        self.asked: deque[tuple[int, NDArray[np.int64]]] = deque()
        # DALI reads these arrays where they are, until their batch has come out
        self._kept: deque[dict[str, Any]] = deque(maxlen=keep)

    def start(self, epoch: int, steps: range) -> None:
        self._epoch, self._steps = epoch, iter(steps)
        self.asked.clear()

    def __call__(self) -> dict[str, Any]:
        step = next(self._steps)  # StopIteration is what DALI expects at the end
        store, table = self._plan.store, self._plan.table(self._epoch, step)
        images = [store.image(int(i)) for i in table.index]
        masks = [store.mask(int(i)) for i in table.index] if self._chain.mask_mode != "none" else []
        self._kept.append(inputs(self._chain, table, images, masks))
        self.asked.append((step, table.index))
        return self._kept[-1]


def warp_rows(
    table: AugmentTable, images: Sequence[NDArray[np.int16]], masks: Sequence[NDArray[np.uint8]]
) -> NDArray[np.float32]:
    """Return the patches of a table as DALI makes them on the CPU, float32 (b, d, h, w, c).

    `images` and `masks` (not looked at without a mask mode) are (s, s, s), one for each row.
    Raises as `inputs` and `build` do.
    """
    chain = chain_of(table)
    fed = inputs(chain, table, images, masks)
    pipeline = build(chain, lambda: fed, batch=len(table), threads=cores(), device_id=None, depth=1)
    (made,) = pipeline.run()
    return np.array(made.as_tensor())


def _device_id(device: Device) -> int | None:
    if resolve(device) == "cpu":
        return None
    import torch

    return torch.cuda.current_device()

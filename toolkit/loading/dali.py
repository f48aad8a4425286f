"""The DALI loader: balanced reading and 3-D augmentation as a DALI pipeline, on the GPU or on the CPU.

For stores larger than memory (crops are read straight from the store's memory maps, and only where a
patch lies) and for those who standardise on DALI. It executes the same table as the fused loader, the noise
included; elastic deformation and edge softening it does not have.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from toolkit.device import Device, resolve
from toolkit.errors import Problem, UsageError
from toolkit.loading.augment import AugmentConfig
from toolkit.loading.batch import Batch
from toolkit.loading.dali_graph import Chain, build, chain_for, chain_of, inputs
from toolkit.loading.draw import CropGeometry, draw
from toolkit.loading.table import AugmentTable
from toolkit.store.reader import Store

if TYPE_CHECKING:
    import torch


class Sampler(Protocol):
    """Who is in a batch."""

    def steps(self, epoch: int) -> int:
        """Return how many batches an epoch has."""

    def batch(self, epoch: int, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return which crops, and the number of each one's draw in this epoch, int64 (b,) each."""


class DaliLoader:
    """A `toolkit.loading.batch.Loader` made of a DALI pipeline.

    Batches are the same for any number of threads, after any resume, and for any number of ranks. The image
    is DALI's own memory (DLPack), which lives as long as the tensor: float32 and float16 are not copied,
    bfloat16, which DALI does not have, is made by torch in one pass more. ``space_to_depth`` costs one
    pass on DALI's threads.

    Parameters
    ----------
    store
        Where the crops are.
    sampler
        Who is in a batch; none is larger than the first batch of epoch 0.
    config
        What may happen to a crop; rows are drawn ahead, from the thread that iterates.
    seed
        Of the draws.
    size
        Voxels along each side of the patch; the store's when None.
    device
        ``auto`` takes the GPU where there is one.
    threads
        DALI's CPU threads; all cores when None.
    dtype
        Of the image.
    space_to_depth
        Cells of 2x2x2 voxels become channels in order (dz, dy, dx, c).
    prefetch
        Batches made ahead. The state counts what was yielded, not these.

    Raises
    ------
    UsageError
        E-LOAD-021 where DALI is not installed, E-LOAD-022 on elastic deformation and edge softening,
        E-AUG-003 where the patch is larger than the stored crop, E-AUG-004 with a mask mode on nodules
        without a mask.
    """

    def __init__(
        self,
        store: Store,
        sampler: Sampler,
        config: AugmentConfig,
        *,
        seed: int = 0,
        size: int | None = None,
        device: Device = "auto",
        threads: int | None = None,
        dtype: Literal["float32", "float16", "bfloat16"] = "float32",
        space_to_depth: bool = False,
        prefetch: int = 2,
    ) -> None:
        geometry = CropGeometry(store.size + 2 * store.margin, size or store.size, store.spacing_mm)
        _refuse_without_masks(store, config)
        chain = chain_for(config, geometry.size, half=dtype == "float16", space_to_depth=space_to_depth)
        threads = threads or _cores()
        self._sampler, self._dtype, self._device_id = sampler, dtype, _device_id(device)
        self._labels = np.array([np.nan if n.label is None else n.label for n in store.nodules], np.float32)
        self._feed = _Feed(store, sampler, partial(draw, config, geometry), seed, chain, keep=prefetch + 2)
        self._pipeline = build(
            chain,
            self._feed,
            batch=len(sampler.batch(0, 0)[0]) if sampler.steps(0) else 1,
            threads=threads,
            device_id=self._device_id,
            depth=prefetch,
        )
        where = f"the CPU with {threads} threads" if self._device_id is None else f"GPU {self._device_id}"
        self.reason = f"DALI was asked for; it runs on {where}"
        self._running: Generator[Batch] | None = None

    def steps(self, epoch: int) -> int:
        """Return how many batches an epoch has."""
        return self._sampler.steps(epoch)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from a step on; an epoch still running is ended first."""
        self._end_running()
        if self._pipeline is None:
            raise RuntimeError("the loader is closed")
        self._running = self._batches(epoch, first_step)
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

    def _batches(self, epoch: int, first_step: int) -> Generator[Batch]:
        self._feed.start(epoch, range(first_step, self.steps(epoch)))
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
        return image.to(torch.bfloat16) if self._dtype == "bfloat16" else image

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

    def __init__(
        self,
        store: Store,
        sampler: Sampler,
        rows: Callable[..., AugmentTable],
        seed: int,
        chain: Chain,
        *,
        keep: int,
    ) -> None:
        self._store, self._sampler, self._rows, self._seed, self._chain = store, sampler, rows, seed, chain
        self._epoch, self._steps = 0, iter(range(0))
        self.asked: deque[tuple[int, NDArray[np.int64]]] = deque()
        # DALI reads these arrays where they are, until their batch has come out
        self._kept: deque[dict[str, Any]] = deque(maxlen=keep)

    def start(self, epoch: int, steps: range) -> None:
        self._epoch, self._steps = epoch, iter(steps)
        self.asked.clear()

    def __call__(self) -> dict[str, Any]:
        step = next(self._steps)  # StopIteration is what DALI expects at the end
        index, number = self._sampler.batch(self._epoch, step)
        table = self._rows(index, self._seed, self._epoch, number)
        images = [self._store.image(int(i)) for i in index]
        masks = [self._store.mask(int(i)) for i in index] if self._chain.mask_mode != "none" else []
        self._kept.append(inputs(self._chain, table, images, masks))
        self.asked.append((step, index))
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
    pipeline = build(chain, lambda: fed, batch=len(table), threads=_cores(), device_id=None, depth=1)
    (made,) = pipeline.run()
    return np.array(made.as_tensor())


def _refuse_without_masks(store: Store, config: AugmentConfig) -> None:
    bare = sum(nodule.mask_source == "none" for nodule in store.nodules)
    if config.mask_mode != "none" and bare:
        action = "Nothing done; take mask_mode none, or a store whose nodules all have one"
        measured = f"mask_mode {config.mask_mode}, {bare} of {len(store)} nodules without"
        raise UsageError(Problem("E-AUG-004", "a mask mode needs masks", measured, "0", action))


def _device_id(device: Device) -> int | None:
    if resolve(device) == "cpu":
        return None
    import torch

    return torch.cuda.current_device()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

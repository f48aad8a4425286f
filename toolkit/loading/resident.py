"""The fused loader on a GPU: the store lies in the GPU's memory, and a batch is one kernel.

The store is copied once, through pinned memory. A table goes by an asynchronous copy to a stream of its own,
the kernel follows it there, and events order both against the consumer's stream: in the steady state the host
waits for nothing. One batch is made ahead.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from kernels.augment import MODES, grids, output_shape, parameters
from toolkit.loading.batch import Batch
from toolkit.loading.plan import Plan, refuse
from toolkit.loading.table import AugmentTable

if TYPE_CHECKING:
    import torch

AHEAD = 1
BUFFERS = AHEAD + 2  # and the one that is asked for, and the one before it, which is still lent
CHUNK = 64  # crops that are copied at a time


class ResidentLoader:
    """Makes batches on a GPU; implements `toolkit.loading.batch.Loader`.

    A batch lends its tensors as `toolkit.loading.fused.FusedLoader` does: they are overwritten once the batch
    after the next is asked for, in the order of the stream that is current then.
    """

    def __init__(self, plan: Plan, *, device: str = "cuda", reason: str = "asked for") -> None:
        import torch
        from numba import cuda

        from kernels import rng

        self.reason, self.plan, self._device = reason, plan, torch.device(device)
        self._stream = torch.cuda.Stream(self._device)
        self._launch_stream = cuda.external_stream(self._stream.cuda_stream)
        self._images = self._upload("images", torch.int16)
        self._masks = self._images
        if plan.config.mask_mode != "none":
            self._masks = self._spread(self._upload("masks", torch.uint8))
        self._labels = torch.from_numpy(plan.labels()).to(self._device)
        self._normals = torch.from_numpy(rng.normal_table().copy()).to(self._device)
        self._slots: list[_Slot] = []
        self._begun = 0
        torch.cuda.synchronize(self._device)

    def steps(self, epoch: int) -> int:
        """Return how many batches an epoch has."""
        return self.plan.sampler.steps(epoch)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from a step on; see the class for how long they live."""
        steps = self.steps(epoch)
        if not 0 <= first_step <= steps:
            refuse("first_step", str(first_step), f"0 to {steps}")
        return self._batches(epoch, first_step, steps)

    def _batches(self, epoch: int, first_step: int, steps: int) -> Iterator[Batch]:
        import torch

        pending: list[tuple[_Slot, AugmentTable]] = []
        following = first_step
        for step in range(first_step, steps):
            while following < min(step + 1 + AHEAD, steps):
                pending.append(self._start(epoch, following))
                following += 1
            slot, table = pending.pop(0)
            torch.cuda.current_stream(self._device).wait_event(slot.ready)
            b = len(table)
            image = slot.image[:b].permute(0, 4, 1, 2, 3)
            yield Batch(image, slot.label[:b], table.index, epoch, step)

    def _start(self, epoch: int, step: int) -> tuple["_Slot", AugmentTable]:
        """Draw a batch, send its table and launch its kernel, without waiting."""
        import torch
        from numba import cuda

        from kernels import augment_cuda

        plan, table = self.plan, self.plan.table(epoch, step)
        elastic, scale = grids(table)
        slot = self._slot(table, elastic)
        b = len(table)
        slot.sent.synchronize()  # its last copy, BUFFERS batches ago: long done
        slot.write(table, elastic)
        # whatever was asked of the consumer's stream until now may still read this slot
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for there, here in zip(slot.on_device, slot.pinned, strict=True):
                there.copy_(here, non_blocking=True)
            slot.sent.record()
            torch.index_select(self._labels, 0, slot.on_device[0][:b, 0], out=slot.label[:b])
            out = slot.image.view(torch.uint16) if plan.dtype == "bfloat16" else slot.image
            arrays = (self._images, self._masks, *slot.on_device, self._normals, out)
            views = [cuda.as_cuda_array(array, sync=False) for array in arrays]
            images, masks, ids, rows, grid, normals, flat = views
            settings = (scale, MODES.index(table.mask_mode), table.size, plan.space_to_depth)
            flat = flat.reshape(len(out), -1)[:b]
            augment_cuda.launch(
                images, masks, ids, rows[:b], grid, settings, normals, flat, self._launch_stream
            )
            slot.ready.record()
        return slot, table

    def _slot(self, table: AugmentTable, elastic: NDArray[np.float32]) -> "_Slot":
        """Return the next slot of the ring, made anew where the batch is larger than any before."""
        number = self._begun % BUFFERS
        self._begun += 1
        if number == len(self._slots):
            self._slots.append(_Slot.make(self.plan, table, elastic, self._device))
        elif len(self._slots[number].image) < len(table):
            self._slots[number] = _Slot.make(self.plan, table, elastic, self._device)
        return self._slots[number]

    def _upload(self, name: str, dtype: "torch.dtype") -> "torch.Tensor":
        """Copy all crops or all masks of the store to the device, through pinned chunks."""
        import torch

        store = self.plan.store
        side = self.plan.geometry.side
        there = torch.empty((len(store), side, side, side), dtype=dtype, device=self._device)
        pinned = torch.empty((CHUNK, side, side, side), dtype=dtype, pin_memory=True)
        for shard in store.shards:
            source = getattr(shard, name)
            for begin in range(0, len(source), CHUNK):
                part = source[begin : begin + CHUNK]
                pinned.numpy()[: len(part)] = part
                there[shard.first + begin : shard.first + begin + len(part)].copy_(pinned[: len(part)])
        return there

    def _spread(self, masks: "torch.Tensor") -> "torch.Tensor":
        from kernels.augment import spread

        edge_voxels = self.plan.config.edge_mm / self.plan.store.spacing_mm
        if not edge_voxels:
            return masks
        done: torch.Tensor = spread(masks, edge_voxels)
        return done

    def close(self) -> None:
        """Free the GPU's memory."""
        self._stream.synchronize()
        self._slots.clear()
        del self._images, self._masks

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, eq=False)
class _Slot:
    """Memory of one batch: ids, rows and elastic grid, pinned and on the device, and the output."""

    pinned: "tuple[torch.Tensor, ...]"
    on_device: "tuple[torch.Tensor, ...]"
    image: "torch.Tensor"
    label: "torch.Tensor"
    sent: Any
    ready: Any

    @classmethod
    def make(
        cls, plan: Plan, table: AugmentTable, elastic: NDArray[np.float32], device: "torch.device"
    ) -> "_Slot":
        import torch

        b = len(table)
        shapes = ((b, 2), (b, parameters(table).shape[1]), elastic.shape)
        types = (torch.int64, torch.float32, torch.float32)
        pinned = tuple(
            torch.empty(shape, dtype=each, pin_memory=True) for shape, each in zip(shapes, types, strict=True)
        )
        shape = output_shape(table, plan.space_to_depth)
        image = torch.empty(shape, dtype=getattr(torch, plan.dtype), device=device)
        label = torch.empty(b, dtype=torch.float32, device=device)
        there = tuple(each.to(device) for each in pinned)
        return cls(pinned, there, image, label, torch.cuda.Event(), torch.cuda.Event())

    def write(self, table: AugmentTable, elastic: NDArray[np.float32]) -> None:
        """Write a table into the pinned memory."""
        from kernels.augment_cuda import identifiers

        for there, array in zip(self.pinned, (identifiers(table), parameters(table), elastic), strict=True):
            there.numpy()[: len(table)] = array

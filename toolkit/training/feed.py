"""Batches on their way to the device, and what belongs to their nodules, a whole epoch in one copy."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolkit.loading.batch import Batch
from toolkit.loading.sampler import Sampler

if TYPE_CHECKING:
    import torch


def images(batches: Iterable[Batch], device: "torch.device") -> "Iterator[tuple[Batch, torch.Tensor]]":
    """Yield batches with their images on the device.

    A batch lends its buffer until the batch after the next is asked for, so a copy must have left it by then;
    that is the only wait, and it is two batches behind.
    """
    import torch

    copies: list[torch.cuda.Event] = []
    for batch in batches:
        if batch.image.device.type == device.type:
            yield batch, batch.image
            continue
        image = batch.image.to(device, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        copies.append(event)
        yield batch, image
        if len(copies) > 1:
            copies.pop(0).synchronize()


def of_epoch(
    sampler: Sampler, epoch: int, values: NDArray[np.floating], device: "torch.device"
) -> "torch.Tensor":
    """Return the values of an epoch's nodules, float32 (steps, b, ...), on the device.

    `values` is (n of the store, ...). One copy an epoch, so that a step copies nothing.
    """
    import torch

    index = np.stack([sampler.batch(epoch, step)[0] for step in range(sampler.steps(epoch))])
    return torch.from_numpy(np.ascontiguousarray(values[index], np.float32)).to(device)

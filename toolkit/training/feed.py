"""What belongs to the nodules of an epoch, on the device in one copy."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolkit.loading.sampler import Sampler

if TYPE_CHECKING:
    import torch


def of_epoch(
    sampler: Sampler, epoch: int, values: NDArray[np.floating], device: "torch.device"
) -> "torch.Tensor":
    """Return the values of an epoch's nodules, float32 (steps, b, ...), on the device.

    `values` is (n of the store, ...). One copy an epoch, so that a step copies nothing.
    """
    import torch

    index = np.stack([sampler.batch(epoch, step)[0] for step in range(sampler.steps(epoch))])
    return torch.from_numpy(np.ascontiguousarray(values[index], np.float32)).to(device)

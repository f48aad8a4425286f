"""Logits of many batches: what validation and prediction have in common."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from toolkit.loading.batch import Batch, on_device


def logits(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    measured: NDArray[np.float32] | None = None,
    device: str | torch.device = "cpu",
    amp_dtype: torch.dtype = torch.float32,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return which crops were read, int64 (n,), and their logits, float64 (n,), in the order of reading.

    The model runs in eval mode and is left as it was. The host waits for logits once, at the end.

    Parameters
    ----------
    model
        As `toolkit.models.registry.build` returns it, on `device`.
    batches
        Of a loader.
    measured
        Scaled features of every crop of the store, (n of the store, k), for a model that fuses them.
    amp_dtype
        Of autocast; float32 is none.
    """
    device = torch.device(device)
    exact = next((each.dtype for each in model.parameters()), torch.float32)
    indices: list[NDArray[np.int64]] = []
    found: list[Tensor] = []
    mixed = amp_dtype != torch.float32
    with evaluating(model):
        for batch, image in on_device(batches, device):
            features = None
            if measured is not None:
                features = torch.from_numpy(measured[batch.index]).to(device, non_blocking=True)
            # around the model alone: a buffer that a loader makes in inference mode could never train
            with torch.inference_mode(), torch.autocast(device.type, amp_dtype, enabled=mixed):
                found.append(model(image if mixed else image.to(exact), features))
            indices.append(np.array(batch.index, np.int64))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.float64)
    return np.concatenate(indices), torch.cat(found).double().cpu().numpy()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode, and each of its modules back into its own mode at the end."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training

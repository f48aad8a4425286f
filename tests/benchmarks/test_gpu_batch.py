"""What of the GPU benchmark can be proved without a GPU: its batch, and that its gate can go red."""

import numpy as np
import pytest

from benchmarks import gpu
from kernels import extract


def test_the_batch_is_ragged_and_holds_nodules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "PATIENTS", 2)
    monkeypatch.setattr(gpu, "COPIES", 1)
    bricks = gpu.batch(0)
    assert len({tuple(shape) for shape in bricks.shape_zyx}) > 1
    _, occupancy = extract(bricks, gpu.SETTINGS.side)
    assert (occupancy.reshape(len(occupancy), -1).max(axis=1) == 255).all()

    class Device:
        def __init__(self, array: np.ndarray) -> None:
            self.array = array

        def get(self) -> np.ndarray:
            return self.array

    results = iter([extract(bricks, gpu.SETTINGS.side)])

    def kernel(given, size):
        if given is bricks:
            return extract(given, size)
        image, shares = next(results)
        image[0, 0, 0, 0] += 7
        return Device(image), Device(shares)

    monkeypatch.setattr(gpu.kernels, "extract", kernel)
    assert gpu.gate(bricks, None) == (7, 0)

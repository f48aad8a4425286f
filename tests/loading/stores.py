"""Small stores and the simplest sampler, for tests of loaders."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.store.format import Nodule
from toolkit.store.reader import Store


def make_store(path: Path, count: int = 10, side: int = 16, margin: int = 3, bare: int = 0) -> Store:
    """Make a store of noise; every third label is unknown, the last `bare` nodules have no mask."""
    rng = np.random.default_rng(count)
    images = rng.integers(-1024, 3072, (count, side, side, side)).astype(np.int16)
    masks = np.zeros(images.shape, np.uint8)
    inner = slice(side // 3, side - side // 3)
    masks[: count - bare, inner, inner, inner] = rng.integers(
        1, 256, masks[: count - bare, inner, inner, inner].shape
    )
    nodules = [
        Nodule(
            nodule_id=f"n{i}", case_id=f"c{i}", patient_id=f"p{i}", label=(0.0, 1.0, None)[i % 3],
            diameter_mm=None, volume_mm3=None, center_lps_mm=(0.0, 0.0, 0.0), occupancy=0.1,
            mask_source="none" if i >= count - bare else "reader",
        )
        for i in range(count)
    ]  # fmt: skip
    return Store.create(path, nodules, images, masks, 0.8, margin=margin)


@dataclass(frozen=True)
class InOrder:
    """Every crop once an epoch, in order, from another start in each epoch; the last batch may be short."""

    count: int
    batch_size: int

    def steps(self, epoch: int) -> int:
        return -(-self.count // self.batch_size)

    def batch(self, epoch: int, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        number = np.arange(step * self.batch_size, min((step + 1) * self.batch_size, self.count))
        return (number + epoch) % self.count, number

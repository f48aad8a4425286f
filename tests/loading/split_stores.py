"""Small stores for tests of splits: noise that is alike nowhere, with structure as coarse as tissue."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from toolkit.store import Nodule, Store

SIDE = 16


def texture(seed: int, side: int = SIDE) -> np.ndarray:
    """Smooth noise between -1000 and 400 HU, zyx."""
    wide = np.random.default_rng(seed).normal(size=(side + 2,) * 3)
    smooth = sum(
        wide[i : i + side, j : j + side, k : k + side] for i in range(3) for j in range(3) for k in range(3)
    )
    return np.clip(-300 + 100 * smooth, -1000, 400).astype(np.int16)


def make_store(path: Path, nodules: Sequence[Nodule], images: np.ndarray | None = None) -> Store:
    if images is None:  # each nodule's crop follows from its id, wherever it is in the store
        images = np.stack([texture(int.from_bytes(n.nodule_id.encode()[-7:])) for n in nodules])
    return Store.create(path, nodules, images, np.zeros(images.shape, np.uint8), 1.0)

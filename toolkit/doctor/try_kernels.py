"""A back end's crops and patches against exact mathematics (`kernels.oracle`), on bricks of a few voxels.

Tolerances: `tests.tolerances` derives, voxel by voxel, how far float32 may be off; the bounds here are above
its largest on these very inputs and below twice that (`tests/doctor/test_try.py` holds both).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import Brick, Bricks, oracle, oracle_augment, pack
from toolkit.loading.table import AugmentTable

Extract = Callable[[Bricks, int], tuple[Any, Any]]
Augment = Callable[[NDArray[np.int16], NDArray[np.uint8], AugmentTable], Any]

SIZE, SIDE = 8, 14  # voxels of a cube, and of what it is cut from
HU_ERROR = 0.5 + 0.1  # rounding to whole HU, then that of float32
OCCUPANCY_ERROR = 0.5 + 0.008  # of 255
VALUE_ERROR = 7e-4  # of a patch, windowed to [0, 1]
TURN = np.array([[0.936, -0.275, 0.218], [0.289, 0.956, -0.037], [-0.198, 0.098, 0.975]])


class WrongError(Exception):
    """A result is not what it should be; the text says by how much."""


def bricks() -> Bricks:
    """Return an axial, a turned and an uneven brick of white noise: each path of the kernels is taken."""
    rng = np.random.default_rng(0)
    gaps = np.concatenate([[0.0], np.cumsum(rng.uniform(0.7, 1.4, SIDE - 1))])
    found = []
    for linear, slices in ((np.diag([0.83, 1.21, 0.71]), None), (TURN, None), (1.1 * TURN, gaps)):
        hu = rng.integers(-1024, 3072, (SIDE,) * 3).astype(np.int16)
        mask = rng.integers(0, 2, hu.shape).astype(np.uint8)
        corner = np.full(3, (SIDE - 1) / 2) - linear @ np.full(3, (SIZE - 1) / 2) + (0.013, -0.021, 0.017)
        found.append(Brick(hu, mask, np.column_stack([linear, corner]), slices))
    return pack(found, SIZE)


def try_extraction(extract: Extract) -> str:
    """Compare extraction with the oracle; raise `WrongError` where they differ by more than rounding."""
    packed = bricks()
    image, occupancy = (np.asarray(each, np.float64) for each in extract(packed, SIZE))
    hu, share, _ = oracle.extract(packed, SIZE)
    off = _largest(image - hu), _largest(occupancy - share)
    told = f"{off[0]:.2f} HU and {off[1]:.2f} of 255 off at most, rounding included"
    if not (off[0] <= HU_ERROR and off[1] <= OCCUPANCY_ERROR):
        raise WrongError(told)
    return told


def patches(*, elastic: bool) -> tuple[NDArray[np.int16], NDArray[np.uint8], AugmentTable]:
    """Return two crops, their masks and a table that uses every operation (elastic ones if asked for)."""
    rng = np.random.default_rng(1)
    images = rng.integers(-1024, 3072, (2, SIDE, SIDE, SIDE)).astype(np.int16)
    masks = rng.integers(0, 256, images.shape).astype(np.uint8)
    corner = np.full(3, (SIDE - 1) / 2) - TURN @ np.full(3, (SIZE - 1) / 2) + (0.313, -0.221, 0.417)
    matrix = np.column_stack([TURN, corner]).astype(np.float32)
    grid = rng.normal(0, 0.7, (2, 3, 5, 5, 5)).astype(np.float32)
    table = AugmentTable(
        index=np.arange(2),
        matrix=np.stack([matrix, matrix]),
        low_hu=np.array([-1000, -160], np.float32),
        width_hu=np.array([1400, 400], np.float32),
        gamma=np.array([1.4, 1.0], np.float32),
        gain=np.array([1.1, 0.9], np.float32),
        bias=np.array([0.05, -0.05], np.float32),
        noise_sigma=np.array([0.1, 0.0], np.float32),
        noise_key=np.array([7, 0x9E3779B97F4A7C15], np.uint64),
        elastic=grid if elastic else None,
        size=SIZE,
        mask_mode="soft",
    )
    return images, masks, table


def try_augmentation(augment: Augment, *, elastic: bool = True) -> str:
    """Compare patches (b, d, h, w, 1) with the oracle; raise `WrongError` where they differ."""
    images, masks, table = patches(elastic=elastic)
    made = np.asarray(augment(images, masks, table), np.float64)[..., 0]
    exact, _ = oracle_augment.augment(images, masks, table)
    off = _largest(made - exact)
    told = f"{off:.1e} off at most, of a range of 1"
    if not off <= VALUE_ERROR:
        raise WrongError(told)
    return told


def _largest(difference: NDArray[np.float64]) -> float:
    """Return the largest magnitude; NaN where there is one."""
    return float(np.abs(difference).max())

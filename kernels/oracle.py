"""Independent float64 mathematics, slow and obvious; for tests, benchmarks and self-tests only.

Nothing here is shared with `kernels.arith`: the whole weight matrix of every axis is written out.
"""

import numpy as np
from numpy.typing import NDArray

from kernels import Bricks


def extract(bricks: Bricks, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Return unrounded HU, unrounded occupancy (0-255) and whether each voxel is outside its brick.

    Each is (n, size, size, size). A voxel outside has -1024 HU and occupancy 0.
    """
    results = [_extract_one(bricks, b, size) for b in range(len(bricks.offset))]
    image, occupancy, outside = (np.stack(part) for part in zip(*results, strict=True))
    return image, occupancy, outside


def _extract_one(
    bricks: Bricks, b: int, size: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    shape = tuple(int(n) for n in bricks.shape_zyx[b])
    begin, end = int(bricks.offset[b]), int(bricks.offset[b]) + int(np.prod(shape))
    target = np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    matrix = bricks.matrix[b].astype(np.float64)
    p = target @ matrix[:, :3].T + matrix[:, 3]
    norm = np.tile(bricks.norm[b].astype(np.float64), (len(p), 1))
    last = np.array(shape, dtype=np.float64) - 1
    start = int(bricks.position_start[b])
    if start >= 0:
        z = bricks.positions[start : start + shape[0]].astype(np.float64)
        last[0] = z[-1]
    outside = np.any((p < -0.5) | (p > last + 0.5), axis=1)
    if start >= 0:
        below = np.clip(np.searchsorted(z, p[:, 0], side="right") - 1, 0, shape[0] - 2)
        gap = z[below + 1] - z[below]
        p[:, 0] = np.clip(below + (p[:, 0] - z[below]) / gap, -0.5, shape[0] - 0.5)
        norm[:, 0] /= gap
    weights = []
    for axis in range(3):
        distance = np.abs(np.arange(shape[axis]) - p[:, axis, None])
        tent = np.maximum(0.0, 1.0 - distance / np.maximum(1.0, norm[:, axis, None]))
        tent[outside] = 1.0  # any number: the result is replaced below
        weights.append(tent / tent.sum(axis=1, keepdims=True))
    hu = bricks.hu[begin:end].reshape(shape).astype(np.float64)
    mask = bricks.mask[begin:end].reshape(shape).astype(np.float64) * bool(bricks.has_mask[b])
    image = np.einsum("vz,vy,vx,zyx->v", *weights, hu, optimize=True)
    occupancy = 255.0 * np.einsum("vz,vy,vx,zyx->v", *weights, mask, optimize=True)
    image[outside], occupancy[outside] = -1024.0, 0.0
    cube = (size, size, size)
    return image.reshape(cube), occupancy.reshape(cube), outside.reshape(cube)

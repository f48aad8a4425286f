"""Independent float64 mathematics of augmentation, slow and obvious; for tests and self-tests only.

Nothing here is shared with `kernels.augment_arith`: interpolation, splines and convolution are SciPy's, the
random numbers are Python's integers.
"""

from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import interpolate, ndimage

from kernels.augment import Table

Array = NDArray[np.float64]


def augment(images: Any, masks: Any, table: Table) -> tuple[Array, Array]:
    """Return value and occupancy in [0, 1], each (b, size, size, size); occupancy is 1 without a mask.

    `images` and `masks` hold one crop for each row; masks are taken as they are (see `spread`).
    """
    found = [_one(images[k], None if masks is None else masks[k], table, k) for k in range(len(table.index))]
    value, share = (np.stack(part) for part in zip(*found, strict=True))
    return value, share


def positions(table: Table, k: int) -> Array:
    """Return where the voxels of patch `k` lie in their crop, (3, size, size, size)."""
    size = table.size
    voxel = np.stack(np.meshgrid(*[np.arange(size, dtype=np.float64)] * 3, indexing="ij"))
    matrix = table.matrix[k].astype(np.float64)
    p = np.einsum("ij,jzyx->izyx", matrix[:, :3], voxel) + matrix[:, 3, None, None, None]
    if table.elastic is not None:
        basis = spline_basis(table.elastic.shape[-1], size)
        p = p + np.einsum("aijk,zi,yj,xk->azyx", table.elastic[k].astype(np.float64), basis, basis, basis)
    return np.asarray(p, np.float64)


def spline_basis(points: int, size: int) -> Array:
    """Return the weight of every control point at every voxel, (size, points).

    The points lie ``h = (size - 1) / (points - 3)`` apart, the first at -h.
    """
    knots = (
        np.arange(points + 4, dtype=np.float64) - 3
    )  # in spacings; the basis is complete on [0, points - 3]
    at = np.arange(size) * ((points - 3) / max(size - 1, 1))
    at = np.minimum(at, np.nextafter(points - 3, 0))  # the last voxel belongs to the last interval
    return np.asarray(interpolate.BSpline.design_matrix(at, knots, 3).toarray())


def normals(key: int, count: int) -> Array:
    """Return the first `count` normals of a key."""
    quantile = NormalDist().inv_cdf
    everything = np.array([quantile((n + 0.5) / 65536) for n in range(65536)])
    halves = [half for counter in range(-(-count // 8)) for half in _halves(counter, key)]
    return np.asarray((everything / everything.std())[halves[:count]], np.float64)


def spread(mask: NDArray[np.uint8], edge_voxels: float) -> Array:
    """Return a mask, 0-255, spread in its crop, before it is rounded."""
    offset = np.arange(-int(np.ceil(edge_voxels)), int(np.ceil(edge_voxels)) + 1)
    tent = np.maximum(0, 1 - np.abs(offset) / (1 + np.float64(edge_voxels)))
    found = mask.astype(np.float64)
    for axis in range(3):
        found = ndimage.convolve1d(found, tent / tent.sum(), axis=axis, mode="constant", cval=0.0)
    return np.asarray(found, np.float64)


def _one(image: Any, mask: Any, table: Table, k: int) -> tuple[Array, Array]:
    p = positions(table, k)
    value = sample(image, p, -1024.0)
    low, width, gamma = (float(column[k]) for column in (table.low_hu, table.width_hu, table.gamma))
    if width:
        value = np.clip((value - low) / width, 0, 1) ** gamma
    value = value * float(table.gain[k]) + float(table.bias[k])
    if table.noise_sigma[k]:
        noise = normals(int(table.noise_key[k]), table.size**3).reshape(value.shape)
        value = value + float(table.noise_sigma[k]) * noise
    if table.mask_mode == "none":
        return value, np.ones_like(value)
    share = sample(mask, p, 0.0) / 255
    if table.mask_mode == "hard":
        share = (share >= 0.5).astype(np.float64)
    return (value if table.mask_mode == "channel" else value * share), share


def sample(source: Any, p: Array, outside: float) -> Array:
    """Interpolate trilinearly; voxels that do not exist are `outside`."""
    found = ndimage.map_coordinates(
        source.astype(np.float64), p, order=1, mode="grid-constant", cval=outside, prefilter=False
    )
    return np.asarray(found, np.float64)


def _halves(counter: int, key: int) -> list[int]:
    """Return the eight 16-bit halves of one Philox 4x32-10 block, the lower half of a word first."""
    c, k, word = [counter, 0, 0, 0], [key % 2**32, key >> 32], 2**32
    for _ in range(10):
        left, right = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [right // word ^ c[1] ^ k[0], right % word, left // word ^ c[3] ^ k[1], left % word]
        k = [(k[0] + 0x9E3779B9) % word, (k[1] + 0xBB67AE85) % word]
    return [half for w in c for half in (w % 65536, w // 65536)]

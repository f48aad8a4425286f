"""What the DALI tests are given, what the table means in float64 (by SciPy), and how far DALI may be off.

**Position.** DALI reads the float32 matrix; only its offset c is rounded on the way in. With
``S = sum |m| (t + 0.5) + |c|``: c (1), products and sums (4), the half that is taken off again (1), and one
for each step along x, which the CPU makes by addition: ``|dp| <= (6 + x) u S``.

**HU.** The interpolant, air outside included, is continuous, and no steeper along an axis than the range of
the data: dp times the range, summed over axes. Three levels of ``a + q (b - a)`` round three times
numbers of at most twice the largest magnitude A: ``15 u A``.

**After that.** Two roundings for the window (relative, and v is at most 1 where it is not clipped); gamma is
monotone, so its error is looked up at v plus and minus the error, and powf may be 4 ulp off (CUDA's bound;
glibc is better); gain and bias, noise and the mask's weight round each product and sum once. float16 rounds
once, by half of 2**-10.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from kernels.rng import normal, normal_table
from toolkit.loading.table import AugmentTable

U = 2.0**-24
AIR = -1024.0


def crops(count: int, side: int, seed: int = 0) -> tuple[list[NDArray[np.int16]], list[NDArray[np.uint8]]]:
    """Return white noise over all of HU, and masks of every occupancy: nothing is harder to interpolate."""
    rng = np.random.default_rng(seed)
    images = rng.integers(-1024, 3072, (count, side, side, side)).astype(np.int16)
    return [*images], [*rng.integers(0, 256, images.shape).astype(np.uint8)]


def plain(count: int, size: int, side: int, seed: int = 0) -> AugmentTable:
    """Return rows of nothing but a random rotation, scale, shear, flip and shift about the middle."""
    rng = np.random.default_rng(seed)
    linear = np.eye(3) + rng.normal(0, 0.15, (count, 3, 3))
    linear[::2] *= rng.choice([-1, 1], (len(linear[::2]), 1, 3))
    offset = (side - 1) / 2 - linear @ np.full(3, (size - 1) / 2) + rng.uniform(-3, 3, (count, 3))
    zero = np.zeros(count, np.float32)
    return AugmentTable(
        index=np.arange(count),
        matrix=np.ascontiguousarray(np.concatenate([linear, offset[..., None]], axis=2), np.float32),
        low_hu=zero,
        width_hu=zero,
        gamma=zero + 1,
        gain=zero + 1,
        bias=zero,
        noise_sigma=zero,
        noise_key=rng.integers(0, 2**64, count, dtype=np.uint64),
        elastic=None,
        size=size,
    )


def drawn(count: int, seed: int, **ranges: tuple[float, float]) -> dict[str, NDArray[np.float32]]:
    """Return columns of a table, uniform in their ranges."""
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(*span, count).astype(np.float32) for name, span in ranges.items()}


WINDOW = {"low_hu": (-1100.0, -900.0), "width_hu": (300.0, 1500.0)}
OPERATIONS = {
    "warp": {},
    "window": WINDOW,
    "gamma": {**WINDOW, "gamma": (0.6, 1.6)},
    "gain and bias": {"gain": (0.8, 1.2), "bias": (-0.2, 0.2)},
    "noise": {**WINDOW, "noise_sigma": (0.0, 0.1)},
    "all": {
        **WINDOW,
        "gamma": (0.6, 1.6),
        "gain": (0.8, 1.2),
        "bias": (-0.2, 0.2),
        "noise_sigma": (0.0, 0.1),
    },
}


def with_operation(table: AugmentTable, name: str, seed: int = 0) -> AugmentTable:
    """Add an operation's parameters to a table; the last row stays without it."""
    columns = drawn(len(table), seed, **OPERATIONS[name])
    for field, values in columns.items():
        values[-1] = getattr(table, field)[-1]
    return replace(table, **columns)


def exact(
    table: AugmentTable, images: list[NDArray[np.int16]], masks: list[NDArray[np.uint8]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Return value and largest error, (b, d, h, w, c), and where rounding decides, (b, d, h, w)."""
    rows = [_row(table, k, images[k], masks[k] if masks else None) for k in range(len(table))]
    value, error, undecided = (np.stack(part) for part in zip(*rows, strict=True))
    return value, error, undecided


def _row(table: AugmentTable, k: int, image: NDArray[np.int16], mask: NDArray[np.uint8] | None) -> tuple:
    size, matrix = table.size, table.matrix[k].astype(np.float64)
    voxel = np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing="ij"), axis=-1)
    position = voxel @ matrix[:, :3].T + matrix[:, 3]
    shifted = matrix[:, 3] + 0.5 - matrix[:, :3].sum(axis=1) / 2
    reach = (voxel + 0.5) @ np.abs(matrix[:, :3]).T + np.abs(shifted)
    moved = ((6 + voxel[..., 2:]) * U * reach).sum(axis=-1)

    v = sampled(image, position, AIR)
    low, high = min(image.min(), AIR), max(image.max(), AIR)
    error = moved * (high - low) + 15 * U * max(abs(low), abs(high))
    gamma, width = float(table.gamma[k]), float(table.width_hu[k])
    if width:
        v = np.clip((v - float(table.low_hu[k])) / width, 0, 1)
        error = error / width + 2 * U
        above, below = (np.clip(v + error * sign, 0, 1) ** gamma for sign in (1, -1))
        v = v**gamma
        error = np.maximum(above - v, v - below) + 8 * U
    gain, bias = float(table.gain[k]), float(table.bias[k])
    error = error * abs(gain) + 2 * U * (np.abs(v * gain) + abs(bias))
    v = v * gain + bias
    noise = float(table.noise_sigma[k]) * normals(table.noise_key[k], size)
    v, error = v + noise, error + U * (np.abs(v) + 2 * np.abs(noise))
    undecided = np.zeros(v.shape, bool)
    if table.mask_mode == "none":
        return v[..., None], error[..., None], undecided
    weight = sampled(mask, position, 0.0) / 255
    weight_error = moved + 17 * U
    if table.mask_mode == "channel":
        return np.stack([v, weight], -1), np.stack([error, weight_error], -1), undecided
    if table.mask_mode == "hard":
        undecided = np.abs(weight - 0.5) <= weight_error
        weight, weight_error = (weight >= 0.5).astype(float), np.zeros(v.shape)
    error = error * weight + (np.abs(v) + error) * weight_error + U * np.abs(v * weight)
    return (v * weight)[..., None], error[..., None], undecided


def sampled(volume: NDArray, position: NDArray[np.float64], outside: float) -> NDArray[np.float64]:
    """Interpolate trilinearly; each neighbour outside counts as `outside`."""
    at = np.moveaxis(position, -1, 0)
    return map_coordinates(volume.astype(np.float64), at, order=1, mode="grid-constant", cval=outside)


def normals(key: np.uint64, size: int) -> NDArray[np.float64]:
    table = normal_table()
    drawn = [normal(table, key, np.int32(i)) for i in range(size**3)]
    return np.array(drawn, np.float64).reshape((size,) * 3)

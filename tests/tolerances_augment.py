"""How far float32 augmentation may lie from exact mathematics, and why; see also `tests.tolerances`.

``u = 2**-24``. The oracle reads the same float32 table, so nothing is lost at its input.

**Position.** As in `tests.tolerances`: ``4 u (|m| t + |shift|)``. An elastic grid of points up to D adds: the
spline coordinate (scale, product, difference: ``2 u (g - 3) + u``) times the steepest slope 2 D, on three
axes; weights of at most 6 roundings and sums of 4 terms, ``28 u D`` an axis; and a rounding of the sum.

**Interpolation** is continuous, with a slope of at most R along each axis, R the largest difference of two
voxels (of air, too). A lerp adds ``u (2 R + A)`` and its fraction ``u R``, A the largest magnitude; three
levels. ``E = R sum(dp) + 3 u (3 R + A)``.

**Window.** ``E / width`` and two relative roundings; clipping adds nothing, so v counts as at most 2.

**Gamma** carries an interval: the power is monotone, so [v - e, v + e] is mapped by exact powers. Its own
error: log2 is off by at most ``3 u + u |L|`` (exact exponent and s; 5 roundings in a term of 0.11, one of
0.35, two of 0.5 and the last sum), the product with gamma by ``u``, 2^y by ``5.5 u`` relative and ``ln 2``
times the error of y. With ``V |log2 V| <= 0.54`` this is ``u (7.3 + 2.1 gamma)`` in all.

**The rest.** Product and sum with gain and bias; a noise quantile (4.4 at most) is rounded, multiplied and
added; the occupancy is off by ``sum(dp) + 13 u`` (R = A = 255, one division); a product adds the two errors.
"""

import numpy as np
from numpy.typing import NDArray

from kernels import oracle_augment as oracle
from kernels.augment import Table

U = 2.0**-24
AIR = -1024.0
BFLOAT16 = 2.0**-8
LARGEST_NORMAL = 4.4


def augmented(image: NDArray[np.int16], table: Table, k: int) -> tuple[NDArray, NDArray]:
    """Return, each (size, size, size), how far the value and the occupancy of patch `k` may be off."""
    dp = _position(table, k)
    p = oracle.positions(table, k)
    low, high = min(float(image.min()), AIR), max(float(image.max()), AIR)
    error = (high - low) * dp + 3 * U * (3 * (high - low) + max(abs(low), abs(high)))
    value = oracle.sample(image, p, AIR)
    width, gamma = float(table.width_hu[k]), float(table.gamma[k])
    if width:
        value = (value - float(table.low_hu[k])) / width
        error = error / width + 2 * U * np.minimum(np.abs(value), 2)
        value = np.clip(value, 0, 1)
    if gamma != 1:
        lowest, highest = np.maximum(value - error, 0) ** gamma, np.minimum(value + error, 1) ** gamma
        value = value**gamma
        error = np.maximum(highest - value, value - lowest) + U * (7.3 + 2.1 * gamma)
    gain, bias = float(table.gain[k]), float(table.bias[k])
    error = error * abs(gain) + U * np.abs(value * gain)
    value = value * gain + bias
    error = error + U * np.abs(value)
    sigma = float(table.noise_sigma[k])
    if sigma:
        error = error + sigma * LARGEST_NORMAL * 2 * U
        value = np.abs(value) + sigma * LARGEST_NORMAL
        error = error + U * value
    share = dp + 13 * U
    if table.mask_mode in ("soft", "hard"):
        error = error + np.abs(value) * (share + U)
    return error * (1 + 1e-4), share * (1 + 1e-4)  # terms of second order


def undecided(share_before: NDArray, error: NDArray) -> NDArray[np.bool_]:
    """Tell where rounding decides whether the occupancy reaches a half."""
    return np.abs(share_before - 0.5) <= error


def _position(table: Table, k: int) -> NDArray[np.float64]:
    """Return the largest error of a position, summed over the axes, in crop voxels."""
    t = np.stack(np.meshgrid(*[np.arange(table.size)] * 3, indexing="ij")).astype(np.float64)
    matrix = np.abs(table.matrix[k].astype(np.float64))
    each = 4 * U * (np.einsum("ij,jzyx->izyx", matrix[:, :3], t) + matrix[:, 3, None, None, None])
    if table.elastic is not None:
        largest, points = float(np.abs(table.elastic[k]).max()), table.elastic.shape[-1]
        slope = 3 * 2 * largest * (2 * (points - 3) + 1)
        each = each + U * (slope + 84 * largest + np.abs(oracle.positions(table, k)) + largest)
    return each.sum(axis=0)

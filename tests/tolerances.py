"""The one table of tolerances: how far float32 extraction may lie from exact mathematics, and why.

Everything follows from the unit roundoff ``u = 2**-24`` of float32: each operation is exact times
``1 + d`` with ``|d| <= u``. The oracle reads the same float32 matrix, norms and slice positions, so
nothing is lost at its input. Terms of second order (below 1e-4 of the first) are covered by rounding
the counts up. A fused multiply-add rounds once where two operations round twice, so every bound holds
for the GPU's contracted code too, and two back ends differ by at most twice the bound.

**Position.** ``p = ((m0 z + m1 y) + m2 x) + t``: no term passes through more than four roundings
(its product and three sums), so ``|dp| <= 4 u (|m0| z + |m1| y + |m2| x + |t|)``: it grows with the
size of the cube and with the distance of its corner, not with the brick. Comparing with ``last + 0.5``
or with ``p +- width`` rounds once more. Between uneven slices p becomes ``below + (p - s) / gap``,
which divides the error by the gap and adds one rounding each for difference, gap, quotient and sum.

**Weights of one axis.** With T taps inside the tent and W the sum of their raw weights,
``T / W <= 3`` (a voxel hit exactly has two neighbours of weight 0), and a position that moves by dp
changes the normalised weights by at most ``2 dp`` in L1 (linear interpolation is the steepest); both
are scanned in `tests/kernels/test_tolerances.py`. A raw weight suffers at most 6 roundings of numbers
<= 1 (gap, width, its inverse, distance, product, difference). Normalised that is ``2 * 6 T / W <= 36``
in L1, and T + 1 more for the sum, its inverse and the product: ``37 + T``.

**Sum.** Exact weights add up to one before and after a shift, so a shift moves the sum by at most
half its L1 change times the range of the data: ``dp * range``. Rounding in weights and in the T-term
sum (T + 1 roundings) has no such luck and counts times the largest magnitude: ``(38 + 2 T) u * max``.
The three axes add. Rounding to an integer adds a half: one rounding more, then floor.
"""

import numpy as np
from numpy.typing import NDArray

from kernels import Bricks

U = 2.0**-24
TAPS_PER_WEIGHT = 3.0
STEEPEST_L1 = 2.0

EXEMPT_SHARE = 0.02
"""Most voxels of a batch that may be exempt from comparison, because rounding decides their fate."""

RESAMPLED_VOLUME = 0.01
"""Relative error of a nodule's volume at ratios that are not integers (see `ball` in the tests).

Sampling sums the tent over a lattice that is not a partition of unity: each source voxel counts
``1 + 2 sinc(ratio**-1)**2 cos(...)`` times, up to 10 % off, but the phase turns within a few voxels
and a ball eleven voxels across averages it out. Measured: below 0.25 %. No bound is derived.
"""


def _positions(bricks: Bricks, b: int, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return position and its largest error, each (voxels, 3), in nominal voxels."""
    target = np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    matrix = bricks.matrix[b].astype(np.float64)
    position = target @ matrix[:, :3].T + matrix[:, 3]
    return position, 4 * U * (target @ np.abs(matrix[:, :3]).T + np.abs(matrix[:, 3]))


def _last(bricks: Bricks, b: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the outermost position of each axis, and the positions of uneven slices (or none)."""
    last = bricks.shape_zyx[b].astype(np.float64) - 1
    start = int(bricks.position_start[b])
    if start < 0:
        return last, np.zeros(0)
    slices = bricks.positions[start : start + int(bricks.shape_zyx[b, 0])].astype(np.float64)
    last[0] = slices[-1]
    return last, slices


def undecided(bricks: Bricks, b: int, size: int) -> NDArray[np.bool_]:
    """Tell, (voxels,), for which voxels of a brick rounding may decide more than a last digit.

    These lie within the position's error of the brick's border, where the value jumps to air, or of
    an inner slice of an uneven stack at which the tent's width jumps with the gap.
    """
    position, error = _positions(bricks, b, size)
    last, slices = _last(bricks, b)
    error = error + U * (last + 0.5)
    beyond = np.maximum(-0.5 - position, position - last - 0.5)  # > 0 outside
    close = np.any(np.abs(beyond) <= error, axis=1)
    if len(slices) and bricks.norm[b, 0] > np.diff(slices).min():
        knots = np.abs(position[:, :1] - slices[1:-1]) <= error[:, :1]
        close |= knots.any(axis=1)
    return close & ~np.any(beyond > error, axis=1)


def extraction(bricks: Bricks, b: int, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return, (voxels,) each, how far HU and occupancy (0-255) may be off before they are rounded.

    Holds for voxels that are inside and not `undecided`.
    """
    _, error = _positions(bricks, b, size)
    last, slices = _last(bricks, b)
    width = np.maximum(1.0, bricks.norm[b].astype(np.float64))
    if len(slices):
        gap = np.diff(slices).min()
        width[0] = max(1.0, bricks.norm[b, 0] / gap)
        error[:, 0] = error[:, 0] / gap + U * (3 * (1 + 0.5 / gap) + len(slices))
        last[0] = len(slices) - 1
    error += U * (last + 0.5 + width)  # a tap whose weight is all but zero may be missed
    taps = 2 * width + 1
    share = float(np.sum(38 + 2 * taps)) * U
    shift = error.sum(axis=1) * STEEPEST_L1 / 2
    begin, count = int(bricks.offset[b]), int(np.prod(bricks.shape_zyx[b]))
    hu = bricks.hu[begin : begin + count].astype(np.float64)
    top = float(np.abs(hu).max())
    return shift * np.ptp(hu) + share * top + U * (top + 1), 255 * (shift + share + 2 * U)

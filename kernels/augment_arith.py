"""THE definition of augmentation; CPU loops and CUDA kernels both call it.

The rules of `kernels.arith` hold here too: plain ``@njit``, float32 throughout, int32 indices. What a row of
parameters means is written in `kernels.augment`. A power is made of two Taylor series instead of a
library's `powf`, so that its bits are the same wherever products are not contracted.
"""

import math

import numpy as np
from numba import njit

from kernels import arith, rng

ZERO, HALF, ONE, TWO = np.float32(0.0), np.float32(0.5), np.float32(1.0), np.float32(2.0)
SIXTH, TWO_THIRDS = np.float32(1 / 6), np.float32(2 / 3)
FULL = np.float32(255.0)
AIR = np.float32(-1024.0)

NO_MASK, HARD, SOFT, CHANNEL = 0, 1, 2, 3
LEAST_POINTS = 4  # of a cubic spline

# columns of a row of parameters: the matrix in C order, then these
LOW, WIDTH, GAMMA, GAIN, BIAS, SIGMA, COLUMNS = 12, 13, 14, 15, 16, 17, 18

_MANTISSA, _ONE_BITS = np.int32(0x007FFFFF), np.int32(0x3F800000)
_EXPONENT_SHIFT, _EXPONENT_BIAS = np.int32(23), np.int32(127)
_SMALLEST = np.float32(2.0**-126)
_LOWEST_EXPONENT, _ROUND_UP = np.float32(-126.0), np.float32(127.5)
_ROOT_TWO = np.float32(math.sqrt(2))
_ONE_OVER_LN2, _LN2 = np.float32(1 / math.log(2)), np.float32(math.log(2))
# log(1 + s) = s - s^2/2 + s^3 (L0 + L1 s + ...) for s from sqrt(1/2) - 1 to sqrt(2) - 1: a
# least-squares fit at Chebyshev nodes, rounded to float32; it leaves 1.3e-9
_L0, _L1, _L2 = (
    np.float32(0.3333333134651184),
    np.float32(-0.24999989569187164),
    np.float32(0.2000070959329605),
)
_L3, _L4, _L5 = (
    np.float32(-0.1666848063468933),
    np.float32(0.14249871671199799),
    np.float32(-0.12411021441221237),
)
_L6, _L7, _L8 = (
    np.float32(0.1166200265288353),
    np.float32(-0.1157151460647583),
    np.float32(0.07148932665586472),
)
_E2, _E3, _E4, _E5, _E6, _E7 = (np.float32(1 / math.factorial(n)) for n in range(2, 8))

_ROUND_BF16, _SIXTEEN, _LSB = np.uint32(0x7FFF), np.uint32(16), np.uint32(1)


@njit
def clamp(p, count):
    """Hold a position within one voxel of an axis of `count` voxels: beyond that all is air anyway."""
    return min(max(p, -ONE), np.float32(count))


@njit
def lerp(a, b, f):
    """Return a for f = 0 to the last bit."""
    return a + f * (b - a)


@njit
def neighbour(source, z, y, x, outside):
    """Return a voxel as float32, or `outside` where there is none; some voxel is read in any case."""
    cz = min(max(z, np.int32(0)), np.int32(source.shape[0] - 1))
    cy = min(max(y, np.int32(0)), np.int32(source.shape[1] - 1))
    cx = min(max(x, np.int32(0)), np.int32(source.shape[2] - 1))
    value = np.float32(source[cz, cy, cx])
    return value if (cz == z) & (cy == y) & (cx == x) else outside


@njit
def trilinear(source, pz, py, px, outside):
    """Interpolate a volume zyx at a clamped position."""
    z, y, x = np.int32(math.floor(pz)), np.int32(math.floor(py)), np.int32(math.floor(px))
    fz, fy, fx = pz - np.float32(z), py - np.float32(y), px - np.float32(x)
    return trilinear_at(source, (z, y, x), fz, fy, fx, outside)


@njit
def trilinear_at(source, cell, fz, fy, fx, outside):
    """Interpolate between a voxel and the next along each axis: along x, then y, then z."""
    z, y, x = cell
    z1, y1, x1 = np.int32(z + 1), np.int32(y + 1), np.int32(x + 1)
    a = lerp(neighbour(source, z, y, x, outside), neighbour(source, z, y, x1, outside), fx)
    b = lerp(neighbour(source, z, y1, x, outside), neighbour(source, z, y1, x1, outside), fx)
    c = lerp(neighbour(source, z1, y, x, outside), neighbour(source, z1, y, x1, outside), fx)
    d = lerp(neighbour(source, z1, y1, x, outside), neighbour(source, z1, y1, x1, outside), fx)
    return lerp(lerp(a, b, fy), lerp(c, d, fy), fz)


@njit
def spline_cell(t, scale, points):
    """Return the first of the four control points around voxel `t`, and where t lies in their middle cell."""
    u = np.float32(t) * scale
    cell = min(np.int32(math.floor(u)), np.int32(points - 4))
    return cell, u - np.float32(cell)


@njit
def spline_weights(f):
    """Return the weights of the four control points of a uniform cubic B-spline."""
    g = ONE - f
    middle = f * f * (f * HALF - ONE) + TWO_THIRDS
    return g * g * g * SIXTH, middle, g * g * (g * HALF - ONE) + TWO_THIRDS, f * f * f * SIXTH


@njit
def blend(a, b, c, d, w):
    """Return the weighted sum of four numbers."""
    return ((w[0] * a + w[1] * b) + w[2] * c) + w[3] * d


@njit
def spline_column(grid, axis, z, y, x, wz):
    """Sum four control points along z."""
    g = grid[axis]
    return blend(g[z, y, x], g[z + 1, y, x], g[z + 2, y, x], g[z + 3, y, x], wz)


@njit
def spline_line(grid, axis, z, y, x, wz, wy):
    """Sum sixteen control points along z, then y: what one control point along x amounts to."""
    a, b = spline_column(grid, axis, z, y, x, wz), spline_column(grid, axis, z, y + 1, x, wz)
    c, d = spline_column(grid, axis, z, y + 2, x, wz), spline_column(grid, axis, z, y + 3, x, wz)
    return blend(a, b, c, d, wy)


@njit
def displacement(grid, axis, cells, wz, wy, wx):
    """Return the displacement along an axis, in crop voxels."""
    z, y, x = cells
    a, b = spline_line(grid, axis, z, y, x, wz, wy), spline_line(grid, axis, z, y, x + 1, wz, wy)
    c, d = spline_line(grid, axis, z, y, x + 2, wz, wy), spline_line(grid, axis, z, y, x + 3, wz, wy)
    return blend(a, b, c, d, wx)


@njit
def window(hu, low, width):
    """Map the HU window to [0, 1]."""
    return min(max((hu - low) / width, ZERO), ONE)


@njit
def log2(v):
    """Return the binary logarithm of a normal number above zero.

    ``v = m 2^e`` with m from sqrt(1/2) to sqrt(2), and a polynomial in s = m - 1: no division, which would
    have to be tested for zero.
    """
    bits = np.float32(v).view(np.int32)
    e = np.int32((bits >> _EXPONENT_SHIFT) - _EXPONENT_BIAS)
    m = np.int32((bits & _MANTISSA) | _ONE_BITS).view(np.float32)
    large = m > _ROOT_TWO
    m = m * HALF if large else m
    e = np.int32(e + 1) if large else e
    s = m - ONE
    series = _L4 + s * (_L5 + s * (_L6 + s * (_L7 + s * _L8)))
    series = _L0 + s * (_L1 + s * (_L2 + s * (_L3 + s * series)))
    return np.float32(e) + _ONE_OVER_LN2 * (s - s * s * (HALF - s * series))


@njit
def exp2(y):
    """Return 2^y for y <= 0; 0 below 2^-126.

    The series in the remainder, |t| <= ln(2) / 2, ends at t^7 and leaves 6e-9.
    """
    held = max(y, _LOWEST_EXPONENT)
    n = np.int32(np.int32(held + _ROUND_UP) - _EXPONENT_BIAS)  # the nearest, up to rounding: held + 127.5 > 0
    t = (held - np.float32(n)) * _LN2
    series = ONE + t * (ONE + t * (HALF + t * (_E3 + t * (_E4 + t * (_E5 + t * (_E6 + t * _E7))))))
    scale = np.int32((n + _EXPONENT_BIAS) << _EXPONENT_SHIFT).view(np.float32)
    return series * scale * np.float32(y >= _LOWEST_EXPONENT)


@njit
def power(v, gamma):
    """Return v^gamma for v in [0, 1] and gamma > 0; numbers below 2^-126 count as 0."""
    y = min(gamma * log2(max(v, _SMALLEST)), ZERO)
    return exp2(y) * np.float32(v >= _SMALLEST)  # not a branch, which would keep a loop from vectorising


@njit
def bfloat16_bits(v):
    """Round a finite float32 to bfloat16, halves to even; the upper 16 bits of a float32, as uint16."""
    bits = np.float32(v).view(np.uint32)
    odd = np.uint32((bits >> _SIXTEEN) & _LSB)
    return np.uint16(
        np.uint64(np.uint64(bits) + np.uint64(_ROUND_BF16) + np.uint64(odd)) >> np.uint64(_SIXTEEN)
    )


@njit
def share_to_weight(share, mode):
    """Return the weight of a voxel from its sampled mask, 0-255."""
    if mode == HARD:
        return ONE if share >= FULL * HALF else ZERO
    return share / FULL


@njit
def output_index(z, y, x, size, channels, halved):
    """Return where channel 0 of voxel (z, y, x) lies in the output of one sample.

    Plain: (d, h, w, c). Halved (space-to-depth): (d/2, h/2, w/2, 8 c), the eight in order (dz, dy, dx).
    """
    if not halved:
        return np.int64((z * size + y) * size + x) * channels
    half = size // 2
    cell = ((z // 2) * half + y // 2) * half + x // 2
    part = ((z % 2) * 2 + y % 2) * 2 + x % 2
    return (np.int64(cell) * 8 + part) * channels


@njit
def augment_voxel(image, mask, row, key, elastic, spline_scale, mode, normals, size, z, y, x):
    """Return the value and the occupancy of voxel (z, y, x) of a patch.

    image, mask
        int16 and uint8 (nz, ny, nx); the mask is not read where `mode` is `NO_MASK`.
    row
        float32 (18,), see `COLUMNS`.
    elastic
        float32 (3, g, g, g), or g = 1 for none; `spline_scale` is ``(g - 3) / (size - 1)``.
    """
    pz = arith.position(row[0], row[1], row[2], row[3], z, y, x)
    py = arith.position(row[4], row[5], row[6], row[7], z, y, x)
    px = arith.position(row[8], row[9], row[10], row[11], z, y, x)
    points = np.int32(elastic.shape[1])
    if points >= LEAST_POINTS:
        cz, fz = spline_cell(z, spline_scale, points)
        cy, fy = spline_cell(y, spline_scale, points)
        cx, fx = spline_cell(x, spline_scale, points)
        wz, wy, wx = spline_weights(fz), spline_weights(fy), spline_weights(fx)
        pz += displacement(elastic, 0, (cz, cy, cx), wz, wy, wx)
        py += displacement(elastic, 1, (cz, cy, cx), wz, wy, wx)
        px += displacement(elastic, 2, (cz, cy, cx), wz, wy, wx)
    pz, py, px = clamp(pz, image.shape[0]), clamp(py, image.shape[1]), clamp(px, image.shape[2])
    weight = ONE
    if mode != NO_MASK:
        weight = share_to_weight(trilinear(mask, pz, py, px, ZERO), mode)
        if mode != CHANNEL and weight == ZERO:
            return ZERO, ZERO
    v = trilinear(image, pz, py, px, AIR)
    if row[WIDTH] > ZERO:
        v = window(v, row[LOW], row[WIDTH])
        if row[GAMMA] != ONE:
            v = power(v, row[GAMMA])
    v = v * row[GAIN] + row[BIAS]
    if row[SIGMA] > ZERO:
        v += row[SIGMA] * rng.normal(normals, key, np.int32((z * size + y) * size + x))
    if mode in (HARD, SOFT):
        v *= weight
    return v, weight


@njit
def tent(offset, half_width):
    """Return the weight of a voxel `offset` voxels away, before normalisation."""
    return max(ZERO, ONE - abs(np.float32(offset)) / half_width)


@njit
def tent_total(reach, half_width):
    """Return the sum of the weights of a tent centred on a voxel."""
    total = ZERO
    for k in range(-reach, reach + 1):
        total += tent(np.int32(k), half_width)
    return total


@njit
def spread_voxel(mask, z, y, x, reach, half_width, total):
    """Return a mask, 0-255, spread by a tent at one of its voxels, halves upwards.

    The sum runs over z innermost, then y, then x, as in `arith`; what lies outside is no nodule.
    """
    value = ZERO
    for i in range(max(x - reach, 0), min(x + reach + 1, mask.shape[2])):
        line = ZERO
        for j in range(max(y - reach, 0), min(y + reach + 1, mask.shape[1])):
            column = ZERO
            for k in range(max(z - reach, 0), min(z + reach + 1, mask.shape[0])):
                column += tent(np.int32(k - z), half_width) / total * np.float32(mask[k, j, i])
            line += tent(np.int32(j - y), half_width) / total * column
        value += tent(np.int32(i - x), half_width) / total * line
    return np.uint8(math.floor(min(value, FULL) + HALF))

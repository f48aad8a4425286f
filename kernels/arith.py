"""THE definition of extraction; CPU loops and CUDA kernels both call it.

Rules of this file: plain ``@njit`` without options (they would leak into device code), float32
throughout (constants are ``np.float32``), integer indices made int32 where they leave a float.

A target voxel at index t lies at ``p = matrix[:, :3] @ t + matrix[:, 3]`` in the brick, zyx. Along
each brick axis the filter is a tent of half-width ``max(1, norm of that matrix row)``: plain linear
interpolation where the target is finer than the source, an anti-aliasing filter where it is coarser,
continuous between, and no blur from a rotation alone. Weights are renormalised over the voxels that
exist, so values near the edge are not darkened. A target voxel whose centre lies outside the brick
(more than half a voxel beyond its outermost centres) is air, -1024 HU, and no nodule. Between uneven
slices the position and the row's norm are divided by the local gap, and a position beyond the outermost
slice is held within half a slice of it.

The sum runs over z innermost, then y, then x: a separable implementation that does z, y, x passes
adds the same numbers in the same order and is equal to the last bit.
"""

import math

import numpy as np
from numba import njit

from kernels.bricks import MAX_HALF_WIDTH

ZERO = np.float32(0.0)
HALF = np.float32(0.5)
ONE = np.float32(1.0)
FULL = np.float32(255.0)
AIR = np.int16(-1024)

MAX_TAPS = 2 * MAX_HALF_WIDTH + 1  # `pack` refuses what would need more


@njit
def position(mz, my, mx, shift, z, y, x):
    """Return where target voxel (z, y, x) lies along one brick axis, in nominal voxels.

    The four numbers are that axis' row of the matrix.
    """
    return (mz * np.float32(z) + my * np.float32(y) + mx * np.float32(x)) + shift


@njit
def is_outside(p, last):
    """Tell whether a position lies more than half a voxel beyond an axis that runs from 0 to `last`."""
    return p < -HALF or p > last + HALF


@njit
def half_width(row_norm, gap):
    """Return the tent's half-width in voxels, where neighbouring voxels lie `gap` steps apart."""
    return max(ONE, row_norm / gap)


@njit
def slice_below(positions, start, count, p):
    """Return the last slice k with ``positions[k] <= p``, kept within [0, count - 2]."""
    low, high = np.int32(0), np.int32(count - 1)
    while high - low > 1:
        middle = np.int32((low + high) // 2)
        if positions[start + middle] <= p:
            low = middle
        else:
            high = middle
    return low


@njit
def slice_position(positions, start, count, p):
    """Return a nominal position in slices, and the gap in nominal voxels between its neighbours."""
    below = slice_below(positions, start, count, p)
    gap = positions[start + below + 1] - positions[start + below]
    p = np.float32(below) + (p - positions[start + below]) / gap
    # where slices lie close, half a nominal voxel beyond the end is out of the tent's reach
    return min(max(p, -HALF), np.float32(count - 1) + HALF), gap


@njit
def first_tap(p, width):
    """Return the first voxel that a tent around `p` can reach."""
    return max(np.int32(math.ceil(p - width)), np.int32(0))


@njit
def last_tap(p, width, count):
    """Return the last voxel that a tent around `p` can reach."""
    return min(np.int32(math.floor(p + width)), np.int32(count - 1))


@njit
def tent(tap, p, inverse_width):
    """Return the weight of a voxel, before normalisation."""
    return max(ZERO, ONE - abs(np.float32(tap) - p) * inverse_width)


@njit
def fill_weights(weights, axis, p, width, first, last):
    """Write the weights of taps first..last, which add up to one, into ``weights[axis]``."""
    inverse_width = ONE / width
    total = ZERO
    tap = first
    while tap <= last:
        weight = tent(tap, p, inverse_width)
        weights[axis, tap - first] = weight
        total += weight
        tap = np.int32(tap + 1)
    scale = ONE / total
    tap = first
    while tap <= last:
        weights[axis, tap - first] *= scale
        tap = np.int32(tap + 1)


@njit
def hu_from_sum(value):
    """Round a weighted sum to int16 HU, halves upwards."""
    return np.int16(math.floor(value + HALF))


@njit
def occupancy_from_sum(value):
    """Round a mask share in [0, 1] to uint8 0-255, halves upwards."""
    return np.uint8(math.floor(value * FULL + HALF))


@njit
def extract_voxels(
    hu,
    mask,
    offset,
    shape,
    matrix,
    norm,
    positions,
    position_start,
    has_mask,
    b,
    begin,
    step,
    weights,
    image,
    occupancy,
):
    """Fill target voxels begin, begin + step, ... (C order) of brick `b`.

    The CPU calls it once for a brick with step 1, each CUDA thread with its own `begin`: a loop
    inside is what keeps a call per voxel, which costs more than the voxel, off the CPU.

    The first nine arrays are the table of `kernels.Bricks`; `weights` is float32 (3, MAX_TAPS) of
    scratch; `image` int16 and `occupancy` uint8 are (size, size, size).
    """
    size = np.int32(image.shape[0])
    nz, ny, nx = shape[b, 0], shape[b, 1], shape[b, 2]
    start = position_start[b]
    end = np.float32(nz - 1) if start < 0 else positions[start + nz - 1]
    voxel = begin
    while voxel < size * size * size:
        z, y, x = np.int32(voxel // (size * size)), np.int32((voxel // size) % size), np.int32(voxel % size)
        voxel = np.int32(voxel + step)
        pz = position(matrix[b, 0, 0], matrix[b, 0, 1], matrix[b, 0, 2], matrix[b, 0, 3], z, y, x)
        py = position(matrix[b, 1, 0], matrix[b, 1, 1], matrix[b, 1, 2], matrix[b, 1, 3], z, y, x)
        px = position(matrix[b, 2, 0], matrix[b, 2, 1], matrix[b, 2, 2], matrix[b, 2, 3], z, y, x)
        if is_outside(pz, end) or is_outside(py, np.float32(ny - 1)) or is_outside(px, np.float32(nx - 1)):
            image[z, y, x] = AIR
            occupancy[z, y, x] = np.uint8(0)
            continue
        gap = ONE
        if start >= 0:
            pz, gap = slice_position(positions, start, nz, pz)
        wz, wy, wx = half_width(norm[b, 0], gap), half_width(norm[b, 1], ONE), half_width(norm[b, 2], ONE)
        z0, z1 = first_tap(pz, wz), last_tap(pz, wz, nz)
        y0, y1 = first_tap(py, wy), last_tap(py, wy, ny)
        x0, x1 = first_tap(px, wx), last_tap(px, wx, nx)
        fill_weights(weights, 0, pz, wz, z0, z1)
        fill_weights(weights, 1, py, wy, y0, y1)
        fill_weights(weights, 2, px, wx, x0, x1)
        value, share = sample(hu, mask, offset[b], ny, nx, has_mask[b], weights, z0, z1, y0, y1, x0, x1)
        image[z, y, x] = hu_from_sum(value)
        occupancy[z, y, x] = occupancy_from_sum(share)


@njit
def sample(hu, mask, offset, ny, nx, has_mask, weights, z0, z1, y0, y1, x0, x1):
    """Return the weighted sums (HU, share of nodule) over taps z0..z1, y0..y1, x0..x1 of a flat brick."""
    value, share = ZERO, ZERO
    x = x0
    while x <= x1:
        value_y, share_y = ZERO, ZERO
        y = y0
        while y <= y1:
            value_z, share_z = ZERO, ZERO
            z = z0
            while z <= z1:
                at = offset + (np.int64(z) * ny + y) * nx + x
                weight = weights[0, z - z0]
                value_z += weight * np.float32(hu[at])
                if has_mask:
                    share_z += weight * np.float32(mask[at])
                z = np.int32(z + 1)
            weight = weights[1, y - y0]
            value_y += weight * value_z
            share_y += weight * share_z
            y = np.int32(y + 1)
        weight = weights[2, x - x0]
        value += weight * value_y
        share += weight * share_y
        x = np.int32(x + 1)
    return value, share

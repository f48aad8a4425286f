"""CPU back end for any affine: what `arith.extract_voxels` does, a target row at a time.

Positions, weights and partial sums of a row lie in buffers, so that every loop runs along the row
and vectorises; a voxel with fewer taps than its neighbours adds zeros. The numbers of a voxel are
added in the order of the definition, so the result is equal to it to the last bit.
"""

import numpy as np
from numba import njit

from kernels import arith
from kernels.signatures import EXTRACT_BRICK


@njit(error_model="numpy")
def _row_positions(matrix, b, z, y, last_yx, positions, start, nz, p, gap, inside):
    """Write positions (3, size) of a row, gaps between slices, and which voxels are inside."""
    end = np.float32(nz - 1) if start < 0 else positions[start + nz - 1]
    for x in range(inside.shape[0]):
        pz = arith.position(matrix, b, 0, z, y, x)
        py = arith.position(matrix, b, 1, z, y, x)
        px = arith.position(matrix, b, 2, z, y, x)
        inside[x] = not (
            arith.is_outside(pz, end)
            or arith.is_outside(py, last_yx[0])
            or arith.is_outside(px, last_yx[1])
        )
        p[0, x] = pz if inside[x] else arith.ZERO  # any voxel that exists: its result is replaced
        p[1, x] = py if inside[x] else arith.ZERO
        p[2, x] = px if inside[x] else arith.ZERO
        gap[x] = arith.ONE
    if start >= 0:
        for x in range(inside.shape[0]):
            p[0, x], gap[x] = arith.slice_position(positions, start, nz, p[0, x])


@njit(error_model="numpy")
def _row_weights(p, width, count, stride, first, number, total, weights, offsets):
    """Write weights and flat offsets (taps, size) of one axis; return how many taps there are."""
    size = p.shape[0]
    taps = 0
    for x in range(size):
        first[x] = arith.first_tap(p[x], width[x])
        number[x] = arith.last_tap(p[x], width[x], count) - first[x] + 1
        taps = max(taps, number[x])
        total[x] = arith.ZERO
    for t in range(taps):
        for x in range(size):
            weight = arith.tent(first[x] + t, p[x], arith.ONE / width[x])
            weight = weight if t < number[x] else arith.ZERO
            weights[t, x] = weight
            total[x] += weight
            offsets[t, x] = min(first[x] + t, count - 1) * stride
    for x in range(size):
        total[x] = arith.ONE / total[x]
    for t in range(taps):
        for x in range(size):
            weights[t, x] *= total[x]
    return taps


@njit
def _row_sum(source, taps, weights, offsets, line, column, value):
    """Write the weighted sums of a row: z innermost, then y, then x."""
    value[:] = 0
    for tx in range(taps[2]):
        column[:] = 0
        for ty in range(taps[1]):
            line[:] = 0
            for tz in range(taps[0]):
                for x in range(value.shape[0]):
                    at = offsets[0, tz, x] + offsets[1, ty, x] + offsets[2, tx, x]
                    line[x] += weights[0, tz, x] * np.float32(source[at])
            for x in range(value.shape[0]):
                column[x] += weights[1, ty, x] * line[x]
        for x in range(value.shape[0]):
            value[x] += weights[2, tx, x] * column[x]


@njit
def _mask_bounds(mask_zyx, low, high):
    """Write the first and the last marked voxel along each axis; low > high where there is none."""
    low[:], high[:] = 1 << 30, -1
    for z in range(mask_zyx.shape[0]):
        for y in range(mask_zyx.shape[1]):
            for x in range(mask_zyx.shape[2]):
                if mask_zyx[z, y, x]:
                    low[0], high[0] = min(low[0], z), max(high[0], z)
                    low[1], high[1] = min(low[1], y), max(high[1], y)
                    low[2], high[2] = min(low[2], x), max(high[2], x)


@njit
def _row_meets(p, width, low, high):
    """Tell whether any voxel of a row can reach a marked voxel."""
    for x in range(p.shape[1]):
        meets = True
        for axis in range(3):
            meets &= p[axis, x] + width[axis, x] >= low[axis] and p[axis, x] - width[axis, x] <= high[axis]
        if meets:
            return True
    return False


@njit(EXTRACT_BRICK, nogil=True, cache=True)
def extract_rows(
    hu, mask, offset, shape, matrix, norm, positions, position_start, has_mask, b, image, occupancy
):
    """Fill ``image`` and ``occupancy`` (size, size, size) of brick `b`, row by row."""
    size = image.shape[0]
    nz, ny, nx = shape[b, 0], shape[b, 1], shape[b, 2]
    counts, strides = (nz, ny, nx), (ny * nx, nx, 1)
    begin, stop = offset[b], offset[b] + np.int64(nz) * ny * nx
    hu_b, mask_b = hu[begin:stop], mask[begin:stop]
    last_yx = (np.float32(ny - 1), np.float32(nx - 1))
    p, width = np.empty((3, size), np.float32), np.empty((3, size), np.float32)
    weights = np.empty((3, arith.MAX_TAPS, size), np.float32)
    offsets = np.empty((3, arith.MAX_TAPS, size), np.int64)
    first, number = np.empty(size, np.int64), np.empty(size, np.int64)
    gap, total, line = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.float32)
    column, value = np.empty(size, np.float32), np.empty(size, np.float32)
    inside, taps = np.empty(size, np.bool_), np.empty(3, np.int64)
    low, high = np.empty(3, np.int64), np.empty(3, np.int64)
    if has_mask[b]:
        _mask_bounds(mask_b.reshape((nz, ny, nx)), low, high)
    for z in range(size):
        for y in range(size):
            _row_positions(matrix, b, z, y, last_yx, positions, position_start[b], nz, p, gap, inside)
            for x in range(size):
                width[0, x] = arith.half_width(norm[b, 0], gap[x])
                width[1, x] = arith.half_width(norm[b, 1], arith.ONE)
                width[2, x] = arith.half_width(norm[b, 2], arith.ONE)
            for axis in range(3):
                taps[axis] = _row_weights(
                    p[axis],
                    width[axis],
                    counts[axis],
                    strides[axis],
                    first,
                    number,
                    total,
                    weights[axis],
                    offsets[axis],
                )
            _row_sum(hu_b, taps, weights, offsets, line, column, value)
            for x in range(size):
                image[z, y, x] = arith.hu_from_sum(value[x]) if inside[x] else arith.AIR
            if not has_mask[b] or not _row_meets(p, width, low, high):
                occupancy[z, y, :] = 0
                continue
            _row_sum(mask_b, taps, weights, offsets, line, column, value)
            for x in range(size):
                occupancy[z, y, x] = arith.occupancy_from_sum(value[x]) if inside[x] else np.uint8(0)

"""CPU back end for any affine: what `arith.extract_voxels` does, a target row at a time.

Positions, weights and partial sums of a row lie in buffers, so that every loop runs along the row
and vectorises; a voxel with fewer taps than its neighbours adds zeros. The numbers of a voxel are
added in the order of the definition, so the result is equal to it to the last bit. Where
the target is finer than the source, voxels are loaded in pairs along x; what lies behind a row's last voxel
weighs nothing.
"""

import numpy as np
from numba import njit

from kernels import arith
from kernels.memory_cpu import lower, pair, upper
from kernels.signatures import EXTRACT_BRICK


@njit
def _row_positions(matrix, b, z, y, last, p, inside):
    """Write positions (3, size) of a row, and which of its voxels are inside."""
    inside[:] = True
    for axis in range(3):
        row = p[axis]
        mz, my, mx, shift = matrix[b, axis, 0], matrix[b, axis, 1], matrix[b, axis, 2], matrix[b, axis, 3]
        end = last[axis]
        for x in range(row.shape[0]):
            row[x] = arith.position(mz, my, mx, shift, z, y, x)
            inside[x] &= not arith.is_outside(row[x], end)
    for axis in range(3):
        row = p[axis]
        for x in range(row.shape[0]):  # outside any voxel that exists will do: its result is replaced
            row[x] = row[x] if inside[x] else arith.ZERO


@njit
def _row_slices(positions, start, nz, norm_z, p, width):
    """Turn positions in an uneven stack into slices, and write the tents' widths there."""
    for x in range(p.shape[0]):
        p[x], gap = arith.slice_position(positions, start, nz, p[x])
        width[x] = arith.half_width(norm_z, gap)


@njit(error_model="numpy")
def _row_weights(p, width, count, stride, first, number, total, weights, offsets):
    """Write weights and flat offsets (taps, size) of one axis; return how many taps there are."""
    size, last = p.shape[0], np.int32(count - 1)
    for x in range(size):
        first[x] = arith.first_tap(p[x], width[x])
        number[x] = np.int32(arith.last_tap(p[x], width[x], count) - first[x] + 1)
        total[x] = arith.ZERO
    taps = np.int32(0)
    for x in range(size):
        taps = max(taps, number[x])
    for t in range(taps):
        row, offset = weights[t], offsets[t]
        for x in range(size):
            tap = np.int32(first[x] + np.int32(t))
            weight = arith.tent(tap, p[x], arith.ONE / width[x])
            row[x] = weight if t < number[x] else arith.ZERO
            total[x] += row[x]
            offset[x] = np.int32(min(tap, last) * stride)
    for t in range(taps):
        row = weights[t]
        for x in range(size):
            row[x] *= arith.ONE / total[x]
    return taps


@njit(error_model="numpy")
def _row_two_weights(p, count, stride, weights, offsets):
    """Do what `_row_weights` does for tents of half-width 1, where any third tap weighs nothing."""
    last = np.int32(count - 1)
    near, far, near_at, far_at = weights[0], weights[1], offsets[0], offsets[1]
    for x in range(p.shape[0]):
        first = arith.first_tap(p[x], arith.ONE)
        second = np.int32(first + 1)
        a = arith.tent(first, p[x], arith.ONE)
        b = arith.tent(second, p[x], arith.ONE) if second <= last else arith.ZERO
        scale = arith.ONE / (a + b)
        near[x], far[x] = a * scale, b * scale
        near_at[x], far_at[x] = np.int32(first * stride), np.int32(min(second, last) * stride)


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
def _load_pairs(source, z_offsets, y_offsets, x_offsets, pairs):
    """Load a voxel and the next along x for each voxel of a row."""
    for x in range(pairs.shape[0]):
        pairs[x] = pair(source, np.int64(z_offsets[x] + y_offsets[x] + x_offsets[x]))


@njit
def _row_eight(source, weights, offsets, pairs, value):
    """Do what `_row_sum` does for two taps along each axis."""
    for ty in range(2):
        for tz in range(2):
            _load_pairs(source, offsets[0, tz], offsets[1, ty], offsets[2, 0], pairs[2 * ty + tz])
    a, b, c, d = pairs[0], pairs[1], pairs[2], pairs[3]
    z0, z1, y0, y1 = weights[0, 0], weights[0, 1], weights[1, 0], weights[1, 1]
    x0, x1 = weights[2, 0], weights[2, 1]
    for x in range(value.shape[0]):
        near = y0[x] * (z0[x] * lower(a[x]) + z1[x] * lower(b[x]))
        near += y1[x] * (z0[x] * lower(c[x]) + z1[x] * lower(d[x]))
        far = y0[x] * (z0[x] * upper(a[x]) + z1[x] * upper(b[x]))
        far += y1[x] * (z0[x] * upper(c[x]) + z1[x] * upper(d[x]))
        value[x] = x0[x] * near + x1[x] * far


@njit
def _row_end(offsets):
    """Return the last voxel that a row of two taps reads."""
    z, y, x = offsets[0, 1], offsets[1, 1], offsets[2, 1]
    end = np.int32(0)
    for i in range(x.shape[0]):
        end = max(end, np.int32(z[i] + y[i] + x[i]))
    return end


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
    nz, ny, nx = np.int64(shape[b, 0]), np.int64(shape[b, 1]), np.int64(shape[b, 2])
    counts, strides = (nz, ny, nx), (ny * nx, nx, np.int64(1))
    begin, stop = offset[b], offset[b] + nz * ny * nx
    hu_b, mask_b = hu[begin:], mask[begin:stop]
    end, behind = stop - begin - 1, stop < hu.shape[0]  # whether the last voxel has one to load with it
    last = np.array([nz - 1, ny - 1, nx - 1], np.float32)
    start = position_start[b]
    if start >= 0:
        last[0] = positions[start + nz - 1]
    p, width = np.empty((3, size), np.float32), np.empty((3, size), np.float32)
    for axis in range(3):
        width[axis] = arith.half_width(norm[b, axis], arith.ONE)
    weights = np.empty((3, arith.MAX_TAPS, size), np.float32)
    offsets = np.empty((3, arith.MAX_TAPS, size), np.int32)
    first, number = np.empty(size, np.int32), np.empty(size, np.int32)
    total, line = np.empty(size, np.float32), np.empty(size, np.float32)
    column, value = np.empty(size, np.float32), np.empty(size, np.float32)
    pairs = np.empty((4, size), np.int32)
    inside, taps = np.empty(size, np.bool_), np.empty(3, np.int64)
    low, high = np.empty(3, np.int64), np.empty(3, np.int64)
    if has_mask[b]:
        _mask_bounds(mask_b.reshape((nz, ny, nx)), low, high)
    fine = start < 0 and width.max() == arith.ONE  # width (3, size) says so of every row
    taps[:] = 2
    for z in range(size):
        for y in range(size):
            _row_positions(matrix, b, z, y, last, p, inside)
            if start >= 0:
                _row_slices(positions, start, nz, norm[b, 0], p[0], width[0])
            for axis in range(3):
                if fine:
                    _row_two_weights(p[axis], counts[axis], strides[axis], weights[axis], offsets[axis])
                else:
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
            if fine and (behind or _row_end(offsets) < end):
                _row_eight(hu_b, weights, offsets, pairs, value)
            else:
                _row_sum(hu_b, taps, weights, offsets, line, column, value)
            for x in range(size):
                image[z, y, x] = arith.hu_from_sum(value[x]) if inside[x] else arith.AIR
            if not has_mask[b] or not _row_meets(p, width, low, high):
                occupancy[z, y, :] = 0
                continue
            _row_sum(mask_b, taps, weights, offsets, line, column, value)
            for x in range(size):
                occupancy[z, y, x] = arith.occupancy_from_sum(value[x]) if inside[x] else np.uint8(0)

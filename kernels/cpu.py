"""CPU back end: serial kernels that hold no GIL, one brick a call.

`extract_direct` is the definition, voxel by voxel. `extract_aligned` is the fast path for a matrix without
off-diagonal entries (an axial scan): weights depend on one axis each, so the sum is done in a z, a y
and an x pass. It adds the same float32 numbers in the same order and is equal to the last bit.
"""

import numpy as np
from numba import int64, njit

from kernels import arith
from kernels.signatures import EXTRACT_BRICK


@njit(EXTRACT_BRICK, nogil=True, cache=True)
def extract_direct(
    hu, mask, offset, shape, matrix, norm, positions, position_start, has_mask, b, image, occupancy
):
    """Fill ``image`` and ``occupancy`` (size, size, size) of brick `b`, voxel by voxel."""
    weights = np.empty((3, arith.MAX_TAPS), np.float32)
    arith.extract_voxels(
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
        np.int32(0),
        np.int32(1),
        weights,
        image,
        occupancy,
    )


@njit
def _axis_weights(matrix, norm, b, axis, count, size):
    """Return first tap (-1 outside), tap count and weights (taps, size) of one axis."""
    width = arith.half_width(norm[b, axis], arith.ONE)
    first, number = np.full(size, -1, np.int64), np.zeros(size, np.int64)
    weights = np.zeros((arith.MAX_TAPS, size), np.float32)
    scratch = np.empty((1, arith.MAX_TAPS), np.float32)
    for i in range(size):
        p = matrix[b, axis, axis] * np.float32(i) + matrix[b, axis, 3]
        if arith.is_outside(p, np.float32(count - 1)):
            continue
        a, z = arith.first_tap(p, width), arith.last_tap(p, width, count)
        arith.fill_weights(scratch, 0, p, width, a, z)
        first[i], number[i] = a, z - a + 1
        for tap in range(number[i]):
            weights[tap, i] = scratch[0, tap]
    return first, number, weights


@njit
def _plane(source, first, number, weights, i, plane):
    """Write the weighted sum of slices first[i].. into ``plane`` (ny, nx)."""
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            plane[y, x] = 0
    for tap in range(number[i]):
        weight = weights[tap, i]
        for y in range(plane.shape[0]):
            row = source[first[i] + tap, y]
            out = plane[y]
            for x in range(plane.shape[1]):
                out[x] += weight * np.float32(row[x])


@njit
def _row(plane, first, number, weights, i, row):
    """Write the weighted sum of rows first[i].. of ``plane`` into ``row`` (nx,)."""
    row[:] = 0
    for tap in range(number[i]):
        weight = weights[tap, i]
        source = plane[first[i] + tap]
        for x in range(row.shape[0]):
            row[x] += weight * source[x]


@njit
def _columns(row, first, number, weights, taps, out):
    """Write the weighted sums of the columns of ``row`` into ``out`` (size,)."""
    out[:] = 0
    for tap in range(taps):
        for x in range(out.shape[0]):
            if tap < number[x]:
                out[x] += weights[tap, x] * row[first[x] + tap]


@njit(EXTRACT_BRICK, nogil=True, cache=True)
def extract_aligned(
    hu, mask, offset, shape, matrix, norm, positions, position_start, has_mask, b, image, occupancy
):
    """Do what `extract_direct` does for an even brick whose matrix has no off-diagonal entry."""
    size = image.shape[0]
    nz, ny, nx = int64(shape[b, 0]), int64(shape[b, 1]), int64(shape[b, 2])
    begin = offset[b]
    hu_zyx = hu[begin : begin + nz * ny * nx].reshape((nz, ny, nx))
    mask_zyx = mask[begin : begin + nz * ny * nx].reshape((nz, ny, nx))
    z_first, z_number, z_weights = _axis_weights(matrix, norm, b, 0, nz, size)
    y_first, y_number, y_weights = _axis_weights(matrix, norm, b, 1, ny, size)
    x_first, x_number, x_weights = _axis_weights(matrix, norm, b, 2, nx, size)
    taps = x_number.max()
    plane, row, out = np.empty((ny, nx), np.float32), np.empty(nx, np.float32), np.empty(size, np.float32)
    for z in range(size):
        if z_first[z] >= 0:
            _plane(hu_zyx, z_first, z_number, z_weights, z, plane)
        for y in range(size):
            if z_first[z] < 0 or y_first[y] < 0:
                for x in range(size):
                    image[z, y, x] = arith.AIR
                continue
            _row(plane, y_first, y_number, y_weights, y, row)
            _columns(row, x_first, x_number, x_weights, taps, out)
            for x in range(size):
                image[z, y, x] = arith.hu_from_sum(out[x]) if x_first[x] >= 0 else arith.AIR
    occupancy[:] = 0
    if not has_mask[b]:
        return
    marked = np.zeros((nz, ny), np.bool_)
    for z in range(nz):
        for y in range(ny):
            seen = False
            for x in range(nx):
                seen |= mask_zyx[z, y, x] != 0
            marked[z, y] = seen
    for z in range(size):
        if z_first[z] < 0 or not marked[z_first[z] : z_first[z] + z_number[z]].any():
            continue
        _plane(mask_zyx, z_first, z_number, z_weights, z, plane)
        for y in range(size):
            if y_first[y] < 0 or not plane[y_first[y] : y_first[y] + y_number[y]].any():
                continue
            _row(plane, y_first, y_number, y_weights, y, row)
            _columns(row, x_first, x_number, x_weights, taps, out)
            for x in range(size):
                if x_first[x] >= 0:
                    occupancy[z, y, x] = arith.occupancy_from_sum(out[x])

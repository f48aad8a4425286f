"""Where the voxels of a patch row lie in their crop, for the CPU kernels: buffers that lie along the row."""

import numpy as np
from numba import njit

from kernels import augment_arith as arith
from kernels.arith import position


@njit
def row_positions(row, z, y, fraction):
    """Write positions (3, size) of a patch row."""
    positions(row[0], row[1], row[2], row[3], z, y, fraction[0])
    positions(row[4], row[5], row[6], row[7], z, y, fraction[1])
    positions(row[8], row[9], row[10], row[11], z, y, fraction[2])


@njit
def positions(mz, my, mx, shift, z, y, p):
    """Write the positions of a row along one axis of the crop."""
    for x in range(p.shape[0]):
        p[x] = position(mz, my, mx, shift, z, y, x)


@njit
def add_displacement(elastic, spline_scale, z, y, columns, line, p):
    """Add the elastic grid to positions (3, size); `columns` are the weights along x of its splines."""
    points = np.int32(elastic.shape[1])
    first, w0, w1, w2, w3 = columns
    cz, fz = arith.spline_cell(np.int32(z), spline_scale, points)
    cy, fy = arith.spline_cell(np.int32(y), spline_scale, points)
    wz, wy = arith.spline_weights(fz), arith.spline_weights(fy)
    for axis in range(3):
        for k in range(points):
            line[k] = arith.spline_line(elastic, axis, cz, cy, k, wz, wy)
        for k in range(points - 3):  # the voxels of a cell have their four control points in common
            a, b, c, d = line[k], line[k + 1], line[k + 2], line[k + 3]
            begin, end = first[k], first[k + 1]
            out, v0, v1, v2, v3 = (
                p[axis, begin:end],
                w0[begin:end],
                w1[begin:end],
                w2[begin:end],
                w3[begin:end],
            )
            for x in range(out.shape[0]):
                out[x] += arith.blend(a, b, c, d, (v0[x], v1[x], v2[x], v3[x]))


@njit
def split(p, count, cell):
    """Turn positions along one axis into whole ones, in ``cell``, and fractions, in place."""
    for x in range(p.shape[0]):
        held = arith.clamp(p[x], count)
        below = np.floor(held)
        cell[x] = np.int32(below)
        p[x] = held - below


@njit
def spline_columns(size, points, spline_scale):
    """Return the first voxel of each cell (and the end), and four weights for each voxel, along x."""
    first = np.full(max(points - 2, 1), size, np.int64)
    w0, w1 = np.empty(size, np.float32), np.empty(size, np.float32)
    w2, w3 = np.empty(size, np.float32), np.empty(size, np.float32)
    if points < arith.LEAST_POINTS:
        return first, w0, w1, w2, w3
    for x in range(size - 1, -1, -1):
        cell, f = arith.spline_cell(np.int32(x), spline_scale, np.int32(points))
        first[: cell + 1] = x
        w0[x], w1[x], w2[x], w3[x] = arith.spline_weights(f)
    return first, w0, w1, w2, w3


@njit
def ends_are_inner(cell, shape):
    """Tell whether the first and the last voxel of a row have eight neighbours that exist."""
    outside = False
    for axis in range(3):
        first, end, last = cell[axis, 0], cell[axis, cell.shape[1] - 1], shape[axis] - 2
        outside |= (first < 0) | (first > last) | (end < 0) | (end > last)
    return not outside


@njit
def all_are_inner(cell, shape):
    """Tell whether all voxels of a row have eight neighbours that exist."""
    cz, cy, cx = cell[0], cell[1], cell[2]
    outside = False
    for x in range(cz.shape[0]):  # to the end, whatever is found: a loop with an exit is not vectorised
        outside |= (cz[x] < 0) | (cz[x] > shape[0] - 2)
        outside |= (cy[x] < 0) | (cy[x] > shape[1] - 2)
        outside |= (cx[x] < 0) | (cx[x] > shape[2] - 2)
    return not outside


@njit
def inner_run(cell, shape, straight):
    """Return a run of voxels [begin, end) of a row whose eight neighbours all exist.

    Along a straight row positions rise or fall, whatever the rounding: its two ends say it for all.
    """
    size = cell.shape[1]
    if ends_are_inner(cell, shape) if straight else all_are_inner(cell, shape):
        return 0, size
    begin, end = size, size
    for x in range(size):
        inside = True
        for axis in range(3):
            inside &= 0 <= cell[axis, x] <= shape[axis] - 2
        if inside and begin == size:
            begin = x
        elif not inside and begin < size:
            end = x
            break
    return begin, end


@njit
def row_meets(cell, box):
    """Tell whether any voxel of a row has a neighbour in the box of a mask."""
    meets = False
    for x in range(cell.shape[1]):
        here = True
        for axis in range(3):
            here &= (cell[axis, x] + 1 >= box[2 * axis]) & (cell[axis, x] <= box[2 * axis + 1])
        meets |= here
    return meets

"""CPU back end of augmentation: serial kernels that hold no GIL, one sample a call.

`augment_direct` is the definition, voxel by voxel. `augment_rows` goes a patch row at a time: positions,
weights and values of a row lie in buffers, so that every loop runs along the row and vectorises; the elastic
grid is summed along z and y once a row; voxels whose eight neighbours all exist are read in pairs without
a test. The numbers of a voxel are combined in the order of the definition, so the result is equal to it to
the last bit.
"""

import numpy as np
from llvmlite import ir
from numba import boolean, float32, int16, int32, int64, njit, types, uint8, uint16, uint64, void
from numba.extending import intrinsic, overload

from kernels import augment_arith as arith
from kernels import rng
from kernels.arith import position

_IMAGE = types.Array(int16, 3, "C", readonly=True)
_MASK = types.Array(uint8, 3, "C", readonly=True)
_ROW = types.Array(float32, 1, "C", readonly=True)
_GRID = types.Array(float32, 4, "C", readonly=True)
_INPUT = (_IMAGE, _MASK, _ROW, uint64, _GRID, float32, int32, _ROW, int64, boolean)
# image, mask, row, key, elastic, spline_scale, mode, normals, size, halved; then the flat output
_SIGNATURES = [void(*_INPUT, float32[::1]), void(*_INPUT, uint16[::1])]


def _encode(out, value):
    """Return a float32 as what the output holds: itself, or bfloat16 bits for a uint16 array."""


@overload(_encode)
def _encode_by_type(out, value):
    if out.dtype == uint16:
        return lambda out, value: arith.bfloat16_bits(value)
    return lambda out, value: value


@intrinsic
def _pair(typing_context, source, at):
    """Load two neighbouring int16 as one int32, the first in its lower half; little-endian machines."""

    def codegen(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.gep(array.data, [arguments[1]])
        pointer = builder.bitcast(pointer, ir.IntType(32).as_pointer())
        return builder.load(pointer, align=2)

    return int32(source, int64), codegen


@njit(_SIGNATURES, nogil=True, cache=True)
def augment_direct(image, mask, row, key, elastic, spline_scale, mode, normals, size, halved, out):
    """Fill the flat output of one sample, voxel by voxel."""
    channels = 2 if mode == arith.CHANNEL else 1
    for z in range(size):
        for y in range(size):
            for x in range(size):
                v, share = arith.augment_voxel(
                    image, mask, row, key, elastic, spline_scale, mode, normals, size,
                    np.int32(z), np.int32(y), np.int32(x),
                )  # fmt: skip
                at = arith.output_index(z, y, x, size, channels, halved)
                out[at] = _encode(out, v)
                if channels == 2:
                    out[at + 1] = _encode(out, share)


@njit(void(_MASK, int32[::1]), nogil=True, cache=True)
def mask_box(mask, box):
    """Write first and last marked voxel along z, y, x to ``box`` (6,); first > last where there is none."""
    ny, nx = mask.shape[1], mask.shape[2]
    low_z, high_z, low_y, high_y, low_x, high_x = 1 << 30, -1, 1 << 30, -1, 1 << 30, -1
    seen = np.zeros(nx, np.uint8)
    for z in range(mask.shape[0]):
        for y in range(ny):
            row = mask[z, y]
            any_ = np.uint8(0)
            for x in range(nx):
                any_ |= row[x]
            if any_:
                low_z, high_z = min(low_z, z), max(high_z, z)
                low_y, high_y = min(low_y, y), max(high_y, y)
                for x in range(nx):
                    seen[x] |= row[x]
    for x in range(nx):
        if seen[x]:
            low_x, high_x = min(low_x, x), max(high_x, x)
    box[0], box[1], box[2], box[3], box[4], box[5] = low_z, high_z, low_y, high_y, low_x, high_x


@njit(void(_MASK, int32[::1], float32, uint8[:, :, ::1]), nogil=True, cache=True)
def spread_box(mask, box, half_width, out):
    """Spread a mask (see `augment_arith.spread_voxel`) around its box; `out` is zero elsewhere already.

    Three passes, along z, y and x; the numbers are added in the order of the definition.
    """
    if box[0] > box[1]:
        return
    reach = int(np.ceil(half_width)) - 1
    total = arith.tent_total(reach, half_width)
    weights = np.empty(2 * reach + 1, np.float32)
    for k in range(2 * reach + 1):
        weights[k] = arith.tent(np.int32(k - reach), half_width) / total
    nz, ny, nx = mask.shape
    z0, z1 = max(box[0] - reach, 0), min(box[1] + reach + 1, nz)
    y0, y1 = max(box[2] - reach, 0), min(box[3] + reach + 1, ny)
    x0, x1 = max(box[4] - reach, 0), min(box[5] + reach + 1, nx)
    plane = np.zeros((ny, nx), np.float32)
    line, value = np.zeros(nx, np.float32), np.zeros(nx, np.float32)
    for z in range(z0, z1):
        plane[y0:y1, x0:x1] = 0
        for k in range(max(z - reach, 0), min(z + reach + 1, nz)):
            weight = weights[k - z + reach]
            for y in range(y0, y1):
                for x in range(x0, x1):
                    plane[y, x] += weight * np.float32(mask[k, y, x])
        for y in range(y0, y1):
            line[x0:x1], value[x0:x1] = 0, 0
            for j in range(max(y - reach, y0), min(y + reach + 1, y1)):
                weight = weights[j - y + reach]
                for x in range(x0, x1):
                    line[x] += weight * plane[j, x]
            for x in range(x0, x1):
                for i in range(max(x - reach, x0), min(x + reach + 1, x1)):
                    value[x] += weights[i - x + reach] * line[i]
            for x in range(x0, x1):
                out[z, y, x] = np.uint8(np.floor(min(value[x], arith.FULL) + arith.HALF))


@njit
def _row_positions(row, z, y, fraction):
    """Write positions (3, size) of a patch row."""
    _positions(row[0], row[1], row[2], row[3], z, y, fraction[0])
    _positions(row[4], row[5], row[6], row[7], z, y, fraction[1])
    _positions(row[8], row[9], row[10], row[11], z, y, fraction[2])


@njit
def _positions(mz, my, mx, shift, z, y, p):
    """Write the positions of a row along one axis of the crop."""
    for x in range(p.shape[0]):
        p[x] = position(mz, my, mx, shift, z, y, x)


@njit
def _add_displacement(elastic, spline_scale, z, y, columns, line, p):
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
def _split(p, count, cell):
    """Turn positions along one axis into whole ones, in ``cell``, and fractions, in place."""
    for x in range(p.shape[0]):
        held = arith.clamp(p[x], count)
        below = np.floor(held)
        cell[x] = np.int32(below)
        p[x] = held - below


@njit
def _spline_columns(size, points, spline_scale):
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
def _is_inner(cell, shape, step):
    """Tell whether every `step`-th voxel of a row has eight neighbours that exist."""
    for axis in range(3):
        whole, last = cell[axis], shape[axis] - 2
        for x in range(0, whole.shape[0], step):
            if whole[x] < 0 or whole[x] > last:
                return False
    return True


@njit
def _inner_run(cell, shape, straight):
    """Return a run of voxels [begin, end) of a row whose eight neighbours all exist.

    Along a straight row positions rise or fall, whatever the rounding: its two ends say it for all.
    """
    size = cell.shape[1]
    if _is_inner(cell, shape, max(size - 1, 1) if straight else 1):
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
def _tested(source, outside, cell, fraction, begin, end, value):
    """Interpolate voxels [begin, end) of a row, some of whose neighbours lie `outside`."""
    cz, cy, cx = cell[0, begin:end], cell[1, begin:end], cell[2, begin:end]
    fz, fy, fx = fraction[0, begin:end], fraction[1, begin:end], fraction[2, begin:end]
    out = value[begin:end]
    for x in range(out.shape[0]):
        out[x] = arith.trilinear_at(source, (cz[x], cy[x], cx[x]), fz[x], fy[x], fx[x], outside)


@njit
def _untested(flat, plane, line, cell, fraction, begin, end, pairs, value):
    """Interpolate voxels [begin, end) of a row of an int16 volume whose neighbours all exist.

    Loads from all over, which no processor vectorises well, go first, to ``pairs`` int32 (4, size).
    """
    # slices, so that indices begin at 0: a begin that might be negative is tested at every access
    cz, cy, cx = cell[0, begin:end], cell[1, begin:end], cell[2, begin:end]
    fz, fy, fx = fraction[0, begin:end], fraction[1, begin:end], fraction[2, begin:end]
    a, b, c, d = pairs[0], pairs[1], pairs[2], pairs[3]
    out = value[begin:end]
    for x in range(out.shape[0]):
        d[x] = np.int32(np.int32(cz[x] * plane) + np.int32(cy[x] * line)) + cx[x]
    for x in range(out.shape[0]):
        at = np.int64(d[x])
        a[x], b[x] = _pair(flat, at), _pair(flat, at + line)
        c[x], d[x] = _pair(flat, at + plane), _pair(flat, at + plane + line)
    for x in range(out.shape[0]):
        near = arith.lerp(_along_x(a[x], fx[x]), _along_x(b[x], fx[x]), fy[x])
        far = arith.lerp(_along_x(c[x], fx[x]), _along_x(d[x], fx[x]), fy[x])
        out[x] = arith.lerp(near, far, fz[x])


@njit
def _along_x(pair, f):
    """Interpolate between the int16 in the lower and the one in the upper half of an int32."""
    first = np.int32(np.int32(pair << np.int32(16)) >> np.int32(16))
    return arith.lerp(np.float32(first), np.float32(np.int32(pair >> np.int32(16))), f)


@njit
def _row_meets(cell, box):
    """Tell whether any voxel of a row has a neighbour in the box of a mask."""
    meets = False
    for x in range(cell.shape[1]):
        here = True
        for axis in range(3):
            here &= (cell[axis, x] + 1 >= box[2 * axis]) & (cell[axis, x] <= box[2 * axis + 1])
        meets |= here
    return meets


@njit(error_model="numpy")
def _row_intensity(row, value):
    """Apply window, gamma, gain and bias."""
    low, width, gamma = row[arith.LOW], row[arith.WIDTH], row[arith.GAMMA]
    gain, bias = row[arith.GAIN], row[arith.BIAS]
    if width > arith.ZERO:
        for x in range(value.shape[0]):
            value[x] = arith.window(value[x], low, width)
        if gamma != arith.ONE:
            for x in range(value.shape[0]):
                value[x] = arith.power(value[x], gamma)
    for x in range(value.shape[0]):
        value[x] = value[x] * gain + bias


@njit
def _row_noise(normals, key, start, sigma, words, value):
    """Add noise to a row whose first voxel has number `start`; `words` is uint32 (4, counters)."""
    first = start >> 3
    counters = ((start + value.shape[0] - 1) >> 3) - first + 1
    w0, w1, w2, w3 = words[0], words[1], words[2], words[3]
    for k in range(counters):
        w0[k], w1[k], w2[k], w3[k] = rng.philox(np.uint32(first + k), key)
    for x in range(value.shape[0]):
        number = start + x
        word = words[(number >> 1) & 3, (number >> 3) - first]
        half = np.int32((word >> np.uint32((number & 1) << 4)) & np.uint32(0xFFFF))
        value[x] += sigma * normals[half]


@njit
def _write_row(out, z, y, size, channels, halved, channel, value):
    """Write one channel of a row of the output."""
    begin = arith.output_index(z, y, 0, size, channels, halved) + channel
    if not halved:
        if channels == 1:
            for x in range(size):
                out[begin + x] = _encode(out, value[x])
        else:
            for x in range(size):
                out[begin + 2 * x] = _encode(out, value[x])
        return
    for x in range(size // 2):
        at = begin + x * 8 * channels
        out[at], out[at + channels] = _encode(out, value[2 * x]), _encode(out, value[2 * x + 1])


@njit
def _row_shares(mask, mode, box, cell, fraction, share):
    """Write the weights (or occupancies) of a row; return whether any of them can be above 0."""
    if not _row_meets(cell, box):
        share[:] = 0
        return False
    _tested(mask, arith.ZERO, cell, fraction, 0, share.shape[0], share)
    for x in range(share.shape[0]):
        share[x] = arith.share_to_weight(share[x], mode)
    return True


@njit(_SIGNATURES, nogil=True, cache=True)
def augment_rows(image, mask, row, key, elastic, spline_scale, mode, normals, size, halved, out):
    """Fill the flat output of one sample, row by row."""
    shape, channels = image.shape, 2 if mode == arith.CHANNEL else 1
    weighted, bent = mode in (arith.HARD, arith.SOFT), elastic.shape[1] >= arith.LEAST_POINTS
    flat, plane, line = image.reshape(image.size), shape[1] * shape[2], shape[2]
    cell, fraction = np.empty((3, size), np.int32), np.empty((3, size), np.float32)
    value, share = np.empty(size, np.float32), np.empty(size, np.float32)
    pairs = np.empty((4, size), np.int32)
    controls = np.empty(elastic.shape[1], np.float32)
    words, box = np.empty((4, size // 8 + 2), np.uint32), np.empty(6, np.int32)
    columns = _spline_columns(size, elastic.shape[1], spline_scale)
    if mode != arith.NO_MASK:
        mask_box(mask, box)
    for z in range(size):
        for y in range(size):
            _row_positions(row, z, y, fraction)
            if bent:
                _add_displacement(elastic, spline_scale, z, y, columns, controls, fraction)
            for axis in range(3):
                _split(fraction[axis], shape[axis], cell[axis])
            if mode != arith.NO_MASK and not _row_shares(mask, mode, box, cell, fraction, share) and weighted:
                _write_row(out, z, y, size, channels, halved, 0, share)
                continue
            begin, end = _inner_run(cell, shape, not bent)
            _untested(flat, plane, line, cell, fraction, begin, end, pairs, value)
            if begin > 0:
                _tested(image, arith.AIR, cell, fraction, 0, begin, value)
            if end < size:
                _tested(image, arith.AIR, cell, fraction, end, size, value)
            _row_intensity(row, value)
            if row[arith.SIGMA] > arith.ZERO:
                _row_noise(normals, key, (z * size + y) * size, row[arith.SIGMA], words, value)
            if weighted:
                for x in range(size):
                    value[x] = value[x] * share[x] if share[x] > arith.ZERO else arith.ZERO
            _write_row(out, z, y, size, channels, halved, 0, value)
            if channels == 2:
                _write_row(out, z, y, size, channels, halved, 1, share)

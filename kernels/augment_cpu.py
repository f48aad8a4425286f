"""CPU back end of augmentation: serial kernels that hold no GIL, one sample a call.

`augment_direct` is the definition, voxel by voxel. `augment_rows` goes a patch row at a time: positions,
weights and values of a row lie in buffers, so that every loop runs along the row and vectorises; the elastic
grid is summed along z and y once a row; voxels whose eight neighbours all exist are read in pairs without
a test. The numbers of a voxel are combined in the order of the definition, so the result is equal to it to
the last bit.

Views of an array are counted, atomically, unless Numba sees that a function neither branches nor calls while
it holds them; a row with all of them counted took half as long again. Functions of a row therefore take whole
buffers and cut them at their top.
"""

import numpy as np
from numba import boolean, float32, int16, int32, int64, njit, types, uint8, uint16, uint64, void
from numba.extending import overload

from kernels import augment_arith as arith
from kernels import rng
from kernels.augment_positions import (
    add_displacement,
    inner_run,
    row_meets,
    row_positions,
    spline_columns,
    split,
)
from kernels.memory_cpu import lower, pair, prefetch, upper
from kernels.spread_cpu import mask_box

_IMAGE = types.Array(int16, 3, "C", readonly=True)
_MASK = types.Array(uint8, 3, "C", readonly=True)
_ROW = types.Array(float32, 1, "C", readonly=True)
_GRID = types.Array(float32, 4, "C", readonly=True)
_INPUT = (_IMAGE, _MASK, _ROW, uint64, _GRID, float32, int32, _ROW, int64, boolean)
# image, mask, row, key, elastic, spline_scale, mode, normals, size, halved; then the flat output
_SIGNATURES = [void(*_INPUT, float32[::1]), void(*_INPUT, uint16[::1])]

_FETCH_STEP = 8  # voxels; 4 and 2 were slower


def _encode(out, value):
    """Return a float32 as what the output holds: itself, or bfloat16 bits for a uint16 array."""


@overload(_encode)
def _encode_by_type(out, value):
    if out.dtype == uint16:
        return lambda out, value: arith.bfloat16_bits(value)
    return lambda out, value: value


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


@njit
def _tested(source, outside, cell, fraction, begin, end, value):
    """Interpolate voxels [begin, end) of a row, some of whose neighbours lie `outside`."""
    cz, cy, cx = cell[0, begin:end], cell[1, begin:end], cell[2, begin:end]
    fz, fy, fx = fraction[0, begin:end], fraction[1, begin:end], fraction[2, begin:end]
    out = value[begin:end]
    for x in range(out.shape[0]):
        out[x] = arith.trilinear_at(source, (cz[x], cy[x], cx[x]), fz[x], fy[x], fx[x], outside)


@njit
def _test_rest(image, cell, fraction, begin, end, value):
    """Interpolate what [begin, end) leaves of a row."""
    _tested(image, arith.AIR, cell, fraction, 0, begin, value)
    _tested(image, arith.AIR, cell, fraction, end, value.shape[0], value)


@njit
def _first_neighbours(plane, line, cell, at):
    """Write where in the flat volume the first of the eight neighbours of each voxel of a row lies."""
    cz, cy, cx = cell[0], cell[1], cell[2]
    for x in range(at.shape[0]):
        at[x] = np.int32(np.int32(cz[x] * plane) + np.int32(cy[x] * line)) + cx[x]


@njit
def _fetch_ahead(flat, at, ahead):
    """Ask for voxels that the same row of the next z will read, `ahead` of those that this row reads."""
    for x in range(0, at.shape[0], _FETCH_STEP):
        prefetch(flat, np.int64(at[x]) + ahead)


@njit
def _load_pairs(flat, plane, line, at, begin, end, pairs):
    """Write the eight neighbours of voxels [begin, end) of a row as four pairs along x."""
    # slices, so that indices begin at 0: a begin that might be negative is tested at every access
    a, b, c, d = pairs[0, begin:end], pairs[1, begin:end], pairs[2, begin:end], pairs[3, begin:end]
    at = at[begin:end]
    for x in range(at.shape[0]):
        first = np.int64(at[x])
        a[x], b[x] = pair(flat, first), pair(flat, first + line)
        c[x], d[x] = pair(flat, first + plane), pair(flat, first + plane + line)


@njit
def _blend_pairs(pairs, fraction, value):
    """Interpolate a row between the eight neighbours of each voxel; rubbish where they were not loaded."""
    a, b, c, d = pairs[0], pairs[1], pairs[2], pairs[3]
    fz, fy, fx = fraction[0], fraction[1], fraction[2]
    for x in range(value.shape[0]):
        near = arith.lerp(_along_x(a[x], fx[x]), _along_x(b[x], fx[x]), fy[x])
        far = arith.lerp(_along_x(c[x], fx[x]), _along_x(d[x], fx[x]), fy[x])
        value[x] = arith.lerp(near, far, fz[x])


@njit
def _along_x(both, f):
    """Interpolate between the int16 in the lower and the one in the upper half of an int32."""
    return arith.lerp(lower(both), upper(both), f)


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
    if halved:
        for x in range(size // 2):
            at = begin + x * 8 * channels
            out[at], out[at + channels] = _encode(out, value[2 * x]), _encode(out, value[2 * x + 1])
    elif channels == 1:
        _write_run(out, begin, value)
    else:
        for x in range(size):
            out[begin + 2 * x] = _encode(out, value[x])


@njit
def _write_run(out, begin, value):
    """Write values side by side."""
    run = out[begin : begin + value.shape[0]]
    for x in range(value.shape[0]):
        run[x] = _encode(out, value[x])


@njit
def _row_shares(mask, mode, box, cell, fraction, share):
    """Write the weights (or occupancies) of a row; return whether any of them can be above 0."""
    if not row_meets(cell, box):
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
    at, pairs = np.empty(size, np.int32), np.zeros((4, size), np.int32)
    controls = np.empty(elastic.shape[1], np.float32)
    words, box = np.empty((4, size // 8 + 2), np.uint32), np.empty(6, np.int32)
    columns = spline_columns(size, elastic.shape[1], spline_scale)
    if mode != arith.NO_MASK:
        mask_box(mask, box)
    ahead = 2 * plane if row[0] > arith.ZERO else -plane  # the plane after the two being read
    for z in range(size):
        for y in range(size):
            row_positions(row, z, y, fraction)
            if bent:
                add_displacement(elastic, spline_scale, z, y, columns, controls, fraction)
            for axis in range(3):
                split(fraction[axis], shape[axis], cell[axis])
            if mode != arith.NO_MASK and not _row_shares(mask, mode, box, cell, fraction, share) and weighted:
                _write_row(out, z, y, size, channels, halved, 0, share)
                continue
            begin, end = inner_run(cell, shape, not bent)
            _first_neighbours(plane, line, cell, at)
            _fetch_ahead(flat, at, ahead)
            _load_pairs(flat, plane, line, at, begin, end, pairs)
            _blend_pairs(pairs, fraction, value)
            if end - begin < size:
                _test_rest(image, cell, fraction, begin, end, value)
            _row_intensity(row, value)
            if row[arith.SIGMA] > arith.ZERO:
                _row_noise(normals, key, (z * size + y) * size, row[arith.SIGMA], words, value)
            if weighted:
                for x in range(size):
                    value[x] = value[x] * share[x] if share[x] > arith.ZERO else arith.ZERO
            _write_row(out, z, y, size, channels, halved, 0, value)
            if channels == 2:
                _write_row(out, z, y, size, channels, halved, 1, share)

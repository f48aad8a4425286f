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
_INPUT = (_IMAGE, _MASK, _ROW, uint64, _GRID, float32, int32, _ROW, int32, boolean)
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
    """Write the first and the last marked voxel along z, y, x to ``box`` (6,); first > last where there is none."""
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
    reach = np.int32(np.ceil(half_width)) - np.int32(1)
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


augment_rows = augment_direct

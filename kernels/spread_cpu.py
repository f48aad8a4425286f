"""Softening of masks on the CPU: where a mask lies in its crop, and a separable tent around it."""

import numpy as np
from numba import float32, int32, njit, types, uint8, void

from kernels import augment_arith as arith

_MASK = types.Array(uint8, 3, "C", readonly=True)


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

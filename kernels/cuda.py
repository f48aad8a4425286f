"""CUDA back end: one thread a target voxel, one launch a ragged batch."""

import numpy as np
from numba import cuda

from kernels import arith

THREADS = 128
MAX_GRID_Y = 65535  # blocks; CUDA's limit on the y dimension of a grid, which counts bricks here
MAX_TAPS = arith.MAX_TAPS


@cuda.jit
def extract_kernel(
    hu, mask, offset, shape, matrix, norm, positions, position_start, has_mask, image, occupancy
):
    """Fill ``image`` and ``occupancy`` (n, size, size, size); the grid is (voxel blocks, bricks)."""
    weights = cuda.local.array((3, MAX_TAPS), np.float32)
    b = np.int32(cuda.blockIdx.y)
    begin = np.int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    step = np.int32(cuda.gridDim.x * cuda.blockDim.x)
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
        begin,
        step,
        weights,
        image[b],
        occupancy[b],
    )


def launch(table, image, occupancy, stream=0):
    """Launch `extract_kernel` on a stream, without waiting: once for every 65,535 bricks of a table.

    `table` holds the device arrays of `kernels.Bricks` in order; `image` int16 and `occupancy`
    uint8 are device arrays (n, size, size, size).
    """
    hu, mask, offset, shape, matrix, norm, positions, position_start, has_mask = table
    for begin in range(0, len(image), MAX_GRID_Y):
        part = slice(begin, min(begin + MAX_GRID_Y, len(image)))
        blocks = (-(-(image.shape[1] ** 3) // THREADS), part.stop - part.start)
        extract_kernel[blocks, THREADS, stream](
            hu,
            mask,
            offset[part],
            shape[part],
            matrix[part],
            norm[part],
            positions,
            position_start[part],
            has_mask[part],
            image[part],
            occupancy[part],
        )

"""CUDA back end: one thread a target voxel, one launch a ragged batch."""

import numpy as np
from numba import cuda

from kernels import arith

THREADS = 128
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
    """Launch `extract_kernel` once for all bricks of a table, on a stream, without waiting for it.

    `table` holds the device arrays of `kernels.Bricks` in order; `image` int16 and `occupancy`
    uint8 are device arrays (n, size, size, size).
    """
    blocks = (-(-(image.shape[1] ** 3) // THREADS), len(image))
    extract_kernel[blocks, THREADS, stream](*table, image, occupancy)

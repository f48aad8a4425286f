"""CUDA back end of augmentation: one thread a voxel, one launch a batch, from crops on the device."""

from typing import Any

import numpy as np
from numba import cuda

from kernels import augment_arith as arith
from kernels import rng
from kernels.augment import (
    MAX_VOXELS,
    MODES,
    Table,
    check_table,
    grids,
    output_shape,
    parameters,
)

THREADS = 128
MAX_GRID_Y = 65535  # blocks; CUDA's limit on the y dimension of a grid, which counts samples here


@cuda.jit
def augment_kernel(images, masks, ids, rows, elastic, spline_scale, mode, normals, size, halved, out):
    """Fill ``out`` float32 or float16 (b, values of a sample); the grid is (voxel blocks, samples).

    `ids` is int64 (b, 2): which crop, and the bits of the noise key.
    """
    b = np.int32(cuda.blockIdx.y)
    image, mask = images[ids[b, 0]], masks[ids[b, 0] if mode != arith.NO_MASK else 0]
    channels = np.int32(2 if mode == arith.CHANNEL else 1)
    voxel = np.int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    while voxel < size * size * size:
        z, y, x = np.int32(voxel // (size * size)), np.int32((voxel // size) % size), np.int32(voxel % size)
        v, share = arith.augment_voxel(
            image, mask, rows[b], np.uint64(ids[b, 1]), elastic[b], spline_scale, mode, normals, size, z, y, x
        )
        at = arith.output_index(z, y, x, size, channels, halved)
        out[b, at] = v
        if mode == arith.CHANNEL:
            out[b, at + 1] = share
        voxel = np.int32(voxel + cuda.gridDim.x * cuda.blockDim.x)


@cuda.jit
def augment_kernel_bfloat16(
    images, masks, ids, rows, elastic, spline_scale, mode, normals, size, halved, out
):
    """Do what `augment_kernel` does, into uint16 bits of bfloat16."""
    b = np.int32(cuda.blockIdx.y)
    image, mask = images[ids[b, 0]], masks[ids[b, 0] if mode != arith.NO_MASK else 0]
    channels = np.int32(2 if mode == arith.CHANNEL else 1)
    voxel = np.int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    while voxel < size * size * size:
        z, y, x = np.int32(voxel // (size * size)), np.int32((voxel // size) % size), np.int32(voxel % size)
        v, share = arith.augment_voxel(
            image, mask, rows[b], np.uint64(ids[b, 1]), elastic[b], spline_scale, mode, normals, size, z, y, x
        )
        at = arith.output_index(z, y, x, size, channels, halved)
        out[b, at] = arith.bfloat16_bits(v)
        if mode == arith.CHANNEL:
            out[b, at + 1] = arith.bfloat16_bits(share)
        voxel = np.int32(voxel + cuda.gridDim.x * cuda.blockDim.x)


@cuda.jit
def spread_kernel(masks, reach, half_width, total, out):
    """Spread masks uint8 (n, nz, ny, nx); the grid is (voxel blocks, masks)."""
    b = np.int32(cuda.blockIdx.y)
    ny, nx = np.int32(masks.shape[2]), np.int32(masks.shape[3])
    count = np.int32(masks.shape[1]) * ny * nx
    voxel = np.int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    while voxel < count:
        z, y, x = np.int32(voxel // (ny * nx)), np.int32((voxel // nx) % ny), np.int32(voxel % nx)
        out[b, z, y, x] = arith.spread_voxel(masks[b], z, y, x, reach, half_width, total)
        voxel = np.int32(voxel + cuda.gridDim.x * cuda.blockDim.x)


def launch(images, masks, ids, rows, elastic, settings, normals, out, stream=0):
    """Launch a batch on a stream, without waiting.

    All are device arrays (or NumPy in the simulator); `settings` is (spline scale, mode, size, halved), `out`
    (b, values of a sample), uint16 for bfloat16.
    """
    scale, mode, size, halved = settings
    kernel = augment_kernel_bfloat16 if out.dtype == np.uint16 else augment_kernel
    for begin in range(0, len(rows), MAX_GRID_Y):
        part = slice(begin, min(begin + MAX_GRID_Y, len(rows)))
        blocks = (-(-(size**3) // THREADS), part.stop - part.start)
        kernel[blocks, THREADS, stream](
            images, masks, ids[part], rows[part], elastic[part],
            np.float32(scale), np.int32(mode), normals, np.int32(size), halved, out[part],
        )  # fmt: skip


def launch_spread(masks, edge_voxels, out, stream=0):
    """Spread a resident array of masks (n, nz, ny, nx) into another, without waiting."""
    half_width = np.float32(1 + edge_voxels)
    reach = np.int32(np.ceil(half_width) - 1)
    total = np.float32(arith.tent_total(reach, half_width))
    for begin in range(0, len(masks), MAX_GRID_Y):
        part = slice(begin, min(begin + MAX_GRID_Y, len(masks)))
        blocks = (-(-int(np.prod(masks.shape[1:])) // THREADS), part.stop - part.start)
        spread_kernel[blocks, THREADS, stream](masks[part], reach, half_width, total, out[part])


def identifiers(table: Table) -> Any:
    """Return int64 (b, 2): the crops, and the bits of the noise keys."""
    return np.stack([table.index, table.noise_key.view(np.int64)], axis=1)


def augment(
    images: Any,
    masks: Any,
    table: Table,
    out: Any,
    dtype: str,
    space_to_depth: bool,
    spread_already: bool,
) -> Any:
    """Do what `kernels.augment.augment` says for resident arrays, on the current stream."""
    check_table(table, space_to_depth)
    _check_resident(images, masks, table)
    stream = _stream(images)
    shape = output_shape(table, space_to_depth)
    made = _empty(images, shape, dtype) if out is None else out
    if tuple(made.shape) != shape:
        raise ValueError(f"`out` must be {shape}, got {tuple(made.shape)}")
    if masks is not None and table.edge_voxels and not spread_already:
        masks = spread(masks, table.edge_voxels)
    elastic, scale = grids(table)
    send = [identifiers(table), parameters(table), elastic, rng.normal_table()]
    ids, rows, grid, normals = (cuda.to_device(array, stream=stream) for array in send)
    image, mask = _view(images), _view(images if masks is None else masks)
    settings = (scale, MODES.index(table.mask_mode), table.size, space_to_depth)
    flat = _view(made).reshape(shape[0], -1)
    launch(image, mask, ids, rows, grid, settings, normals, flat, stream)
    return made


def spread(masks: Any, edge_voxels: float) -> Any:
    """Do what `kernels.augment.spread` says for a resident array, on the current stream."""
    out = _empty(masks, tuple(masks.shape), "uint8")
    launch_spread(_view(masks), edge_voxels, _view(out), _stream(masks))
    return out


def _check_resident(images: Any, masks: Any, table: Table) -> None:
    if len(images.shape) != 4 or "int16" not in str(images.dtype) or np.prod(images.shape[1:]) > MAX_VOXELS:
        raise ValueError(f"`images` must be int16 (n, nz, ny, nx), got {images.dtype} {tuple(images.shape)}")
    if table.mask_mode != "none" and (masks is None or tuple(masks.shape) != tuple(images.shape)):
        raise ValueError("`masks` must be of the shape of `images`")
    if len(table.index) and not 0 <= table.index.min() <= table.index.max() < len(images):
        raise ValueError(f"`index` must be 0 to {len(images) - 1}")


def _is_torch(array: Any) -> bool:
    return type(array).__module__.startswith("torch")


def _stream(array):
    """Return Numba's view of the current stream of the array's library."""
    if _is_torch(array):
        import torch

        pointer = torch.cuda.current_stream(array.device).cuda_stream
    else:
        import cupy

        pointer = cupy.cuda.get_current_stream().ptr
    return cuda.external_stream(pointer) if pointer else 0


def _empty(like, shape, dtype):
    if _is_torch(like):
        import torch

        return torch.empty(shape, dtype=getattr(torch, dtype), device=like.device)
    import cupy

    return cupy.empty(shape, "uint16" if dtype == "bfloat16" else dtype)


def _view(array):
    """Return Numba's view of a device array; bfloat16 is seen as uint16."""
    if "bfloat16" in str(array.dtype):
        import torch

        array = array.view(torch.uint16)
    return cuda.as_cuda_array(array, sync=False)

"""The contract of extraction: what a batch is, what is checked, and who does the work."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNED_BELOW_VOXELS = 1e-5
MAX_HALF_WIDTH = 15  # voxels; a target so much coarser than its source is a mistake
MAX_SIZE = 1024  # voxels; kernels count the voxels of a cube in int32, one stride beyond the last


@dataclass(frozen=True, eq=False)
class Brick:
    """One source box and where it is to be sampled.

    Attributes
    ----------
    hu
        int16 (nz, ny, nx), finite HU, at most [-1024, 3071] by contract of the readers.
    mask
        uint8 (nz, ny, nx), 0 or 1; None where there is no mask.
    matrix
        float64 (3, 4): target index (z, y, x, 1) to brick index zyx, in nominal voxels. No row's norm
        may exceed 15 source voxels (between uneven slices: 15 times the smallest gap).
    slice_positions
        For an uneven stack the ascending position of each slice in nominal voxels, the first 0.
    """

    hu: NDArray[np.int16]
    mask: NDArray[np.uint8] | None
    matrix: NDArray[np.float64]
    slice_positions: NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class Bricks:
    """A ragged batch of n bricks: flat voxels and a table. NumPy or CUDA arrays, never a mixture.

    Attributes
    ----------
    hu, mask
        int16 and uint8 (voxels,): all bricks one after another, each C-ordered zyx.
    offset
        int64 (n,): first voxel of each brick.
    shape_zyx
        int32 (n, 3).
    matrix
        float32 (n, 3, 4): target index (z, y, x, 1) to brick index zyx, in nominal voxels.
    norm
        float32 (n, 3): L2 norm of each matrix row, the tent's half-width where it exceeds 1.
    positions, position_start
        float32 (m,) slice positions of uneven stacks; int64 (n,) where each brick's begin, -1 for
        an even one.
    has_mask
        bool (n,).
    """

    hu: Any
    mask: Any
    offset: Any
    shape_zyx: Any
    matrix: Any
    norm: Any
    positions: Any
    position_start: Any
    has_mask: Any

    @property
    def table(self) -> tuple[Any, ...]:
        """All arrays, in the order in which the kernels take them."""
        return tuple(getattr(self, field.name) for field in fields(self))


def pack(bricks: Sequence[Brick], size: int) -> Bricks:
    """Lay bricks one after another and build their table, for cubes of `size` voxels.

    Off-diagonal matrix entries that move no target voxel by 1e-5 voxels are taken as zero, so that
    rounding noise in a direction cosine does not cost the fast path. Raises ValueError on what breaks
    the contract: the kernels check nothing, and would write out of bounds.
    """
    _check_size(size)
    for brick in bricks:
        _check(brick)
    counts = [brick.hu.size for brick in bricks]
    offset = np.cumsum([0, *counts])[:-1].astype(np.int64)
    hu = np.empty(sum(counts), np.int16)
    mask = np.zeros(sum(counts), np.uint8)
    for brick, begin, count in zip(bricks, offset, counts, strict=True):
        hu[begin : begin + count].reshape(brick.hu.shape)[...] = brick.hu
        if brick.mask is not None:
            mask[begin : begin + count].reshape(brick.hu.shape)[...] = brick.mask
    matrix = np.array([_clean(brick.matrix, size) for brick in bricks]).reshape(-1, 3, 4)
    uneven = [() if brick.slice_positions is None else tuple(brick.slice_positions) for brick in bricks]
    ends = np.cumsum([len(p) for p in uneven])
    return Bricks(
        hu=hu,
        mask=mask,
        offset=offset,
        shape_zyx=np.array([brick.hu.shape for brick in bricks], np.int32).reshape(-1, 3),
        matrix=matrix.astype(np.float32),
        norm=np.linalg.norm(matrix[:, :, :3], axis=2).astype(np.float32),
        positions=np.array([p for positions in uneven for p in positions], np.float32),
        position_start=np.array(
            [end - len(p) if p else -1 for p, end in zip(uneven, ends, strict=True)], np.int64
        ),
        has_mask=np.array([brick.mask is not None for brick in bricks], np.bool_),
    )


def extract(bricks: Bricks, size: int) -> tuple[Any, Any]:
    """Crop, resample and mask every brick in one operation.

    Parameters
    ----------
    bricks
        The batch; the type of its arrays chooses the back end (NumPy: CPU; CuPy: GPU, without waiting).
    size
        Voxels along each side of the target cubes.

    Returns
    -------
    image
        int16 (n, size, size, size), HU; -1024 outside the brick.
    occupancy
        uint8 (n, size, size, size), share of the target voxel that is nodule, 0-255.
    """
    _check_size(size)
    if hasattr(bricks.hu, "__cuda_array_interface__"):
        return _extract_cuda(bricks, size)
    from kernels import _compiled

    n = len(bricks.offset)
    image = np.empty((n, size, size, size), np.int16)
    occupancy = np.empty((n, size, size, size), np.uint8)
    for b in range(n):
        kernel = _compiled.extract_aligned if is_aligned(bricks, b) else _compiled.extract_rows
        kernel(*bricks.table, b, image[b], occupancy[b])
    return image, occupancy


def is_aligned(bricks: Bricks, b: int) -> bool:
    """Tell whether brick `b` is even and its matrix has no off-diagonal entry."""
    rotation = bricks.matrix[b, :, :3]
    return bool(bricks.position_start[b] < 0 and np.all(rotation == np.diag(np.diag(rotation))))


def to_device(bricks: Bricks) -> Bricks:
    """Copy a packed batch to the current CUDA device as CuPy arrays, on CuPy's current stream."""
    import cupy

    return Bricks(*(cupy.asarray(array) for array in bricks.table))


def _extract_cuda(bricks: Bricks, size: int) -> tuple[Any, Any]:
    import cupy
    from numba import cuda as numba_cuda

    from kernels import cuda

    n = len(bricks.offset)
    image = cupy.empty((n, size, size, size), cupy.int16)
    occupancy = cupy.empty((n, size, size, size), cupy.uint8)
    if n:
        # all of it happens on CuPy's current stream, so that nothing needs to be waited for
        pointer = cupy.cuda.get_current_stream().ptr
        stream = numba_cuda.external_stream(pointer) if pointer else 0
        views = [numba_cuda.as_cuda_array(array, sync=False) for array in (*bricks.table, image, occupancy)]
        cuda.launch(views[:-2], views[-2], views[-1], stream)
    return image, occupancy


def _check_size(size: int) -> None:
    if not 1 <= size <= MAX_SIZE:
        raise ValueError(f"`size` must be 1 to {MAX_SIZE} voxels, got {size}")


def _check(brick: Brick) -> None:
    if brick.hu.ndim != 3 or 0 in brick.hu.shape or brick.hu.dtype != np.int16:
        raise ValueError(f"`hu` must be non-empty int16 zyx, got {brick.hu.dtype} {brick.hu.shape}")
    if brick.mask is not None:
        if brick.mask.shape != brick.hu.shape or brick.mask.dtype != np.uint8:
            raise ValueError(
                f"`mask` must be uint8 {brick.hu.shape}, got {brick.mask.dtype} {brick.mask.shape}"
            )
        if brick.mask.max() > 1:
            raise ValueError(f"`mask` must hold 0 and 1, got {brick.mask.max()}")
    if brick.matrix.shape != (3, 4) or not _is_finite(brick.matrix):
        raise ValueError("`matrix` must be finite (3, 4)")
    gap = np.ones(3, np.float32)
    positions = brick.slice_positions
    if positions is not None:
        if np.shape(positions) != brick.hu.shape[:1] or len(positions) < 2 or not _is_finite(positions):
            raise ValueError("`slice_positions` must be finite, one for each of at least two slices")
        gap[0] = np.diff(np.asarray(positions, np.float32)).min()
        if positions[0] != 0 or not gap[0] > 0:
            raise ValueError("`slice_positions` must ascend from 0, in float32 too")
    width = np.linalg.norm(brick.matrix[:, :3], axis=1).astype(np.float32) / gap
    if width.max() > MAX_HALF_WIDTH:
        raise ValueError(f"`matrix` rows step {width} voxels, more than {MAX_HALF_WIDTH}: target too coarse")


def _is_finite(values: NDArray[np.float64]) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.all(np.isfinite(np.asarray(values, np.float32))))


def _clean(matrix: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Return the matrix without off-diagonal entries that move nothing."""
    clean = matrix.copy()
    off = ~np.eye(3, 4, dtype=bool)
    off[:, 3] = False
    clean[off & (np.abs(clean) * size < ALIGNED_BELOW_VOXELS)] = 0.0
    return clean

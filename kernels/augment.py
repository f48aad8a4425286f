"""The contract of augmentation: what a row of parameters does, what is checked, who does the work.

`toolkit.loading.table` says what the columns of a table mean; the arithmetic stands in
`kernels.augment_arith`. Decisions that belong to the kernels:

- Interpolation goes along x, then y, then z, as ``a + f (b - a)``: exact where f is 0.
- ``edge_voxels`` spreads a mask in its crop, on the crop's own voxels, and rounds to 255ths (`spread`),
  before anything samples it: neither the row nor the patch matters, so a resident store is spread once.
- Mask modes hard and soft give 0 exactly where the weight is 0, whatever the bias and the noise.
- A gamma other than 1 needs a window, and acts inside it only.
"""

from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

DType = Literal["float32", "bfloat16", "float16"]

MAX_SIZE = 1024  # voxels; the voxels of a patch are counted in int32
MAX_VOXELS = 2**31 - 1  # of one crop, for the same reason
MAX_EDGE_VOXELS = 15.0
MIN_POINTS = 4  # a cubic spline needs four
MODES = ("none", "hard", "soft", "channel")  # the numbers of `augment_arith`, in order


class Table(Protocol):
    """What the kernels read of `toolkit.loading.table.AugmentTable`."""

    # ruff: noqa: D102 - the fields are described there

    @property
    def index(self) -> NDArray[np.int64]: ...
    @property
    def matrix(self) -> NDArray[np.float32]: ...
    @property
    def low_hu(self) -> NDArray[np.float32]: ...
    @property
    def width_hu(self) -> NDArray[np.float32]: ...
    @property
    def gamma(self) -> NDArray[np.float32]: ...
    @property
    def gain(self) -> NDArray[np.float32]: ...
    @property
    def bias(self) -> NDArray[np.float32]: ...
    @property
    def noise_sigma(self) -> NDArray[np.float32]: ...
    @property
    def noise_key(self) -> NDArray[np.uint64]: ...
    @property
    def elastic(self) -> NDArray[np.float32] | None: ...
    @property
    def size(self) -> int: ...
    @property
    def mask_mode(self) -> str: ...
    @property
    def edge_voxels(self) -> float: ...


def augment(
    images: Any,
    masks: Any,
    table: Table,
    *,
    out: Any = None,
    dtype: DType = "float32",
    space_to_depth: bool = False,
    spread_already: bool = False,
) -> Any:
    """Make a batch of patches from crops, one row of the table each.

    Parameters
    ----------
    images
        int16 crops: a sequence of b arrays (nz, ny, nx), one for each row, or one resident array
        (n, nz, ny, nx) that ``table.index`` picks from. NumPy: CPU. CuPy or a torch CUDA tensor (resident
        only): GPU, on the current stream, without a copy and without waiting.
    masks
        uint8 0-255 likewise; may be None with mask mode ``none``.
    table
        The parameters.
    out
        Where to write; made when None.
    dtype
        ``float32``; ``bfloat16``, rounded to even, as uint16 bits on the CPU and in CuPy; ``float16``
        on the GPU alone.
    space_to_depth
        Write (b, d/2, h/2, w/2, 8 c): a cell of 2x2x2 voxels becomes channels in order (dz, dy, dx, c).
    spread_already
        The masks have been through `spread` with the table's ``edge_voxels``.

    Returns
    -------
    array
        (b, d, h, w, c), C-contiguous; c is 2 with mask mode ``channel`` (value, occupancy), else 1.

    Raises
    ------
    ValueError
        On what breaks the contract, with the field's name; the kernels check nothing.
    """
    if hasattr(images, "__cuda_array_interface__"):
        from kernels import augment_cuda

        return augment_cuda.augment(images, masks, table, out, dtype, space_to_depth, spread_already)
    batch = Rows(table, dtype, space_to_depth)
    resident = isinstance(images, np.ndarray)
    if not resident and len(images) != len(batch):
        raise ValueError(f"`images` must be {len(batch)} arrays, one for each row, got {len(images)}")
    if out is None:
        out = np.empty(batch.shape, batch.array_type)
    elif out.shape != batch.shape or out.dtype != batch.array_type or not out.flags.c_contiguous:
        raise ValueError(f"`out` must be C-contiguous {batch.array_type} {batch.shape}")
    for k in range(len(batch)):
        at = int(table.index[k]) if resident else k
        mask = None if batch.mode == 0 else masks[at]
        batch.fill(k, images[at], mask, out[k], spread_already=spread_already)
    return out


class Rows:
    """A checked table, laid out as the CPU kernels want it; `fill` may be called from many threads."""

    def __init__(self, table: Table, dtype: DType = "float32", space_to_depth: bool = False) -> None:
        check_table(table, space_to_depth)
        if dtype not in ("float32", "bfloat16"):
            raise ValueError(f"`dtype` on the CPU must be float32 or bfloat16, got {dtype}")
        from kernels import _compiled_augment as compiled
        from kernels import rng

        self._fast, self._definition = compiled.augment_rows, compiled.augment_direct
        self.array_type = np.dtype(np.float32 if dtype == "float32" else np.uint16)
        self.shape = output_shape(table, space_to_depth)
        self.mode = MODES.index(table.mask_mode)
        self.edge_voxels = float(table.edge_voxels)
        self._size, self._halved = table.size, space_to_depth
        self._rows, self._keys = parameters(table), table.noise_key
        self._elastic, self._scale = grids(table)
        self._bent = np.any(self._elastic, axis=(1, 2, 3, 4))
        self._normals = rng.normal_table()

    def __len__(self) -> int:
        return self.shape[0]

    def fill(
        self,
        k: int,
        image: NDArray[np.int16],
        mask: NDArray[np.uint8] | None,
        out: NDArray[Any],
        *,
        spread_already: bool = False,
        definition: bool = False,
    ) -> None:
        """Write sample `k`, from its crop and mask, to ``out`` (``shape[1:]``); the GIL is released.

        `definition` takes the slow path, voxel by voxel, which the fast one is tested against.
        """
        check_crop("images", image, np.int16)
        if self.mode == 0:
            mask = np.zeros((0, 0, 0), np.uint8)
        elif mask is None or mask.shape != image.shape:
            got = None if mask is None else mask.shape
            raise ValueError(f"`masks` must be {image.shape} as `images`, got {got}")
        else:
            check_crop("masks", mask, np.uint8)
            if self.edge_voxels and not spread_already:
                mask = spread(mask, self.edge_voxels)
        kernel = self._definition if definition else self._fast
        kernel(
            image,
            mask,
            self._rows[k],
            self._keys[k],
            self._elastic[k] if self._bent[k] else _STRAIGHT,  # no displacement, at no cost
            self._scale,
            self.mode,
            self._normals,
            self._size,
            self._halved,
            out.reshape(-1),
        )


def spread(mask: Any, edge_voxels: float) -> Any:
    """Spread a mask, uint8 0-255 (nz, ny, nx), by a tent of half-width ``1 + edge_voxels`` voxels.

    The weights of the voxels add up to one; outside the crop is no nodule; the result is rounded to
    255ths. For a resident CUDA array (n, nz, ny, nx) all crops are spread in one launch.
    """
    if not 0 <= edge_voxels <= MAX_EDGE_VOXELS:
        raise ValueError(f"`edge_voxels` must be 0 to {MAX_EDGE_VOXELS:g}, got {edge_voxels}")
    if hasattr(mask, "__cuda_array_interface__"):
        from kernels import augment_cuda

        return augment_cuda.spread(mask, edge_voxels)
    from kernels import _compiled_augment as compiled

    check_crop("mask", mask, np.uint8)
    box = np.empty(6, np.int32)
    compiled.mask_box(mask, box)
    out = np.zeros(mask.shape, np.uint8)
    compiled.spread_box(mask, box, np.float32(1 + edge_voxels), out)
    return out


def output_shape(table: Table, space_to_depth: bool) -> tuple[int, ...]:
    """Return (b, d, h, w, c), or (b, d/2, h/2, w/2, 8 c)."""
    channels = 2 if table.mask_mode == "channel" else 1
    if space_to_depth:
        return len(table.index), *(table.size // 2,) * 3, 8 * channels
    return len(table.index), *(table.size,) * 3, channels


def parameters(table: Table) -> NDArray[np.float32]:
    """Return the table's float columns side by side, float32 (b, 18), as `augment_arith.COLUMNS` has them."""
    columns = (table.low_hu, table.width_hu, table.gamma, table.gain, table.bias, table.noise_sigma)
    matrix = table.matrix.reshape(-1, 12)
    return np.concatenate([matrix, np.stack(columns, axis=1)], axis=1).astype(np.float32, copy=False)


def grids(table: Table) -> tuple[NDArray[np.float32], np.float32]:
    """Return the elastic grids (b, 3, g, g, g), g = 1 for none, and control points per patch voxel."""
    if table.elastic is None:
        return np.zeros((len(table.index), 3, 1, 1, 1), np.float32), np.float32(0)
    points = table.elastic.shape[-1]
    return table.elastic, np.float32((points - 3) / max(table.size - 1, 1))


def check_table(table: Table, space_to_depth: bool) -> None:
    """Raise ValueError, with the field's name, on a table that breaks the contract."""
    b = len(table.index)
    if not 1 <= table.size <= MAX_SIZE or (space_to_depth and table.size % 2):
        even = "even and " if space_to_depth else ""
        raise ValueError(f"`size` must be {even}1 to {MAX_SIZE} voxels, got {table.size}")
    if table.mask_mode not in MODES:
        raise ValueError(f"`mask_mode` must be one of {', '.join(MODES)}, got {table.mask_mode}")
    if not 0 <= table.edge_voxels <= MAX_EDGE_VOXELS:
        raise ValueError(f"`edge_voxels` must be 0 to {MAX_EDGE_VOXELS:g}, got {table.edge_voxels}")
    shapes: dict[str, tuple[int, ...]] = {"matrix": (b, 3, 4)} | dict.fromkeys(_SCALARS, (b,))
    if table.elastic is not None:
        g = table.elastic.shape[-1]
        shapes["elastic"] = (b, 3, g, g, g)
        if g < MIN_POINTS:
            raise ValueError(f"`elastic` must have at least {MIN_POINTS} points a side, got {g}")
    for name, shape in shapes.items():
        values = getattr(table, name)
        if values.shape != shape or values.dtype != np.float32 or not values.flags.c_contiguous:
            raise ValueError(f"`{name}` must be C-contiguous float32 {shape}")
        if not np.isfinite(values).all():
            raise ValueError(f"`{name}` must be finite")
    if table.noise_key.shape != (b,) or table.noise_key.dtype != np.uint64:
        raise ValueError(f"`noise_key` must be uint64 ({b},)")
    if (table.width_hu < 0).any() or (table.noise_sigma < 0).any():
        raise ValueError("`width_hu` and `noise_sigma` must not be negative")
    if (table.gamma <= 0).any() or ((table.gamma != 1) & (table.width_hu == 0)).any():
        raise ValueError("`gamma` must be above 0, and 1 where there is no window")


_STRAIGHT = np.zeros((3, 1, 1, 1), np.float32)
_SCALARS = ("low_hu", "width_hu", "gamma", "gain", "bias", "noise_sigma")


def check_crop(name: str, crop: NDArray[Any], dtype: type[np.generic]) -> None:
    """Raise ValueError on a crop that the kernels cannot read."""
    if crop.ndim != 3 or not 0 < crop.size <= MAX_VOXELS or crop.dtype != dtype:
        raise ValueError(f"`{name}` must be non-empty {np.dtype(dtype)} zyx, got {crop.dtype} {crop.shape}")
    if not crop.flags.c_contiguous:
        raise ValueError(f"`{name}` must be C-contiguous")

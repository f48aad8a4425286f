"""The augmentation table as a DALI pipeline: what goes in, and which operators make what comes out.

DALI's ``warp_affine`` wants the matrix in the order x, y, z and has voxel centres at a half; with a
``fill_value`` each of the eight neighbours outside the crop takes it, as the table says. On the CPU it
steps along x by addition, so positions there drift by up to half a last digit a voxel.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.augment import check_crop, check_table
from toolkit.errors import Problem, UsageError
from toolkit.loading.augment import AugmentConfig
from toolkit.loading.dali_noise import normals, round_keys
from toolkit.loading.table import AugmentTable, MaskMode

AIR_HU = -1024.0
HALF = 127.5  # of a mask's 255


@dataclass(frozen=True)
class Chain:
    """Which operators a pipeline has, beside the warp.

    Attributes
    ----------
    size
        Voxels along each side of the patch.
    mask_mode
        As in the table.
    window, gamma, noise
        Whether any row may have one; a row without is left as it is.
    half
        float16 out, else float32.
    space_to_depth
        Cells of 2x2x2 voxels become channels in order (dz, dy, dx, c).
    """

    size: int
    mask_mode: MaskMode = "none"
    window: bool = True
    gamma: bool = True
    noise: bool = True
    half: bool = False
    space_to_depth: bool = False


def chain_for(config: AugmentConfig, size: int, *, half: bool = False, space_to_depth: bool = False) -> Chain:
    """Return the chain that every row of a configuration can go through.

    Raises `UsageError` E-LOAD-022, with the field's name, on what DALI has no operator for.
    """
    refuse_unavailable(elastic_amplitude_mm=config.elastic_amplitude_mm, edge_mm=config.edge_mm)
    return Chain(
        size,
        config.mask_mode,
        window=config.window_hu is not None,
        gamma=config.gamma != (1, 1),
        noise=config.noise_sigma[1] > 0,
        half=half,
        space_to_depth=space_to_depth,
    )


def chain_of(table: AugmentTable) -> Chain:
    """Return the shortest chain that does what a table asks."""
    window, gamma = bool(table.width_hu.any()), bool((table.gamma != 1).any())
    return Chain(table.size, table.mask_mode, window, gamma, bool(table.noise_sigma.any()))


def refuse_unavailable(**asked: float) -> None:
    """Raise `UsageError` E-LOAD-022, with the fields' names, where one of them is not 0."""
    fields = " and ".join(name for name, value in asked.items() if value)
    if fields:
        action = f"Nothing done; set {fields} to 0, or take the fused loader"
        measured = ", ".join(f"{name} {value:g}" for name, value in asked.items() if value)
        raise UsageError(Problem("E-LOAD-022", "DALI has no such operation", measured, "0", action))


def inputs(
    chain: Chain, table: AugmentTable, images: Sequence[NDArray[np.int16]], masks: Sequence[NDArray[np.uint8]]
) -> dict[str, Any]:
    """Return what a pipeline is fed with for one batch: by name, one array or one array a sample.

    `images` and `masks` (not looked at without a mask mode) are (s, s, s), one for each row; they are
    passed on as they are, without a copy.

    Raises
    ------
    UsageError
        E-LOAD-022 where the table asks for what DALI does not have.
    ValueError
        Where the table breaks its contract, or needs an operator that the chain does not have.
    """
    _check_fits(chain, table)
    fed: dict[str, Any] = {"image": _with_channel("images", images, np.int16)}
    fed |= {"matrix": dali_matrix(table.matrix), "gain": table.gain, "bias": table.bias}
    if chain.mask_mode != "none":
        fed["mask"] = _with_channel("masks", masks, np.uint8)
    if chain.window:
        none = table.width_hu == 0  # (hu - 0) / 1, without bounds, is hu to the last bit
        fed["low"] = np.where(none, np.float32(0), table.low_hu)
        fed["width"] = np.where(none, np.float32(1), table.width_hu)
        fed["floor"] = np.where(none, np.float32(-np.inf), np.float32(0))
        fed["ceiling"] = np.where(none, np.float32(np.inf), np.float32(1))
    if chain.gamma:
        fed["gamma"] = table.gamma
    if chain.noise:
        fed |= {"sigma": table.noise_sigma, "keys": round_keys(table.noise_key)}
    return fed


def _check_fits(chain: Chain, table: AugmentTable) -> None:
    """Raise as `inputs` says."""
    largest = 0.0 if table.elastic is None else float(np.abs(table.elastic).max(initial=0))
    refuse_unavailable(elastic=largest, edge_voxels=table.edge_voxels)
    check_table(table, chain.space_to_depth)
    needed = chain_of(table)
    for field in ("size", "mask_mode"):
        if getattr(needed, field) != getattr(chain, field):
            raise ValueError(f"`{field}` must be {getattr(chain, field)}, got {getattr(needed, field)}")
    for field in ("window", "gamma", "noise"):
        if getattr(needed, field) and not getattr(chain, field):
            raise ValueError(f"a row has {field}, which this pipeline was built without")


def dali_matrix(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn matrices (b, 3, 4), voxel zyx to voxel zyx, into DALI's: xyz, centres at a half.

    With q = t + 0.5 and DALI reading at M q + c - 0.5, c is the offset plus 0.5 less the row sums over two.
    """
    turned = matrix[:, ::-1, [2, 1, 0, 3]].astype(np.float64)
    turned[:, :, 3] += 0.5 - turned[:, :, :3].sum(axis=2) / 2
    return np.ascontiguousarray(turned, np.float32)


def build(
    chain: Chain,
    source: Callable[[], dict[str, Any]],
    *,
    batch: int,
    threads: int,
    device_id: int | None,
    depth: int,
) -> Any:
    """Build a `nvidia.dali.Pipeline` that asks `source` for its `inputs`, ahead by `depth` batches.

    `source` raises StopIteration at the end; what it hands out must live until its batch has come out.
    Without a `device_id` everything runs on the CPU, and no GPU or driver is needed.

    Raises `UsageError` E-LOAD-021 where DALI is not installed.
    """
    pipeline = load_dali().Pipeline(batch, threads, device_id, prefetch_queue_depth=depth)
    with pipeline:
        pipeline.set_outputs(_output(chain, _sources(chain, source, gpu=device_id is not None)))
    pipeline.build()
    return pipeline


def _sources(chain: Chain, source: Callable[[], dict[str, Any]], *, gpu: bool) -> dict[str, Any]:
    """Return the input nodes by name; all but the matrix, an argument, lie on the device of the work."""
    from nvidia.dali import fn, types

    kinds = dict.fromkeys(("gain", "bias"), (types.FLOAT, 0, ""))
    kinds |= {"image": (types.INT16, 4, "DHWC"), "matrix": (types.FLOAT, 2, "")}
    if chain.mask_mode != "none":
        kinds["mask"] = (types.UINT8, 4, "DHWC")
    if chain.window:
        kinds |= dict.fromkeys(("low", "width", "floor", "ceiling"), (types.FLOAT, 0, ""))
    if chain.gamma:
        kinds["gamma"] = (types.FLOAT, 0, "")
    if chain.noise:
        kinds |= {"sigma": (types.FLOAT, 0, ""), "keys": (types.UINT64, 2, "")}
    names = [*kinds]

    def ordered() -> tuple[Any, ...]:
        fed = source()
        return tuple(fed[name] for name in names)

    dtypes, dims, layouts = (list(part) for part in zip(*kinds.values(), strict=True))
    nodes = fn.external_source(
        ordered, num_outputs=len(names), no_copy=True, dtype=dtypes, ndim=dims, layout=layouts
    )
    found = dict(zip(names, nodes, strict=True))
    return {name: node.gpu() if gpu and name != "matrix" else node for name, node in found.items()}


def _output(chain: Chain, fed: dict[str, Any]) -> Any:
    """Return the node of the finished patch, (d, h, w, c) or (d/2, h/2, w/2, 8 c)."""
    from nvidia.dali import fn, math, types

    def warp(node: Any, outside: float) -> Any:
        side = [chain.size] * 3
        return fn.warp_affine(node, matrix=fed["matrix"], size=side, dtype=types.FLOAT, fill_value=outside)

    v = warp(fed["image"], AIR_HU)
    if chain.window:
        v = math.clamp((v - fed["low"]) / fed["width"], fed["floor"], fed["ceiling"])
    if chain.gamma:
        v = v ** fed["gamma"]
    v = v * fed["gain"] + fed["bias"]
    if chain.noise:
        v = v + fed["sigma"] * normals(fed["keys"], chain.size)
    if chain.mask_mode != "none":
        inside = warp(fed["mask"], 0.0)
        if chain.mask_mode == "hard":
            v = v * (inside >= HALF)
        elif chain.mask_mode == "soft":
            v = v * (inside / 255.0)
        else:
            v = fn.cat(v, inside / 255.0, axis=3)
    if chain.half:
        v = fn.cast(v, dtype=types.FLOAT16)
    return _halved(v, chain) if chain.space_to_depth else v


def _halved(v: Any, chain: Chain) -> Any:
    """Move cells of 2x2x2 voxels into the channels: one more pass over the patch, on DALI's threads."""
    from nvidia.dali import fn

    side, channels = chain.size // 2, 2 if chain.mask_mode == "channel" else 1
    cells = fn.reshape(v, shape=[side, 2, side, 2, side, 2, channels], layout="")
    moved = fn.transpose(cells, perm=[0, 2, 4, 1, 3, 5, 6])
    return fn.reshape(moved, shape=[side, side, side, 8 * channels], layout="DHWC")


def _with_channel(name: str, crops: Sequence[NDArray[Any]], dtype: type[np.generic]) -> list[NDArray[Any]]:
    """Return views (s, s, s, 1) of crops."""
    for crop in crops:
        check_crop(name, crop, dtype)
    return [crop[..., None] for crop in crops]


def load_dali() -> Any:
    """Import DALI; raise `UsageError` E-LOAD-021 where it is not installed."""
    try:
        import nvidia.dali as dali
    except ImportError as error:
        action = "Nothing done; install the extra cu12 or cu13 (no GPU needed), or take the fused loader"
        raise UsageError(Problem("E-LOAD-021", "DALI is not installed", action=action)) from error
    return dali

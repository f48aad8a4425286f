"""Draws the rows of a table: each is a function of (seed, epoch, draw number) and nothing else.

The counter of Philox 4x32 is (draw number, block, epoch), its key the seed: whoever asks, in whatever order,
with whatever neighbours, gets the same row. Every operation has columns of its own among the uniform numbers,
so that switching one on or off leaves the others as they were.

From the patch to the crop: flip, scale, shear and rotation about the middle of the patch, which lies (but
for the shift) on the middle of the crop, to a whole voxel. Matrices are multiplied in float64.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels import rng
from toolkit.errors import Problem, UsageError
from toolkit.loading.augment import LARGEST_EDGE_VOXELS, AugmentConfig
from toolkit.loading.table import AugmentTable

Array = NDArray[np.float64]

# columns of uniform numbers
_AXIS, _ANGLE, _SCALE, _ANISOTROPIC, _SHEAR, _FLIP, _SHIFT = 0, 2, 3, 4, 7, 13, 16
_WINDOW, _GAMMA, _GAIN, _BIAS, _SIGMA, _GATES, _COLUMNS = 19, 21, 22, 23, 24, 25, 36
_KEY_BLOCK, _ELASTIC_BLOCK = 63, 64
_OFF_DIAGONAL = ([0, 0, 1, 1, 2, 2], [1, 2, 0, 2, 0, 1])
_OPERATIONS = (
    "rotation", "scale", "anisotropic_scale", "shear", "shift", "elastic",
    "window", "gamma", "gain", "bias", "noise",
)  # fmt: skip


@dataclass(frozen=True)
class CropGeometry:
    """Stored crops and the patch taken from them.

    Attributes
    ----------
    side
        Voxels along each side of a stored crop, with its margins.
    size
        Voxels along each side of the patch; at most `side`.
    spacing_mm
        Isotropic voxel spacing of both.

    Raises
    ------
    UsageError
        E-AUG-003 where the patch does not fit.
    """

    side: int
    size: int
    spacing_mm: float

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.side:
            action = "Nothing done; choose a smaller size or preprocess again with a larger one"
            raise UsageError(
                Problem(
                    "E-AUG-003", "size is wrong", f"{self.size} voxels", f"1 to {self.side} voxels", action
                )
            )


def draw(
    config: AugmentConfig,
    geometry: CropGeometry,
    index: NDArray[np.int64],
    seed: int,
    epoch: int,
    draw_number: NDArray[np.int64],
) -> AugmentTable:
    """Return the table of a batch.

    Parameters
    ----------
    config, geometry
        What may happen, to which crops.
    index
        int64 (b,): which crop of the store.
    seed, epoch
        Of the run; 0 to 2^64 - 1 and 0 to 2^32 - 1.
    draw_number
        int64 (b,): the number of the sample in the epoch, the same for every layout of ranks and workers.

    Raises
    ------
    UsageError
        E-AUG-001 where `edge_mm` is more than the kernels' 15 voxels.
    """
    edge_voxels = config.edge_mm / geometry.spacing_mm
    if edge_voxels > LARGEST_EDGE_VOXELS:
        most = f"at most {LARGEST_EDGE_VOXELS * geometry.spacing_mm:g} mm ({LARGEST_EDGE_VOXELS:g} voxels)"
        action = "Nothing done; correct the configuration"
        raise UsageError(Problem("E-AUG-001", "setting edge_mm is wrong", f"{config.edge_mm}", most, action))
    u = _uniforms(seed, epoch, draw_number)
    on = {name: u[:, _GATES + k] < getattr(config.probability, name) for k, name in enumerate(_OPERATIONS)}
    low, width = _windows(config, u, on)
    return AugmentTable(
        index=np.ascontiguousarray(index, np.int64),
        matrix=_matrices(config, geometry, u, on).astype(np.float32),
        low_hu=low.astype(np.float32),
        width_hu=width.astype(np.float32),
        gamma=_where(on["gamma"], _log_between(*config.gamma, u[:, _GAMMA]), 1),
        gain=_where(on["gain"], _between(*config.gain, u[:, _GAIN]), 1),
        bias=_where(on["bias"], _between(*config.bias, u[:, _BIAS]), 0),
        noise_sigma=_where(on["noise"], _between(*config.noise_sigma, u[:, _SIGMA]), 0),
        noise_key=_keys(seed, epoch, draw_number),
        elastic=_elastic(config, geometry, seed, epoch, draw_number, on["elastic"]),
        size=geometry.size,
        mask_mode=config.mask_mode,
        edge_voxels=edge_voxels,
    )


def _words(
    seed: int, epoch: int, draw_number: NDArray[np.int64], first: int, blocks: int
) -> NDArray[np.uint64]:
    """Return the words of some blocks of every draw, each below 2^32, (b, 4 blocks)."""
    number = draw_number.astype(np.uint64)[:, None]
    block = np.arange(first, first + blocks, dtype=np.uint64)[None]
    low, high = number & np.uint64(0xFFFFFFFF), number >> np.uint64(32)
    counter = np.broadcast_arrays(low, high, block, np.uint64(epoch))
    key = np.uint64(seed & 0xFFFFFFFF), np.uint64((seed >> 32) & 0xFFFFFFFF)
    words = np.stack(rng.rounds.py_func(*counter, *key), axis=-1)
    return np.asarray(words.reshape(len(draw_number), 4 * blocks), np.uint64)


def _uniforms(seed: int, epoch: int, draw_number: NDArray[np.int64]) -> Array:
    """Return numbers in [0, 1) with 53 random bits, (b, columns)."""
    words = _words(seed, epoch, draw_number, 0, _COLUMNS // 2)
    bits = (words[:, 0::2] >> np.uint64(5) << np.uint64(26)) | (words[:, 1::2] >> np.uint64(6))
    return np.asarray(bits * 2.0**-53, np.float64)


def _keys(seed: int, epoch: int, draw_number: NDArray[np.int64]) -> NDArray[np.uint64]:
    words = _words(seed, epoch, draw_number, _KEY_BLOCK, 1)
    return np.asarray(words[:, 0] << np.uint64(32) | words[:, 1], np.uint64)


def _between(low: float, high: float, u: Array) -> Array:
    return low + (high - low) * u


def _log_between(low: float, high: float, u: Array) -> Array:
    return np.asarray(low * (high / low) ** u)


def _where(on: NDArray[np.bool_], values: Array, otherwise: float) -> NDArray[np.float32]:
    return np.where(on, values, otherwise).astype(np.float32)


def _windows(config: AugmentConfig, u: Array, on: dict[str, NDArray[np.bool_]]) -> tuple[Array, Array]:
    """Return low end and width of each window; width 0 for none."""
    if config.window_hu is None:
        return np.zeros(len(u)), np.zeros(len(u))
    jitter = config.window_jitter_hu * on["window"][:, None] * (2 * u[:, _WINDOW : _WINDOW + 2] - 1)
    ends = np.array(config.window_hu) + jitter
    return ends[:, 0], ends[:, 1] - ends[:, 0]


def _matrices(
    config: AugmentConfig, geometry: CropGeometry, u: Array, on: dict[str, NDArray[np.bool_]]
) -> Array:
    """Return patch voxel to crop voxel, (b, 3, 4)."""
    b = len(u)
    flip = np.where(u[:, _FLIP : _FLIP + 3] < np.array(config.flip_probability), -1.0, 1.0)
    scale = np.where(on["scale"], _log_between(*config.scale, u[:, _SCALE]), 1.0)[:, None]
    a = config.anisotropic_scale
    each = _log_between(1 / a, a, u[:, _ANISOTROPIC : _ANISOTROPIC + 3])
    each = np.where(on["anisotropic_scale"][:, None], each, 1.0)
    shear = np.tile(np.eye(3), (b, 1, 1))
    entries = config.shear * (2 * u[:, _SHEAR : _SHEAR + 6] - 1) * on["shear"][:, None]
    shear[:, _OFF_DIAGONAL[0], _OFF_DIAGONAL[1]] = entries
    # a nodule grows where a step of the patch is a shorter step in the crop
    linear = _rotations(config, u, on["rotation"]) @ shear * (flip / (scale * each))[:, None, :]
    middle = (geometry.size - 1) / 2
    shift = config.shift_mm / geometry.spacing_mm * (2 * u[:, _SHIFT : _SHIFT + 3] - 1)
    center = middle + (geometry.side - geometry.size) // 2 + shift * on["shift"][:, None]
    offset = center - linear @ np.full(3, middle)
    return np.concatenate([linear, offset[:, :, None]], axis=2)


def _rotations(config: AugmentConfig, u: Array, on: NDArray[np.bool_]) -> Array:
    """Return rotations about axes that are uniform on the sphere, (b, 3, 3), by Rodrigues' formula."""
    height, turn = 2 * u[:, _AXIS] - 1, 2 * np.pi * u[:, _AXIS + 1]
    radius = np.sqrt(1 - height**2)
    axis = np.stack([height, radius * np.cos(turn), radius * np.sin(turn)], axis=1)
    angle = (np.deg2rad(config.rotation_degrees) * u[:, _ANGLE] * on)[:, None, None]
    cross = np.zeros((len(u), 3, 3))
    cross[:, [2, 0, 1], [1, 2, 0]] = axis
    cross[:, [1, 2, 0], [2, 0, 1]] = -axis
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross))


def _elastic(
    config: AugmentConfig,
    geometry: CropGeometry,
    seed: int,
    epoch: int,
    draw_number: NDArray[np.int64],
    on: NDArray[np.bool_],
) -> NDArray[np.float32] | None:
    """Return control points, (b, 3, g, g, g) crop voxels, uniform; 16 random bits each."""
    if not config.elastic_amplitude_mm:
        return None
    extent_mm = (geometry.size - 1) * geometry.spacing_mm
    points = max(1, round(extent_mm / config.elastic_spacing_mm)) + 3
    count, b = 3 * points**3, len(draw_number)
    words = _words(seed, epoch, draw_number, _ELASTIC_BLOCK, -(-count // 8))
    halves = np.stack([words & np.uint64(0xFFFF), words >> np.uint64(16)], axis=-1).reshape(b, -1)[:, :count]
    amplitude = config.elastic_amplitude_mm / geometry.spacing_mm * on[:, None]
    grid = ((halves + 0.5) / 32768 - 1) * amplitude
    return grid.reshape(b, 3, points, points, points).astype(np.float32)

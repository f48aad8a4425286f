"""Crops and tables that every back end of augmentation must get right."""

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from toolkit.loading.table import AugmentTable

SIZES = (1, 2, 5, 8, 13)
SIMULATED_SIZE = 4
SHAPE = (9, 7, 11)
CENTER = (np.array(SHAPE) - 1) / 2
SOME_WINDOW: dict[str, Any] = {"low_hu": -1000, "width_hu": 1400}

Batch = tuple[np.ndarray, np.ndarray, AugmentTable]


def matrix(
    size: int, degrees: float = 0, scale: Any = 1.0, shift: Any = 0.0, shear: float = 0.0
) -> np.ndarray:
    """Return a patch about the middle of the crop, turned about a skew axis."""
    turn = (
        Rotation.from_rotvec(np.deg2rad(degrees) * np.array([2, -1, 2]) / 3).as_matrix()
        if degrees
        else np.eye(3)
    )
    linear = turn @ np.array([[1, shear, 0], [0, 1, -shear], [0, 0, 1]]) * np.asarray(scale)
    return np.column_stack([linear, CENTER + shift - linear @ np.full(3, (size - 1) / 2)])


def table(matrices: Any, size: int, **columns: Any) -> AugmentTable:
    """Return a table with a row for each matrix; a scalar column holds for every row."""
    matrices = np.asarray(matrices, np.float32)
    b = len(matrices)
    fields = dict.fromkeys(("low_hu", "width_hu", "bias", "noise_sigma"), 0.0) | {"gamma": 1.0, "gain": 1.0}
    fields |= {name: columns.pop(name) for name in list(columns) if name in fields}
    return AugmentTable(
        index=np.arange(b),
        matrix=matrices,
        noise_key=np.arange(b).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15),
        elastic=columns.pop("elastic", None),
        size=size,
        **{name: np.broadcast_to(np.float32(v), (b,)).copy() for name, v in fields.items()},
        **columns,
    )


def crops(b: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return white noise (the hardest data), and masks with empty margins and all shares."""
    rng = np.random.default_rng(seed)
    images = rng.integers(-1024, 3072, (b, *SHAPE)).astype(np.int16)
    masks = np.zeros((b, *SHAPE), np.uint8)
    masks[:, 2:7, 2:5, 3:9] = rng.integers(0, 256, (b, 5, 3, 6))
    masks[:, 3:5, 3, 4:7] = 255
    return images, masks


def cases(size: int) -> dict[str, Batch]:
    """Return named batches of two rows."""
    rng = np.random.default_rng(size)
    images, masks = crops(2)
    still = matrix(size, shift=(0.313, -0.221, 0.417))
    turned = matrix(size, 24, (0.9, 1.15, 0.8), (0.4, -0.6, 0.2), 0.1)
    both = [turned, matrix(size, -170, -1.0, (-0.3, 0.2, 0.1))]
    grid = rng.normal(0, 1.5, (2, 3, 5, 5, 5)).astype(np.float32)
    least = rng.normal(0, 1.5, (2, 3, 4, 4, 4)).astype(np.float32)
    whole = np.eye(3, 4)
    tables = {
        "identity": table([whole, whole + np.eye(3, 4, 3) * 2], size),
        "shift": table([still, still], size),
        "rotation": table([matrix(size, 31), matrix(size, -77)], size),
        "scale": table([matrix(size, 0, 0.7), matrix(size, 0, (1.4, 0.6, 1.1))], size),
        "shear": table([matrix(size, 0, 1, 0.2, 0.3)] * 2, size),
        "flip": table([matrix(size, 0, (-1, 1, 1)), matrix(size, 0, (1, -1, -1))], size),
        "border": table([matrix(size, 10, 1, (4.1, -3.3, 5.2)), matrix(size, 10, 1, -4.4)], size),
        "outside": table([matrix(size, 10, 1, 1e4), matrix(size, 10, 1, (0, -1e30, 0))], size),
        "elastic": table(both, size, elastic=grid),
        "elastic_least": table(both, size, elastic=least),
        "window": table(both, size, **SOME_WINDOW),
        "gamma": table(both, size, **SOME_WINDOW, gamma=[0.4, 2.2]),
        "gain_bias": table(both, size, gain=[1.3, -0.7], bias=[0.1, -20]),
        "noise": table(both, size, **SOME_WINDOW, noise_sigma=[0.1, 0]),
        "hard": table(both, size, mask_mode="hard"),
        "soft": table(both, size, **SOME_WINDOW, mask_mode="soft"),
        "channel": table(both, size, mask_mode="channel"),
        "edge": table(both, size, mask_mode="channel", edge_voxels=1.6),
    }
    everything = table(
        both, size, **SOME_WINDOW, gamma=[0.7, 1.6], gain=1.1, bias=0.05, noise_sigma=[0.2, 0.1],
        elastic=grid, mask_mode="soft", edge_voxels=0.8,
    )  # fmt: skip
    tables["everything"] = everything
    tables["everything_channel"] = replace(everything, mask_mode="channel")
    tables["everything_hard"] = replace(everything, mask_mode="hard")
    return {name: (images, masks, each) for name, each in tables.items()}


CASES = tuple(cases(1))

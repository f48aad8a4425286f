"""Measured features of a nodule: what a network may fuse at its last layer, and what domain warnings look at.

=============== ====================================================================================
``diameter``    ln of the diameter in mm: of the sphere of the mask's volume, or as stated for a point
``volume``      ln of the volume in mm3: of the mask, or of the sphere of a stated diameter
``mean_hu``     mean HU of the nodule's voxels, each weighted by how much of it is nodule
``solid_share`` share of the nodule, weighted alike, at or above -300 HU
=============== ====================================================================================

Where there is no mask, the voxels are those of the sphere of the stated diameter around the crop's centre.
What cannot be measured is NaN. At -300 HU software finds the solid part of subsolid nodules with 90 %
sensitivity and 88 % specificity against radiologists (Scholten et al., Eur Radiol 2015, 25:488-496).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import Problem, UsageError
from toolkit.store import Nodule, Store

FEATURES = ("diameter", "volume", "mean_hu", "solid_share")
SOLID_HU = -300


def check_features(names: Iterable[str]) -> None:
    """Raise `UsageError` E-MODEL-004 on a name that is no feature, or that comes twice."""
    names = tuple(names)
    for name in names:
        if name not in FEATURES or names.count(name) > 1:
            what = f"a measured feature {'comes twice' if name in FEATURES else 'is unknown'}"
            expected = ", ".join(FEATURES)
            raise UsageError(Problem("E-MODEL-004", what, f"{name!r:.60}", expected, "Nothing done"))


def measure(
    store: Store,
    index: NDArray[np.int64],
    names: Sequence[str],
    progress: Callable[[int], object] | None = None,
) -> NDArray[np.float64]:
    """Return features of n crops of a store, float64 (n, k); `progress` is told after each how many are done.

    Raises `UsageError` E-MODEL-004 on an unknown name.
    """
    found = np.empty((len(index), len(names)))
    for row, i in enumerate(index.tolist()):
        found[row] = measure_crop(store.nodules[i], store.image(i), store.mask(i), store.spacing_mm, names)
        if progress is not None:
            progress(1)
    return found


def measure_crop(
    nodule: Nodule,
    image: NDArray[np.int16],
    mask: NDArray[np.uint8],
    spacing_mm: float,
    names: Sequence[str],
) -> NDArray[np.float64]:
    """Return features of one crop, margin included, float64 (k,).

    Parameters
    ----------
    nodule
        Its diameter and volume, and whether it has a mask.
    image, mask
        (s, s, s) HU, and share of the voxel that is nodule, 0-255.
    spacing_mm
        Isotropic voxel spacing.
    """
    check_features(names)
    diameter, volume = nodule.diameter_mm, nodule.volume_mm3
    if volume is None and diameter is not None:
        volume = math.pi / 6 * diameter**3
    found = {"diameter": _log(diameter), "volume": _log(volume), "mean_hu": math.nan, "solid_share": math.nan}
    if "mean_hu" in names or "solid_share" in names:
        if nodule.mask_source != "none":
            where, weight = _of_mask(mask)
        else:
            where, weight = _of_sphere(image.shape[0], (diameter or 0.0) / spacing_mm)
        total = weight.sum()
        if total > 0:
            hu = image.reshape(-1)[where].astype(np.float64)
            found["mean_hu"] = float((weight * hu).sum() / total)
            found["solid_share"] = float(weight[hu >= SOLID_HU].sum() / total)
    return np.array([found[name] for name in names], np.float64)


def _of_mask(mask: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    flat = mask.reshape(-1)
    where = np.flatnonzero(flat)
    return where, flat[where].astype(np.float64)


def _of_sphere(side: int, diameter: float) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return voxels and weights of a sphere at the centre; its edge is one voxel wide, as a mask's is."""
    half = min(side, 2 * math.ceil(diameter / 2 + 1) + side % 2)
    first = (side - half) // 2
    axis = np.arange(first, first + half)
    squared = (axis - (side - 1) / 2) ** 2
    distance = np.sqrt(squared[:, None, None] + squared[:, None] + squared)
    weight = np.clip(diameter / 2 + 0.5 - distance, 0, 1) if diameter > 0 else np.zeros_like(distance)
    where = (axis[:, None, None] * side + axis[:, None]) * side + axis
    inside = weight > 0
    return where[inside], weight[inside]


def _log(value: float | None) -> float:
    return math.log(value) if value is not None and 0 < value < math.inf else math.nan


@dataclass(frozen=True)
class Scaling:
    """How k features are brought to mean 0 and deviation 1 of the nodules that trained."""

    names: tuple[str, ...]
    center: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def fit(cls, names: Sequence[str], values: NDArray[np.float64]) -> "Scaling":
        """Return mean and standard deviation of the known values of each column of (n, k).

        A feature that is nowhere known, or the same everywhere, has a scale of 1.
        """
        check_features(names)
        center, scale = [], []
        for column in values.T:
            known = column[np.isfinite(column)]
            deviation = float(known.std()) if len(known) else 0.0
            center.append(float(known.mean()) if len(known) else 0.0)
            scale.append(deviation if deviation > 1e-9 * max(1.0, abs(center[-1])) else 1.0)
        return cls(tuple(names), tuple(center), tuple(scale))

    @classmethod
    def of(cls, names: Sequence[str], stored: Mapping[str, tuple[float, float]]) -> "Scaling":
        """Return the scaling that `ModelFile.measured` holds, in the order of `names`."""
        return cls(tuple(names), *(tuple(stored[name][part] for name in names) for part in (0, 1)))

    @property
    def stored(self) -> dict[str, tuple[float, float]]:
        """(center, scale) by name, as `ModelFile.measured` holds them."""
        each = zip(self.names, self.center, self.scale, strict=True)
        return {name: (center, scale) for name, center, scale in each}

    def apply(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return scaled features, float32 (n, k); what is unknown is at the centre, 0."""
        scaled = (values - np.array(self.center)) / np.array(self.scale)
        return np.where(np.isfinite(scaled), scaled, 0.0).astype(np.float32)

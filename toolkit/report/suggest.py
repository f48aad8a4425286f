"""Which spacing, size and margin would fit the nodules of a store, and what that would change."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FIT = 0.99  # share of nodules that must lie in the crop
CONTEXT_MM = 5.0  # seen on each side of the largest of them
ACROSS = 6  # voxels across the smallest nodules, the fifth percentile
SMALL = 0.05
MULTIPLE = 8  # sizes that a network can halve three times
FINEST_MM, COARSEST_MM = 0.5, 2.0  # where the scans' own spacing is unknown; never coarser
LARGEST = 512  # voxels; the most that preprocess accepts
BYTES_PER_VOXEL = 3  # int16 image, uint8 mask

MarginOf = Callable[[int, float], int]


@dataclass(frozen=True)
class Extent:
    """One nodule: how far it goes from its crop's centre along an axis, its diameter, its volume."""

    reach_mm: float
    diameter_mm: float
    volume_mm3: float


@dataclass(frozen=True)
class Crop:
    """Crop settings: isotropic spacing (mm), size and margin (voxels)."""

    spacing_mm: float
    size: int
    margin: int

    @property
    def size_mm(self) -> float:
        """Side of the crop without its margin."""
        return self.size * self.spacing_mm


@dataclass(frozen=True)
class Option:
    """Crop settings and what they would mean for the nodules at hand.

    Attributes
    ----------
    cut_share
        Share of nodules that would not fit, context apart.
    background
        Median share of the crop that is not nodule.
    across
        Voxels across the nodule at the fifth percentile of diameters.
    stored_bytes
        For all nodules, margins included.
    cost
        Voxels that a network sees for each crop, relative to this store.
    """

    name: str
    crop: Crop
    cut_share: float
    background: float
    across: float
    stored_bytes: int
    cost: float


@dataclass(frozen=True)
class Advice:
    """What the rule found: the numbers that it used, the store as it is, the suggestion, and others."""

    fit_mm: float
    small_mm: float
    floor_mm: float
    floor_known: bool
    now: Option
    suggested: Option
    others: tuple[Option, ...]


def ball(diameter_mm: float) -> float:
    """Return the volume (mm3) of a sphere."""
    return math.pi / 6 * diameter_mm**3


def suggest(
    extents: Sequence[Extent], now: Crop, margin_of: MarginOf, source_mm: float | None = None
) -> Advice | None:
    """Return crop settings that fit; None without nodules.

    Spacing: the smallest nodules (fifth percentile of diameters) are at least 6 voxels across, but
    never finer than the scans' in-plane spacing, which has no more to give. Size: 99 % of nodules lie
    inside with 5 mm on each side, rounded up to a multiple of 8 voxels. Margin: by `margin_of`.
    """
    if not extents:
        return None
    diameters = [extent.diameter_mm for extent in extents]
    small = float(np.quantile(diameters, SMALL))
    floor = FINEST_MM if source_mm is None else source_mm
    spacing = _step(min(max(small / ACROSS, floor), COARSEST_MM))
    reach = np.array([extent.reach_mm for extent in extents])

    best = _crop(reach, FIT, spacing, margin_of)
    wanted = [
        ("95 % fit", _crop(reach, 0.95, spacing, margin_of)),
        ("all fit", _crop(reach, 1.0, spacing, margin_of)),
        ("coarser voxels", _crop(reach, FIT, _step(1.5 * spacing), margin_of)),
        ("as fine as the scans" if source_mm else "fine voxels", _crop(reach, FIT, _step(floor), margin_of)),
        ("1 mm", _crop(reach, FIT, 1.0, margin_of)),
    ]
    different: dict[Crop, str] = {}
    for name, crop in wanted:
        if crop not in (now, best):
            different.setdefault(crop, name)
    return Advice(
        fit_mm=2 * _fits(reach, FIT),
        small_mm=small,
        floor_mm=floor,
        floor_known=source_mm is not None,
        now=weigh("this store", now, extents, now),
        suggested=weigh("suggested", best, extents, now),
        others=tuple(weigh(name, crop, extents, now) for crop, name in different.items()),
    )


def _fits(reach: NDArray[np.float64], share: float) -> float:
    """Return the reach (mm) that at least this share of nodules does not exceed."""
    return float(np.quantile(reach, share, method="inverted_cdf"))


def _crop(reach: NDArray[np.float64], share: float, spacing_mm: float, margin_of: MarginOf) -> Crop:
    """Return the crop that holds this share of nodules with their context."""
    side = 2 * (_fits(reach, share) + CONTEXT_MM)
    size = min(LARGEST, MULTIPLE * math.ceil(round(side / spacing_mm / MULTIPLE, 9)))
    return Crop(spacing_mm, size, margin_of(size, spacing_mm))


def weigh(name: str, crop: Crop, extents: Sequence[Extent], now: Crop) -> Option:
    """Return what crop settings would mean for some nodules; a nodule fills at most its whole crop."""
    reach = np.array([extent.reach_mm for extent in extents])
    volume = np.array([extent.volume_mm3 for extent in extents])
    small = float(np.quantile([extent.diameter_mm for extent in extents], SMALL))
    return Option(
        name=name,
        crop=crop,
        cut_share=float(np.mean(2 * reach > crop.size_mm + 1e-6)),
        background=float(np.median(1 - np.minimum(1, volume / crop.size_mm**3))),
        across=small / crop.spacing_mm,
        stored_bytes=len(extents) * (crop.size + 2 * crop.margin) ** 3 * BYTES_PER_VOXEL,
        cost=crop.size**3 / now.size**3,
    )


def _step(spacing_mm: float) -> float:
    """Round a spacing down to a multiple of 0.05 mm, but not to nothing."""
    return round(max(0.05, math.floor(round(spacing_mm / 0.05, 6)) * 0.05), 2)

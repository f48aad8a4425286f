"""The shape of a nodule: a star-shaped surface with lobes and spicules, and its voxels."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.phantom.nodule import NoduleParams

Floats = NDArray[np.float32]
AxesMm = tuple[Floats, Floats, Floats]

_POLAR, _AZIMUTH = 120, 240  # 1.5 degrees: 0.4 mm on the largest nodule
_SUBSAMPLE_MM = 0.7  # thick slices are averaged over samples this far apart
_NARROWEST_EDGE_MM = 1.2  # what the sharpest reconstruction kernel leaves of a step
_WIDEST_EDGE_MM = 3.0


@dataclass(frozen=True, eq=False)
class Surface:
    """Distance from the centre to the surface by direction.

    Attributes
    ----------
    radius_mm
        float32 (polar, azimuth), cell centred; polar angle from +z, azimuth from +x to +y.
    largest_mm
        The largest of them.
    spicules_xyz, spicule_weights
        Unit directions (n, 3) of the spicules, and their relative lengths 0 to 1.
    """

    radius_mm: Floats
    largest_mm: float
    spicules_xyz: Floats
    spicule_weights: Floats

    def scaled(self, factor: float) -> "Surface":
        """Return the surface made larger or smaller about its centre."""
        grown = self.radius_mm * np.float32(factor)
        return Surface(grown, self.largest_mm * factor, self.spicules_xyz, self.spicule_weights)


def make_surface(params: NoduleParams) -> Surface:
    """Make the surface; it encloses exactly the volume of a sphere of ``params.diameter_mm``."""
    rng = np.random.default_rng([params.seed, 0])
    directions, solid_angle = _directions()
    base = params.diameter_mm / 2
    stretch = np.exp(rng.uniform(-0.13, 0.13, 3)).astype(np.float32)
    relative = 1 / np.sqrt(((directions / stretch) ** 2).sum(-1))
    gentle = 0.05 * _waves(directions, rng, 2.5, 4)
    relative *= np.exp(gentle + 0.55 * params.lobulation * _lobes(directions, rng))
    count = 5 + round((9 + params.diameter_mm) * params.spiculation)
    spicules = _unit(rng.standard_normal((count, 3)))
    weights = rng.uniform(0.4, 1.0, count).astype(np.float32)
    # A spicule narrower than a voxel would leave no trace on a small nodule.
    width = min(max(0.75 / base, 0.12), 0.32)
    closeness = directions @ spicules.T
    bumps = np.exp((closeness - 1) / width**2) @ weights
    relative += np.float32(0.55 * params.spiculation) * bumps
    volume = float((relative.astype(np.float64) ** 3 * solid_angle).sum()) / 3
    radius = (relative * (base * (4 / 3 * math.pi / volume) ** (1 / 3))).astype(np.float32)
    return Surface(radius, float(radius.max()), spicules, weights)


def occupancy(
    surface: Surface, edge_mm: float, axes_mm: AxesMm, spacing_mm: tuple[float, float, float]
) -> Floats:
    """Return the share of each voxel that the nodule fills, float32 zyx in [0, 1].

    Parameters
    ----------
    edge_mm
        Width over which the edge fades.
    axes_mm
        Voxel centres along z, y and x relative to the nodule's centre.
    spacing_mm
        Voxel size along z, y and x; a voxel is averaged over sub-samples about 0.7 mm apart.
    """
    fine, counts = [], []
    for axis, step in zip(axes_mm, spacing_mm, strict=True):
        count = max(1, math.ceil(step / _SUBSAMPLE_MM - 0.3))
        offsets = ((np.arange(count) + 0.5) / count - 0.5) * step
        fine.append((axis[:, None] + offsets.astype(np.float32)).ravel())
        counts.append(count)
    depth = depth_mm(surface, (fine[0], fine[1], fine[2]))
    share = np.clip(0.5 + depth * np.float32(1 / edge_mm), 0, 1)
    z, y, x = (len(axis) for axis in axes_mm)
    parts = share.reshape(z, counts[0], y, counts[1], x, counts[2])
    mean: Floats = parts.mean(axis=(1, 3, 5), dtype=np.float32)
    return mean


def depth_mm(surface: Surface, axes_mm: AxesMm) -> Floats:
    """Return how far below the surface each point of a grid lies along its ray, float32 zyx."""
    z, y, x = axes_mm[0][:, None, None], axes_mm[1][None, :, None], axes_mm[2][None, None, :]
    distance = np.sqrt(z * z + y * y + x * x)
    polar = np.arccos(np.clip(z / np.maximum(distance, np.float32(1e-6)), -1, 1))
    row = np.minimum((polar * np.float32(_POLAR / math.pi)).astype(np.int32), _POLAR - 1)
    azimuth = np.arctan2(y, x) * np.float32(_AZIMUTH / (2 * math.pi))
    column = np.floor(azimuth).astype(np.int32) % _AZIMUTH
    depth: Floats = surface.radius_mm[row, column] - distance
    return depth


def edge_mm(params: NoduleParams) -> float:
    """Return the width over which the nodule's edge fades."""
    room_mm = min(_WIDEST_EDGE_MM - _NARROWEST_EDGE_MM, params.diameter_mm / 4)
    return _NARROWEST_EDGE_MM + params.blur * room_mm


def _directions() -> tuple[Floats, NDArray[np.float64]]:
    polar = (np.arange(_POLAR) + 0.5) * (math.pi / _POLAR)
    azimuth = (np.arange(_AZIMUTH) + 0.5) * (2 * math.pi / _AZIMUTH)
    ring = np.sin(polar)[:, None]
    height = np.broadcast_to(np.cos(polar)[:, None], (_POLAR, _AZIMUTH))
    directions = np.stack([ring * np.cos(azimuth), ring * np.sin(azimuth), height], axis=-1)
    solid_angle = ring * (2 * math.pi / _AZIMUTH) * (2 * math.sin(math.pi / _POLAR / 2))
    return directions.astype(np.float32), solid_angle


def _waves(directions: Floats, rng: np.random.Generator, frequency: float, count: int) -> Floats:
    axes = _unit(rng.standard_normal((count, 3)))
    phases = rng.uniform(0, 2 * math.pi, count).astype(np.float32)
    waves: Floats = np.cos(np.float32(frequency) * (directions @ axes.T) + phases).sum(-1)
    return waves


def _lobes(directions: Floats, rng: np.random.Generator) -> Floats:
    """Return rounded bulges with creases between them: the largest of several caps."""
    centres = _unit(rng.standard_normal((8, 3)))
    heights = rng.uniform(0.6, 1.0, 8).astype(np.float32)
    caps = heights * np.exp(((directions @ centres.T) - 1) / np.float32(0.25))
    highest: Floats = caps.max(axis=-1)
    return highest


def _unit(vectors: NDArray[np.float64]) -> Floats:
    unit: Floats = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return unit

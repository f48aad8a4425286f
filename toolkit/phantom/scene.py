"""What surrounds the nodules: lung, chest wall with ribs, mediastinum, vessels and noise."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.phantom.vessels import Tube, grow_tree

Floats = NDArray[np.float32]
Axis = NDArray[np.float64]

VESSEL_HU = 35.0
_MUSCLE_HU, _FAT_HU, _BONE_HU = 45.0, -105.0, 320.0
_TABLE_STEP_MM = 0.1
_LUNG_HU_RANGE = (-885.0, -815.0)
_NOISE_HU_RANGE = (18.0, 36.0)


@dataclass(frozen=True, eq=False)
class Scene:
    """A chest without nodules.

    Attributes
    ----------
    spacing_mm
        Along z, y, x; all positions are mm from the centre of voxel (0, 0, 0).
    hu
        float32 zyx, without vessels and noise.
    wall_mm
        float32 zyx: how deep a voxel lies in the wall or mediastinum; negative in the lung, where it
        is the distance to the pleura (exact to some 10 %).
    tubes
        The vessels.
    """

    spacing_mm: tuple[float, float, float]
    hu: Floats
    wall_mm: Floats
    tubes: tuple[Tube, ...]


def make_scene(
    rng: np.random.Generator, shape_zyx: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> Scene:
    """Make the chest around one lung: wall at one side and behind, mediastinum at the other.

    Parameters
    ----------
    shape_zyx, spacing_mm
        Of the volume to fill.
    """
    z, y, x = (_axis(n, s) for n, s in zip(shape_zyx, spacing_mm, strict=True))
    size = (float(z[-1]), float(y[-1]), float(x[-1]))
    left_lung = bool(rng.random() < 0.5)
    lateral = x if left_lung else size[2] - x  # mm from the medial edge of the field of view
    outer = _outer_wall_mm(rng, z, y, lateral, size)
    inner, hilum = _mediastinum_mm(rng, z, y, lateral, size)
    hu = np.maximum(_chest_wall_hu(rng, outer, z, y), _lookup(inner, _mediastinum_table()))
    np.maximum(hu, _lung_hu(rng, shape_zyx, spacing_mm), out=hu)
    if not left_lung:
        hilum[2] = size[2] - hilum[2]
    tubes = _vessels(rng, hilum, np.array(size), 1.0 if left_lung else -1.0)
    return Scene(spacing_mm, hu, np.maximum(outer, inner), tuple(tubes))


def noise_hu(rng: np.random.Generator, shape_zyx: tuple[int, int, int]) -> Floats:
    """Return image noise, float32 zyx: 18 to 36 HU, correlated in plane as a soft kernel leaves it."""
    noise = rng.standard_normal(shape_zyx, dtype=np.float32)
    for axis in (1, 2):
        neighbours = np.float32(0.6) * (np.roll(noise, 1, axis) + np.roll(noise, -1, axis))
        noise += neighbours
    sigma_hu = rng.uniform(*_NOISE_HU_RANGE)
    noise *= np.float32(sigma_hu / (1 + 2 * 0.6**2))
    return noise


def _outer_wall_mm(
    rng: np.random.Generator, z: Axis, y: Axis, lateral: Axis, size: tuple[float, float, float]
) -> Floats:
    """Depth below the pleura of an ellipse that widens towards the foot and bends with z."""
    radius_y = size[1] * rng.uniform(0.52, 0.60) * (1 - 0.0012 * (z - size[0] / 2))
    radius_x = size[2] * rng.uniform(0.80, 0.86) * (1 - 0.0012 * (z - size[0] / 2))
    centre_y = size[1] * rng.uniform(0.38, 0.46) + 3.0 * np.sin(z / 35 + rng.uniform(0, 6))
    return _ellipse_mm(y, lateral, (centre_y, np.zeros_like(z)), (radius_y, radius_x))


def _mediastinum_mm(
    rng: np.random.Generator, z: Axis, y: Axis, lateral: Axis, size: tuple[float, float, float]
) -> tuple[Floats, NDArray[np.float64]]:
    """Depth in the mediastinum, and the hilum (z, y, lateral) at its rim."""
    radius_y = size[1] * rng.uniform(0.36, 0.46) + 3 * np.sin(z / 18 + rng.uniform(0, 6))
    radius_x = size[2] * rng.uniform(0.18, 0.26) + 2.5 * np.sin(z / 14 + rng.uniform(0, 6))
    centre_y = size[1] * rng.uniform(0.25, 0.40) + 4 * np.sin(z / 40 + rng.uniform(0, 6))
    depth = -_ellipse_mm(y, lateral, (centre_y, np.zeros_like(z)), (radius_y, radius_x))
    middle = len(z) // 2
    hilum = np.array([z[middle], centre_y[middle] + 6.0, radius_x[middle] - 2.0], dtype=np.float64)
    return depth, hilum


def _ellipse_mm(y: Axis, x: Axis, centre_yx: tuple[Axis, Axis], radius_yx: tuple[Axis, Axis]) -> Floats:
    """Distance outside an elliptic cylinder whose centre and radii vary with z, in mm."""
    v = ((y - centre_yx[0][:, None]) / radius_yx[0][:, None]).astype(np.float32)
    u = ((x - centre_yx[1][:, None]) / radius_yx[1][:, None]).astype(np.float32)
    outside = np.sqrt((v * v)[:, :, None] + (u * u)[:, None, :])
    # (q - 1) in units of the local radius: exact on the axes, a few per cent off between them.
    mean_radius = np.sqrt(radius_yx[0] * radius_yx[1]).astype(np.float32)[:, None, None]
    outside -= 1
    outside *= mean_radius
    return outside


def _lookup(depth_mm: Floats, table: Floats) -> Floats:
    """Look HU up by depth: the table starts at -1 mm and its last value holds for all below."""
    index = ((depth_mm + np.float32(1)) * np.float32(1 / _TABLE_STEP_MM)).astype(np.int32)
    hu: Floats = table[np.clip(index, 0, len(table) - 1, out=index)]
    return hu


def _chest_wall_hu(rng: np.random.Generator, depth_mm: Floats, z: Axis, y: Axis) -> Floats:
    depth = np.arange(0, 30, _TABLE_STEP_MM) - 1
    layers_mm = [-0.8, 0.6, 2.5, 3.5, 5.5, 7.0, 17.0, 20.0]
    layers_hu = [-1024, 30, 35, _FAT_HU, _FAT_HU, _MUSCLE_HU, 50, _FAT_HU]
    hu = _lookup(depth_mm, np.interp(depth, layers_mm, layers_hu).astype(np.float32))
    bone = np.interp(depth, [3, 4, 5, 10, 11], [0, _BONE_HU + 150, _BONE_HU - 120, _BONE_HU + 150, 0])
    # Ribs slope down from back to front, about one every 25 mm.
    phase = (z[:, None] - y * rng.uniform(0.3, 0.5)) * (2 * math.pi / rng.uniform(22, 28)) + rng.uniform(0, 6)
    rib = np.clip(3 * np.sin(phase) - 1.0, 0, 1).astype(np.float32)
    np.maximum(hu, _lookup(depth_mm, bone.astype(np.float32)) * rib[:, :, None], out=hu, where=depth_mm > 0.6)
    return hu


def _mediastinum_table() -> Floats:
    depth = np.arange(0, 25, _TABLE_STEP_MM) - 1
    hu = np.interp(depth, [-0.8, 0.6, 1.5, 3.0, 6.0, 9.0], [-1024, 20, 20, -60, -70, 50])
    table: Floats = hu.astype(np.float32)
    return table


def _lung_hu(
    rng: np.random.Generator, shape_zyx: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> Floats:
    """Parenchyma: a mean, more blood towards the back, and blotches some 4 and 12 mm wide."""
    z, y, x = (_axis(n, s) for n, s in zip(shape_zyx, spacing_mm, strict=True))
    mean_hu = rng.uniform(*_LUNG_HU_RANGE)
    slope_hu = rng.uniform(10, 50)
    hu = np.float32(45.0) * _smooth_field(rng, (z, y, x), 2.5)
    hu += np.float32(24.0) * _smooth_field(rng, (z, y, x), 7.0)
    hu += (mean_hu + slope_hu * (y / y[-1] - 0.5)).astype(np.float32)[:, None]
    return hu


def _axis(count: int, step_mm: float) -> Axis:
    return np.arange(count, dtype=np.float64) * np.float64(step_mm)


def _smooth_field(rng: np.random.Generator, axes_mm: tuple[Axis, Axis, Axis], width_mm: float) -> Floats:
    """Draw a zyx field, normal at knots `width_mm` apart and linear between them."""
    counts = [int(axis[-1] / width_mm) + 2 for axis in axes_mm]
    field = rng.standard_normal(counts, dtype=np.float32)
    weights = [_linear(axis / width_mm, count) for axis, count in zip(axes_mm, counts, strict=True)]
    field = weights[1] @ (field @ weights[2].T)
    whole: Floats = weights[0] @ field.reshape(len(field), -1)
    return whole.reshape([len(axis) for axis in axes_mm])


def _linear(position: Axis, knots: int) -> Floats:
    weights: Floats = np.clip(1 - np.abs(position[:, None] - np.arange(knots)), 0, 1).astype(np.float32)
    return weights


def _vessels(
    rng: np.random.Generator, hilum: NDArray[np.float64], extent_mm: NDArray[np.float64], side: float
) -> list[Tube]:
    tubes = []
    for up in (-1.3, -0.7, -0.2, 0.3, 0.8, 1.4):
        heading = np.array([up + rng.normal(0, 0.15), rng.normal(0.1, 0.7), side])
        root = hilum + np.array([up * 9 + rng.normal(0, 2), rng.normal(0, 5), 0])
        tubes += grow_tree(rng, root, heading / np.linalg.norm(heading), extent_mm)
    return tubes

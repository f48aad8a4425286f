"""Where nodules lie: free in the lung, against the pleura, beside a vessel; never touching each other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from toolkit.archive.geometry import Box
from toolkit.phantom.nodule import MAX_DIAMETER_MM, NoduleParams, Placement
from toolkit.phantom.outline import traceable
from toolkit.phantom.scene import Scene
from toolkit.phantom.surface import AxesMm, Surface, depth_mm, edge_mm, make_surface, occupancy
from toolkit.phantom.vessels import Tube

Floats = NDArray[np.float32]

MIN_MASK_DIAMETER_MM = 3.0
_CANDIDATES = 6000
_TRIES = 12
_GAP_MM = 4.5  # wider than the diagonal of the thickest voxel, so that masks never touch
_RIM_VOXELS = 3  # outlines and dilated readers stay inside the image
_SEEN_VOLUME = (0.8, 1.25)  # of the mask against the surface, before the pleura cuts it


@dataclass(frozen=True, eq=False)
class PlacedNodule:
    """A nodule on the voxel grid.

    Attributes
    ----------
    box
        Where the arrays below lie in the volume.
    mask
        bool zyx: voxels whose centre is inside the surface, closed so that outlines can express it.
    share, hu
        float32 zyx: how much of a voxel the nodule fills, and the nodule's own HU there.
    spicules
        Fine strands that leave the surface; they are no part of the mask.
    """

    params: NoduleParams
    box: Box
    mask: NDArray[np.bool_]
    share: Floats
    hu: Floats
    spicules: tuple[Tube, ...]


def place_nodules(
    rng: np.random.Generator,
    scene: Scene,
    wanted: Sequence[NoduleParams],
    circle_yx: NDArray[np.bool_] | None,
) -> list[PlacedNodule]:
    """Place nodules, the largest first; one for which there is no room is left out.

    Parameters
    ----------
    circle_yx
        Where a slice has values; None where everywhere.
    """
    placed: list[PlacedNodule] = []
    taken: list[tuple[NDArray[np.float64], float]] = []
    for params in sorted(wanted, key=lambda p: -p.diameter_mm):
        surface = make_surface(params)
        for kind in dict.fromkeys((params.placement, "pleura", "free")):  # where the first finds no room
            centres = _candidates(rng, scene, kind, surface, params.diameter_mm / 2)
            centres = _with_room(centres, scene, surface, taken, circle_yx)
            found = (_voxels(params, surface, centre, scene) for centre in centres[:_TRIES])
            nodule, centre = next(((n, c) for n, c in zip(found, centres, strict=False) if n), (None, None))
            if nodule is not None and centre is not None:
                placed.append(nodule)
                taken.append((centre, surface.largest_mm))
                break
    return placed


def _candidates(
    rng: np.random.Generator, scene: Scene, kind: Placement, surface: Surface, radius_mm: float
) -> NDArray[np.float64]:
    extent = (np.array(scene.hu.shape) - 1) * np.array(scene.spacing_mm)
    if kind == "vessel":
        fit = [t for t in scene.tubes if 0.7 < t.radii_mm[0] < 2.2]
        picked = [fit[k] for k in rng.integers(len(fit), size=_CANDIDATES)]
        starts, stops = np.array([t.start_mm for t in picked]), np.array([t.stop_mm for t in picked])
        points = starts + rng.random((_CANDIDATES, 1)) * (stops - starts)
        away = np.cross(stops - starts, rng.standard_normal((_CANDIDATES, 3)))
        points += away / np.linalg.norm(away, axis=1, keepdims=True) * radius_mm
    else:
        points = rng.random((_CANDIDATES, 3)) * extent
    index = np.rint(points / scene.spacing_mm).astype(int)
    inside = np.all((index >= 0) & (index < scene.hu.shape), axis=1)
    points, index = points[inside], index[inside]
    free = -scene.wall_mm[tuple(index.T)]
    if kind == "pleura":  # flattened a little against the wall
        fits = np.abs(free - 0.88 * radius_mm) < 0.04 * radius_mm + 0.2
    else:
        fits = free > surface.largest_mm + 1.5
    chosen: NDArray[np.float64] = points[fits]
    return chosen


def _with_room(
    centres: NDArray[np.float64],
    scene: Scene,
    surface: Surface,
    taken: Sequence[tuple[NDArray[np.float64], float]],
    circle_yx: NDArray[np.bool_] | None,
) -> NDArray[np.float64]:
    """Keep the centres with room inside the image, its circle, and between the other nodules."""
    spacing = np.array(scene.spacing_mm)
    extent = (np.array(scene.hu.shape) - 1) * spacing
    rim = surface.largest_mm + _RIM_VOXELS * spacing
    keep = np.all((centres > rim) & (centres < extent - rim), axis=1)
    for other, reach in taken:
        keep &= np.linalg.norm(centres - other, axis=1) > reach + surface.largest_mm + _GAP_MM
    if circle_yx is not None:
        room = min(extent[1:]) / 2 - rim[1]
        keep &= np.linalg.norm(centres[:, 1:] - extent[1:] / 2, axis=1) < room
    return centres[keep]


def _voxels(
    params: NoduleParams, surface: Surface, centre: NDArray[np.float64], scene: Scene
) -> PlacedNodule | None:
    """Draw a nodule at a place; None where its mask would misstate it."""
    spacing = np.array(scene.spacing_mm)
    edge = edge_mm(params)
    reach = surface.largest_mm + edge
    first = np.maximum(np.floor((centre - reach) / spacing) - 2, 0).astype(int)
    last = np.minimum(np.ceil((centre + reach) / spacing) + 3, scene.hu.shape).astype(int)
    box = Box(tuple(first.tolist()), tuple(last.tolist()))
    z, y, x = (
        (np.arange(a, b) * s - c).astype(np.float32)
        for a, b, s, c in zip(first, last, spacing, centre, strict=True)
    )
    inside = depth_mm(surface, (z, y, x)) > 0
    whole = np.count_nonzero(inside) * spacing.prod() / (math.pi / 6 * params.diameter_mm**3)
    mask = traceable(_largest(inside & (scene.wall_mm[box.slices] < 0)))
    diameter = (6 / math.pi * np.count_nonzero(mask) * spacing.prod()) ** (1 / 3)
    fits = MIN_MASK_DIAMETER_MM <= diameter <= MAX_DIAMETER_MM + 1
    if not fits or not _SEEN_VOLUME[0] < whole < _SEEN_VOLUME[1]:
        return None
    share = occupancy(surface, edge, (z, y, x), scene.spacing_mm)
    hu = _inner_hu(params, surface, (z, y, x), scene.spacing_mm)
    return PlacedNodule(params, box, mask, share, hu, tuple(_spicules(params, surface, centre)))


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    if count <= 1:
        return mask
    largest: NDArray[np.bool_] = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    return largest


def _inner_hu(
    params: NoduleParams, surface: Surface, axes_mm: AxesMm, spacing_mm: tuple[float, float, float]
) -> Floats:
    """HU inside: solid, ground-glass, or a solid core off the centre of ground-glass."""
    rng = np.random.default_rng([params.seed, 1])
    shape = tuple(len(axis) for axis in axes_mm)
    sigma_hu = 12.0 if params.texture == "solid" else 45.0
    white = rng.standard_normal(shape, dtype=np.float32)
    texture: Floats = ndimage.gaussian_filter(white, [1.2 / s for s in spacing_mm])
    texture *= np.float32(sigma_hu / max(float(texture.std()), 1e-6))
    if params.texture == "solid":
        texture += np.float32(params.solid_hu)
        return texture
    core = np.zeros(shape, dtype=np.float32)
    if params.solid_share > 0:
        size = params.solid_share ** (1 / 3)
        shift = rng.uniform(-1, 1, 3) * (1 - size) * params.diameter_mm / 4
        z, y, x = (axis - np.float32(d) for axis, d in zip(axes_mm, shift, strict=True))
        core = occupancy(surface.scaled(size), 1.5, (z, y, x), spacing_mm)
    ground = texture + np.float32(params.ground_hu)
    mixed: Floats = ground + core * (np.float32(params.solid_hu) - ground)
    return mixed


def _spicules(params: NoduleParams, surface: Surface, centre: NDArray[np.float64]) -> list[Tube]:
    if params.spiculation < 0.15:
        return []
    strands = []
    for direction, weight in zip(surface.spicules_xyz[:, ::-1], surface.spicule_weights, strict=True):
        heading = direction.astype(np.float64)
        depth = depth_mm(surface, (direction[0:1], direction[1:2], direction[2:3]))
        start = centre + heading * (1.0 + float(depth[0, 0, 0]))
        length = params.spiculation * weight * (3.0 + 0.3 * params.diameter_mm)
        strands.append(Tube(start, start + heading * length, (0.85, 0.25)))
    return strands

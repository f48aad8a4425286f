"""Vessels: a branching tree of tapered tubes, and the drawing of tubes into a volume."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_SUBSAMPLE_MM = 1.0
_THINNEST_MM = 0.45


@dataclass(frozen=True, eq=False)
class Tube:
    """A straight, tapered piece of vessel.

    Attributes
    ----------
    start_mm, stop_mm
        Ends in mm along z, y, x from the centre of voxel (0, 0, 0).
    radii_mm
        Radius at either end.
    """

    start_mm: NDArray[np.float64]
    stop_mm: NDArray[np.float64]
    radii_mm: tuple[float, float]


def grow_tree(
    rng: np.random.Generator,
    root_mm: NDArray[np.float64],
    heading: NDArray[np.float64],
    extent_mm: NDArray[np.float64],
) -> list[Tube]:
    """Grow a tree from a root, breadth first, until its branches thin out or leave the box.

    Parameters
    ----------
    root_mm, heading
        Where the trunk starts and where it goes (z, y, x).
    extent_mm
        Size of the volume along z, y, x; a branch that ends outside is not followed.
    """
    tubes: list[Tube] = []
    queue = [(root_mm, heading, float(rng.uniform(1.9, 2.5)))]
    while queue and len(tubes) < 60:
        start, heading, radius = queue.pop(0)
        length = 4.0 + radius * rng.uniform(2.5, 6.0)
        stop = start + heading * length
        thinner = radius * 0.93
        tubes.append(Tube(start, stop, (radius, thinner)))
        if np.any(stop < 0) or np.any(stop > extent_mm):
            continue
        across = rng.standard_normal(3)
        across -= heading * (across @ heading)
        across /= np.linalg.norm(across)
        for side, ratio, angle in ((1, 0.92, rng.uniform(0.1, 0.35)), (-1, 0.74, rng.uniform(0.45, 0.95))):
            child = heading * math.cos(angle) + across * (side * math.sin(angle))
            if thinner * ratio > _THINNEST_MM:
                queue.append((stop, child, thinner * ratio))
    return tubes


def draw_tube(share_zyx: Floats, spacing_mm: tuple[float, float, float], tube: Tube) -> None:
    """Raise `share_zyx` (float32, in place) to the share of each voxel that the tube fills."""
    widest = max(tube.radii_mm) + 1.0
    low = np.minimum(tube.start_mm, tube.stop_mm) - widest
    high = np.maximum(tube.start_mm, tube.stop_mm) + widest
    step = np.asarray(spacing_mm)
    first = np.maximum(np.ceil(low / step), 0).astype(int)
    last = np.minimum(np.floor(high / step) + 1, share_zyx.shape).astype(int)
    if np.any(last <= first):
        return
    z, y, x = (np.arange(a, b) * s for a, b, s in zip(first, last, spacing_mm, strict=True))
    count = max(1, math.ceil(spacing_mm[0] / _SUBSAMPLE_MM - 0.3))
    offsets = ((np.arange(count) + 0.5) / count - 0.5) * spacing_mm[0]
    share = _share(tube, (z[:, None] + offsets).ravel(), y, x)
    share = share.reshape(len(z), count, len(y), len(x)).mean(axis=1)
    part = share_zyx[first[0] : last[0], first[1] : last[1], first[2] : last[2]]
    np.maximum(part, share, out=part)


def _share(tube: Tube, z: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64]) -> Floats:
    along = tube.stop_mm - tube.start_mm
    length2 = float(along @ along)
    dz, dy, dx = (
        (axis - start).astype(np.float32) for axis, start in zip((z, y, x), tube.start_mm, strict=True)
    )
    pz, py, px = (d * np.float32(a / length2) for d, a in zip((dz, dy, dx), along, strict=True))
    t = np.clip(pz[:, None, None] + py[:, None] + px, 0, 1)
    az, ay, ax = along.astype(np.float32)
    distance = np.sqrt((dz[:, None, None] - t * az) ** 2 + (dy[:, None] - t * ay) ** 2 + (dx - t * ax) ** 2)
    radius = tube.radii_mm[0] + t * np.float32(tube.radii_mm[1] - tube.radii_mm[0])
    share: Floats = np.clip(radius - distance + np.float32(0.5), 0, 1)
    return share

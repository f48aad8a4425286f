"""Which pixels lie inside a drawn outline: exact integer arithmetic on the pixel lattice."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Patch:
    """Pixels of one closed outline on one slice, in the outline's bounding box.

    Attributes
    ----------
    start_yx
        Row and column of the first pixel of the box.
    inside
        bool (rows, columns): pixel centres strictly inside the polygon.
    edge
        bool (rows, columns): pixel centres on the polygon itself, also between its vertices.
    """

    start_yx: tuple[int, int]
    inside: NDArray[np.bool_]
    edge: NDArray[np.bool_]


def rasterise(points_xy: NDArray[np.int32]) -> Patch:
    """Return the lattice points strictly inside a polygon and those on it.

    A point is inside when a ray from it crosses the polygon an odd number of times (even-odd rule)
    and it does not lie on an edge. The last vertex is joined to the first. Fewer than three distinct
    points, or an outline that runs back on itself, enclose nothing.

    Parameters
    ----------
    points_xy
        integer (n, 2), n >= 1: column and row of each vertex.
    """
    points = np.asarray(points_xy, dtype=np.int64)
    low = points.min(axis=0)
    shape = tuple((points.max(axis=0) - low + 1)[::-1])
    tail = points - low
    head = np.roll(tail, -1, axis=0)
    edge = _edge(tail, head, shape)
    return Patch((int(low[1]), int(low[0])), _odd(tail, head, shape) & ~edge, edge)


def _edge(tail: NDArray[np.int64], head: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Mark the lattice points of every edge: gcd(dx, dy) equal steps lead from one end to the other."""
    step = head - tail
    count = np.gcd(step[:, 0], step[:, 1])
    which, k = ragged(count)
    xy = tail[which] + k[:, None] * (step[which] // count[which, None])
    edge = np.zeros(shape, dtype=np.bool_)
    edge[xy[:, 1], xy[:, 0]] = True
    edge[tail[:, 1], tail[:, 0]] = True  # edges of length zero have no step of their own
    return edge


def _odd(tail: NDArray[np.int64], head: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Mark the points whose ray towards +x crosses an odd number of edges."""
    upward = tail[:, 1:] <= head[:, 1:]
    a, b = np.where(upward, tail, head), np.where(upward, head, tail)
    rows = b[:, 1] - a[:, 1]
    which, k = ragged(rows)  # the upper end is left out, so a vertex is counted once
    # The edge meets row a_y + k at a_x + k dx / dy; a point lies left of it exactly when x < ceil of that.
    crossing = a[which, 0] - (-k * (b[which, 0] - a[which, 0])) // rows[which]
    toggles = np.zeros((shape[0], shape[1] + 1), dtype=np.int64)
    np.add.at(toggles, (a[which, 1] + k, crossing), 1)
    right_of = np.cumsum(toggles[:, ::-1], axis=1)[:, ::-1]  # crossings with ceil >= x
    return (right_of[:, 1:] & 1).astype(np.bool_)


def ragged(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return, for counts (2, 0, 3), the owners (0, 0, 2, 2, 2) and the ranks (0, 1, 0, 1, 2)."""
    which = np.repeat(np.arange(len(counts)), counts)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)

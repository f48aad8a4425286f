"""Which voxel centres lie inside contours with real coordinates: exact even-odd scan lines.

A voxel belongs to a region where its centre lies inside an odd number of the contours, or on one. So
holes, islands in holes and keyholes come out as drawn. The centre ON a contour counts as inside because
programs that trace a mask (OpenCV's findContours, and with it rt-utils) put the vertices on the centres
of the outermost voxels that still belong to it, of an outline as of a hole. (LIDC's outlines are the
first voxel outside: `toolkit.archive.outline`.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.archive.outline import ragged

ON_LINE = 1e-6  # of a voxel
TRACED = 0.1  # of a voxel; four chance vertices are all that near to centres once in a million contours
_SUBROWS = 8


@dataclass(frozen=True, eq=False)
class Filled:
    """Voxels inside the contours of one region on one slice.

    Attributes
    ----------
    start_yx, inside
        First row and column of the box, and bool (rows, columns) in it.
    area
        Even-odd area of the contours, in voxels.
    explained
        How far the number of voxels can be from `area` by sampling alone: four standard deviations of
        even rounding where the contours cross the rows, and half the length of traced contours.
    """

    start_yx: tuple[int, int]
    inside: NDArray[np.bool_]
    area: float
    explained: float


def traced(points_yx: NDArray[np.float64]) -> bool:
    """Tell whether a contour was traced along voxel centres: all vertices lie within 0.1 voxel of one."""
    return bool(np.abs(points_yx - np.rint(points_yx)).max() <= TRACED)


def fill(contours: Sequence[NDArray[np.float64]]) -> Filled:
    """Fill closed contours, each (n, 2) row and column in voxels, n >= 1, together by the even-odd rule.

    The last vertex is joined to the first. A traced contour is moved onto the centres exactly: its file
    rounds them. Fewer than three points enclose nothing, but mark the centres that they lie on.
    """
    on_grid = [traced(points) for points in contours]
    drawn = [np.rint(p) if exact else p for p, exact in zip(contours, on_grid, strict=True)]
    tail = np.concatenate(drawn)
    head = np.concatenate([np.roll(points, -1, axis=0) for points in drawn])
    low = np.floor(tail.min(axis=0)).astype(np.int64)
    shape = np.ceil(tail.max(axis=0)).astype(np.int64) - low + 1
    tail, head = tail - low, head - low
    inside = _odd(tail, head, int(shape[0]), int(shape[1]))
    _mark_lines(tail, head, inside)
    lengths = np.linalg.norm(head - tail, axis=1)
    on_line = np.repeat(on_grid, [len(points) for points in drawn])
    sampling = 4 * np.sqrt(lengths[~on_line].sum() / 12)
    tracing = lengths[on_line].sum() / 2 + sum(on_grid)  # Pick: inside = area + boundary / 2 + 1
    return Filled((int(low[0]), int(low[1])), inside, _area(tail, head), float(sampling + tracing) + 1)


def _crossings(
    tail: NDArray[np.float64], head: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return row and column of every crossing of an edge with a whole row.

    The lower end of an edge counts and the upper does not, so that a vertex is counted once.
    """
    upward = (tail[:, 0] <= head[:, 0])[:, None]
    a, b = np.where(upward, tail, head), np.where(upward, head, tail)
    first, last = np.ceil(a[:, 0]), np.ceil(b[:, 0])
    which, k = ragged((last - first).astype(np.int64))
    row = first[which] + k
    share = (row - a[which, 0]) * (b[which, 1] - a[which, 1]) / (b[which, 0] - a[which, 0])
    return row.astype(np.int64), a[which, 1] + share


def _odd(tail: NDArray[np.float64], head: NDArray[np.float64], rows: int, columns: int) -> NDArray[np.bool_]:
    """Mark centres to the right of an odd number of crossings in their row."""
    row, column = _crossings(tail, head)
    toggles = np.zeros((rows, columns + 1), np.int64)
    np.add.at(toggles, (row, np.clip(np.ceil(column), 0, columns).astype(np.int64)), 1)
    return (np.cumsum(toggles, axis=1)[:, :columns] & 1).astype(np.bool_)


def _mark_lines(tail: NDArray[np.float64], head: NDArray[np.float64], inside: NDArray[np.bool_]) -> None:
    """Mark the centres that lie on an edge."""
    low, high = np.minimum(tail, head), np.maximum(tail, head)
    flat = high[:, 0] - low[:, 0] <= ON_LINE
    level = np.rint(low[:, 0])
    on_row = np.flatnonzero(flat & (np.abs(low[:, 0] - level) <= ON_LINE))
    first = np.ceil(low[on_row, 1] - ON_LINE)
    count = np.floor(high[on_row, 1] + ON_LINE) - first + 1
    which, k = ragged(np.maximum(count, 0).astype(np.int64))
    inside[level[on_row][which].astype(np.int64), (first[which] + k).astype(np.int64)] = True

    steep = np.flatnonzero(~flat)
    first = np.ceil(low[steep, 0] - ON_LINE)
    which, k = ragged((np.floor(high[steep, 0] + ON_LINE) - first + 1).astype(np.int64))
    edge, row = steep[which], first[which] + k
    share = np.clip((row - tail[edge, 0]) / (head[edge, 0] - tail[edge, 0]), 0, 1)
    column = tail[edge, 1] + share * (head[edge, 1] - tail[edge, 1])
    near = np.abs(column - np.rint(column)) <= ON_LINE
    inside[row[near].astype(np.int64), np.rint(column[near]).astype(np.int64)] = True


def _area(tail: NDArray[np.float64], head: NDArray[np.float64]) -> float:
    """Return the even-odd area: lengths between crossings, at the middles of eight rows a voxel."""
    scale, shift = np.array([_SUBROWS, 1.0]), np.array([0.5, 0.0])
    row, column = _crossings(tail * scale - shift, head * scale - shift)
    order = np.lexsort((column, row))
    column = column[order]
    return float((column[1::2] - column[::2]).sum() / _SUBROWS)

"""Sparse masks as runs of equal labels along x, so that cost follows the outlines, not the volume.

A run is ``labels[z, y, start:stop] == value``; runs are kept in z, y, x order. Both lungs are some
10^5 runs where they are 10^7 voxels.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from toolkit.archive.geometry import Box

_NEIGHBOUR_ROWS = ((0, 1), (1, -1), (1, 0), (1, 1))  # (dz, dy): the half of the 26 that looks ahead


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs of labels above 0 in z, y, x order.

    Attributes
    ----------
    shape_zyx
        Shape of the whole volume.
    row
        int64 (n,): ``z * shape_y + y``.
    start, stop
        int64 (n,): half-open range along x.
    value
        int64 (n,): the label.
    """

    shape_zyx: tuple[int, int, int]
    row: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    value: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.row)

    @property
    def z(self) -> NDArray[np.int64]:
        """Slice of each run."""
        return self.row // self.shape_zyx[1]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Voxels of each run."""
        return self.stop - self.start

    def take(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> "Runs":
        """Return some of the runs."""
        return Runs(self.shape_zyx, self.row[which], self.start[which], self.stop[which], self.value[which])


def encode(box: Box, labels: NDArray[np.integer], shape_zyx: tuple[int, int, int]) -> Runs:
    """Return the runs of a C-contiguous canonical box of labels."""
    height, width = labels.shape[1:]
    rows = labels.reshape(-1, width)
    filled = rows != 0
    changed = rows[:, 1:] != rows[:, :-1]
    begins, ends = filled.copy(), filled  # a run begins, ends where a filled voxel has another neighbour
    begins[:, 1:] &= changed
    ends[:, :-1] &= changed
    first = np.flatnonzero(begins)
    row, start = np.divmod(first, width)
    stop = np.flatnonzero(ends) - row * width + 1
    z, y = np.divmod(row, height)
    row = (z + box.start_zyx[0]) * shape_zyx[1] + y + box.start_zyx[1]
    x = box.start_zyx[2]
    return Runs(shape_zyx, row, start + x, stop + x, rows.ravel()[first].astype(np.int64))


def join(parts: Iterable[Runs], shape_zyx: tuple[int, int, int]) -> Runs:
    """Return the runs of disjoint boxes as those of one volume: sorted, and joined where they touch."""
    listed = list(parts)
    empty = np.zeros(0, np.int64)
    row, start, stop, value = (
        np.concatenate([empty, *(getattr(part, name) for part in listed)])
        for name in ("row", "start", "stop", "value")
    )
    runs = Runs(shape_zyx, row, start, stop, value)
    key = runs.row * shape_zyx[2] + runs.start
    if len(runs) and not (np.diff(key) > 0).all():
        runs = runs.take(np.argsort(key))
    touching = (
        (runs.row[1:] == runs.row[:-1])
        & (runs.start[1:] == runs.stop[:-1])
        & (runs.value[1:] == runs.value[:-1])
    )
    if not touching.any():
        return runs
    heads = np.concatenate([[True], ~touching])
    tails = np.concatenate([~touching, [True]])
    return Runs(shape_zyx, runs.row[heads], runs.start[heads], runs.stop[tails], runs.value[heads])


def components(runs: Runs) -> NDArray[np.int64]:
    """Return, for each run, its 26-connected component: 0, 1, ... by first voxel in z, y, x order.

    The runs must be of one value: those of two values can touch within a row and would not be joined.
    """
    width = runs.shape_zyx[2] + 2  # rows cannot run into each other
    starts, stops = runs.row * width + runs.start, runs.row * width + runs.stop
    y = runs.row % runs.shape_zyx[1]
    pairs = []
    for dz, dy in _NEIGHBOUR_ROWS:
        inside = np.flatnonzero((y + dy >= 0) & (y + dy < runs.shape_zyx[1]))
        shift = (dz * runs.shape_zyx[1] + dy) * width
        # Two runs touch where start <= other stop and other start <= stop: corners count.
        low = np.searchsorted(stops, starts[inside] + shift, "left")
        high = np.searchsorted(starts, stops[inside] + shift, "right")
        counts = np.maximum(high - low, 0)
        source = np.repeat(inside, counts)
        within = np.arange(len(source)) - np.repeat(np.cumsum(counts) - counts, counts)
        pairs.append((source, np.repeat(low, counts) + within))
    source, target = (np.concatenate(side) for side in zip(*pairs, strict=True))
    links = coo_array((np.ones(len(source), np.bool_), (source, target)), shape=(len(runs), len(runs)))
    _, labels = connected_components(links, directed=False)
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order = np.empty(len(first), np.int64)
    order[np.argsort(first)] = np.arange(
        len(first)
    )  # runs are sorted, so the first run holds the first voxel
    return order[inverse]


def draw(runs: Runs) -> tuple[Box, NDArray[np.uint8]]:
    """Return the box around runs of one label and the 0/1 mask inside it."""
    z, y = np.divmod(runs.row, runs.shape_zyx[1])
    low = (int(z.min()), int(y.min()), int(runs.start.min()))
    high = (int(z.max()) + 1, int(y.max()) + 1, int(runs.stop.max()))
    box = Box(low, high)
    depth, height, width = box.shape_zyx
    marks = np.zeros((depth, height, width + 1), np.int8)  # +1 where a run begins, -1 where it has ended
    marks[z - low[0], y - low[1], runs.start - low[2]] = 1
    marks[z - low[0], y - low[1], runs.stop - low[2]] = -1
    np.cumsum(marks, axis=2, out=marks, dtype=np.int8)
    return box, np.ascontiguousarray(marks[:, :, :width]).view(np.uint8)

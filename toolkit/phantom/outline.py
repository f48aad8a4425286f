"""Outlines as closed chains of pixels: as LIDC readers draw them, and as structure sets hold them."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_CROSS = ndimage.generate_binary_structure(2, 1)
_SQUARE = ndimage.generate_binary_structure(2, 2)
# Clockwise from west, as (row, column) with rows down.
_RING = ((0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1))


def traceable(mask_zyx: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the smallest superset that outlines can express exactly, slice by slice.

    An outline of first outside pixels cannot show a hole or a notch one pixel wide: its interior
    is the closing of the filled component. Readers of every format shall see one truth, so the
    truth itself is closed. Nothing may lie within one pixel of the array's rim.
    """
    return np.stack([_traceable_slice(mask_yx) for mask_yx in mask_zyx])


def _traceable_slice(mask_yx: NDArray[np.bool_]) -> NDArray[np.bool_]:
    while True:  # components that grow together are closed again as one
        labels, count = ndimage.label(mask_yx, _SQUARE)
        closed = np.zeros_like(mask_yx)
        for k in range(1, count + 1):
            closed |= ndimage.binary_erosion(_grown(labels == k), _CROSS)
        if np.array_equal(closed, mask_yx):
            return closed
        mask_yx = closed


def _grown(component_yx: NDArray[np.bool_]) -> NDArray[np.bool_]:
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(ndimage.binary_dilation(component_yx, _CROSS))
    return filled


def outlines(mask_yx: NDArray[np.bool_]) -> list[list[tuple[int, int]]]:
    """Return one outline for each 8-connected component of a slice.

    Returns
    -------
    list of chains
        Pixels (row, column) in order, 8-connected, closed (the last pixel is a neighbour of the
        first). The strict interior of the polygon is the component where the mask is `traceable`.
    """
    labels, count = ndimage.label(mask_yx, _SQUARE)
    chains = []
    for k in range(1, count + 1):
        grown = _grown(np.pad(labels == k, 2))
        chains.append(_moved(_moore_trace(grown)))
    return chains


def contours(mask_yx: NDArray[np.bool_]) -> list[list[tuple[int, int]]]:
    """Return the chains through the rim pixels of a slice: one a component, one a hole of it.

    Returns
    -------
    list of chains
        Pixels (row, column) in order, 8-connected, closed; one or two pixels where a component has
        no more. A pixel belongs to the mask exactly where it lies on a chain or inside an odd number
        of them. Any mask, holes and islands in holes included.
    """
    padded = np.pad(mask_yx, 2)
    labels, count = ndimage.label(padded, _SQUARE)
    chains = [_moved(_moore_trace(labels == k)) for k in range(1, count + 1)]
    holes, count = ndimage.label(~padded, _CROSS)
    for k in range(1, count + 1):
        if k != holes[0, 0]:
            hole = ndimage.binary_fill_holes(holes == k, _SQUARE)  # with the islands in it
            row, column = (int(v) for v in np.argwhere(hole)[0])
            chains.append(_moved(_moore_trace(~hole, (row, column - 1), 4)))  # its west, seen from the hole
    return chains


def _moved(chain: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Undo a padding of two pixels."""
    return [(row - 2, column - 2) for row, column in chain]


def _moore_trace(
    shape_yx: NDArray[np.bool_], start: tuple[int, int] | None = None, back: int = 0
) -> list[tuple[int, int]]:
    """Moore-neighbour tracing with Jacob's stopping criterion, from a pixel whose ring pixel `back` is off.

    Without a start, the outer rim of a component, which must not touch the rim of the array.
    """
    if start is None:
        row, column = (int(v) for v in np.argwhere(shape_yx)[0])  # topmost, then leftmost: west is off
        start = row, column
    chain, first_step = [start], None
    here = start
    while True:
        for turn in range(1, 9):
            direction = (back + turn) % 8
            there = here[0] + _RING[direction][0], here[1] + _RING[direction][1]
            if shape_yx[there]:
                break
        else:
            return chain
        step = (here, direction)
        if step == first_step:
            return chain[:-1]
        first_step = first_step or step
        # The pixel looked at just before `there` is outside; seen from `there` it lies at:
        before = _RING[(direction - 1) % 8]
        outside = here[0] + before[0] - there[0], here[1] + before[1] - there[1]
        back = _RING.index(outside)
        here = there
        chain.append(here)

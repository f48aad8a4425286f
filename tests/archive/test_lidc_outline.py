"""The rasteriser against a rule written down the slow way: every pixel against every edge."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from toolkit.archive.outline import rasterise


def brute(points: list[list[int]]) -> tuple[list[list[bool]], list[list[bool]]]:
    columns, rows = zip(*points, strict=True)
    inside, edge = [], []
    for y in range(min(rows), max(rows) + 1):
        line = [where(points, x, y) for x in range(min(columns), max(columns) + 1)]
        inside.append([value == "in" for value in line])
        edge.append([value == "on" for value in line])
    return inside, edge


def where(points: list[list[int]], x: int, y: int) -> str:
    odd = False
    for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
        cross = (bx - ax) * (y - ay) - (by - ay) * (x - ax)
        if cross == 0 and min(ax, bx) <= x <= max(ax, bx) and min(ay, by) <= y <= max(ay, by):
            return "on"
        if (ay > y) != (by > y):  # the ray towards +x meets the edge's rows
            odd ^= cross > 0 if by > ay else cross < 0
    return "in" if odd else "out"


vertices = hnp.arrays(np.int32, st.tuples(st.integers(1, 12), st.just(2)), elements=st.integers(-7, 9))


@given(vertices)
def test_every_polygon(points: NDArray[np.int32]) -> None:
    inside, edge = brute(points.tolist())
    patch = rasterise(points)
    assert patch.start_yx == (points[:, 1].min(), points[:, 0].min())
    assert patch.inside.tolist() == inside
    assert patch.edge.tolist() == edge


@given(vertices, st.integers(-400, 400), st.integers(-400, 400), st.integers(0, 11))
def test_moving_turning_and_starting_elsewhere(points: NDArray[np.int32], dx: int, dy: int, k: int) -> None:
    patch = rasterise(points)
    moved = rasterise(np.roll(points[::-1] + np.array([dx, dy], np.int32), k, axis=0))
    assert moved.start_yx == (patch.start_yx[0] + dy, patch.start_yx[1] + dx)
    np.testing.assert_array_equal(moved.inside, patch.inside)
    np.testing.assert_array_equal(rasterise(points[:, ::-1]).inside, patch.inside.T)


@pytest.mark.parametrize(
    ("points", "pixels"),
    [
        ([(2, 2), (6, 2), (6, 6), (2, 6)], 9),  # vertices far apart: the pixels between them are edge
        ([(0, 0), (6, 3), (0, 6)], 13),  # Pick: 18 = inside + 12 / 2 - 1
        ([(5, 5)], 0),
        ([(5, 5), (5, 5), (5, 5)], 0),
        ([(0, 0), (9, 3), (0, 0)], 0),
        ([(0, 0), (4, 0), (4, 4), (0, 4), (0, 0), (8, 0), (0, 0)], 9),  # a spur encloses nothing
        ([(0, 0), (4, 4), (4, 0), (0, 4)], 2),  # a bow tie
    ],
)
def test_known_counts(points: list[tuple[int, int]], pixels: int) -> None:
    assert rasterise(np.array(points, np.int32)).inside.sum() == pixels


def test_a_whole_image() -> None:
    corners = np.array([(0, 0), (511, 0), (511, 511), (0, 511)], np.int32)
    assert rasterise(corners).inside.sum() == 510 * 510

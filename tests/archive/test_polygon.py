"""Filled contours against a point-in-polygon test for each voxel, OpenCV, and known areas."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.archive.polygon import fill


def brute(contours, shape):
    """Even-odd rule voxel by voxel, by the winding of angles: another method than scan lines."""
    inside = np.zeros(shape, bool)
    distance = np.full(shape, np.inf)
    for y, x in np.ndindex(*shape):
        crossings = 0
        for points in contours:
            tail = points - (y, x)
            head = np.roll(tail, -1, axis=0)
            step = head - tail
            length = np.maximum((step**2).sum(1), 1e-30)
            share = np.clip(-(tail * step).sum(1) / length, 0, 1)
            distance[y, x] = min(distance[y, x], np.linalg.norm(tail + share[:, None] * step, axis=1).min())
            angle = np.arctan2(head[:, 0], head[:, 1]) - np.arctan2(tail[:, 0], tail[:, 1])
            turns = ((angle + np.pi) % (2 * np.pi) - np.pi).sum() / (2 * np.pi)
            crossings += round(turns)
        inside[y, x] = crossings % 2
    return inside, distance


def drawn(filled, shape):
    whole = np.zeros(shape, bool)
    y, x = filled.start_yx
    rows, columns = filled.inside.shape
    top, left = max(0, y), max(0, x)
    part = filled.inside[top - y : shape[0] - y, left - x : shape[1] - x]
    whole[top : y + rows, left : x + columns] = part
    return whole


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rings=st.integers(1, 3), count=st.integers(3, 12))
def test_any_polygons_by_the_even_odd_rule(seed, rings, count):
    """Self-crossing and overlapping ones included."""
    rng = np.random.default_rng(seed)
    contours = [rng.uniform(0, 11, (count, 2)) for _ in range(rings)]
    expected, distance = brute(contours, (12, 12))
    found = drawn(fill(contours), (12, 12))
    clear = distance > 1e-5
    np.testing.assert_array_equal(found[clear], expected[clear])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_centres_on_a_contour_are_inside(seed):
    contours = [np.random.default_rng(seed).integers(0, 10, (5, 2)).astype(float) for _ in range(2)]
    expected, distance = brute(contours, (10, 10))
    found = drawn(fill(contours), (10, 10))
    np.testing.assert_array_equal(found, expected | (distance < 1e-9))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.2, 0.9))
def test_a_traced_mask_comes_back(seed, share):
    """OpenCV traces a random mask, holes, islands, single voxels and all; the file rounds its numbers."""
    rng = np.random.default_rng(seed)
    mask = rng.random((12, 15)) < share
    traced, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    rounding = rng.uniform(-0.02, 0.02, 2)
    contours = [points[:, 0, ::-1] + rounding for points in traced]
    if contours:
        np.testing.assert_array_equal(drawn(fill(contours), mask.shape), mask)


def ring(center, radius, count=720):
    angle = np.arange(count) * 2 * np.pi / count
    return center + radius * np.column_stack([np.sin(angle), np.cos(angle)])


def test_known_areas():
    middle = np.array([30.3, 31.1])
    disc = fill([ring(middle, 20.0)])
    assert disc.area == pytest.approx(np.pi * 400, rel=1e-3)
    assert abs(disc.inside.sum() - disc.area) < disc.explained < 0.03 * disc.area
    hole = fill([ring(middle, 20.0), ring(middle, 8.0)])
    assert hole.area == pytest.approx(np.pi * (400 - 64), rel=1e-3)
    island = fill([ring(middle, 20.0), ring(middle, 8.0), ring(middle, 3.0)])
    assert island.area == pytest.approx(np.pi * (400 - 64 + 9), rel=1e-3)
    keyhole = fill(
        [
            np.vstack(
                [ring(middle, 20.0), ring(middle, 20.0)[:1], ring(middle, 8.0)[::-1], ring(middle, 8.0)[-1:]]
            )
        ]
    )
    assert keyhole.area == pytest.approx(hole.area, rel=1e-2)
    assert abs(int(keyhole.inside.sum()) - int(hole.inside.sum())) <= 2


def test_a_sloped_square():
    """Shoelace gives its area exactly, and so do scan lines through the middles of rows."""
    corners = np.array([[2.0, 10.25], [10.5, 18.0], [18.25, 9.5], [9.75, 1.75]])
    y, x = corners.T
    shoelace = abs(np.dot(y, np.roll(x, -1)) - np.dot(x, np.roll(y, -1))) / 2
    assert fill([corners]).area == pytest.approx(shoelace, rel=2e-3)


@pytest.mark.parametrize("points", [[[3, 4]], [[3, 4], [3, 7]], [[3, 4], [5, 4], [3, 4]]])
def test_degenerate_contours_mark_the_centres_they_lie_on(points):
    points = np.array(points, float)
    on = (
        {(3, 4), (3, 5), (3, 6), (3, 7)}
        if len(points) == 2
        else {(3, 4), (4, 4), (5, 4)}
        if len(points) == 3
        else {(3, 4)}
    )
    assert set(map(tuple, np.argwhere(drawn(fill([points]), (9, 9))).tolist())) == on
    assert not fill([points + 0.4]).inside.any()
    assert fill([points]).area == 0

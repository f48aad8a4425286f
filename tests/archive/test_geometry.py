"""Axes are relabelled, never moved: every voxel keeps its place in the patient."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.archive.volume_files import ORIENTATIONS, canonical_geometry, native_of, phantom, rotation
from toolkit.archive.geometry import Box, Geometry, canonical, largest_corner_shift_voxels

SHAPE = (4, 5, 6)


def points_and_values(array, geometry):
    """All voxels as (x, y, z, value) rows in a fixed order."""
    index = np.indices(array.shape).reshape(3, -1).T
    rows = np.column_stack([np.round(geometry.to_lps(index), 6), array.ravel()])
    return rows[np.argsort(array.ravel(), kind="stable")]


def numbered(shape):
    return np.random.default_rng(1).permutation(int(np.prod(shape))).reshape(shape)


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_all_orientations_give_one_canonical_array(order, signs):
    truth = canonical_geometry(SHAPE)
    array = phantom(SHAPE)
    native, affine = native_of(array, truth, order, signs)
    geometry, moved = canonical(Geometry(native.shape, affine))
    np.testing.assert_array_equal(moved.array(native), array)
    np.testing.assert_allclose(geometry.affine, truth.affine, atol=1e-9)
    assert geometry.shape_zyx == SHAPE


@st.composite
def geometries(draw):
    """Any rotation, flip, spacing and shear."""
    steps = rotation(draw(st.integers(0, 10_000))) * draw(st.tuples(*[st.floats(0.3, 5)] * 3).map(np.array))
    shear = draw(st.tuples(*[st.floats(-0.5, 0.5)] * 2))
    steps[:, 0] += shear[0] * steps[:, 1] + shear[1] * steps[:, 2]
    if draw(st.booleans()):
        steps[:, 2] *= -1
    affine = np.eye(4)
    affine[:3, :3] = steps[:, draw(st.permutations(range(3)))]
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    shape = draw(st.tuples(*[st.integers(2, 5)] * 3))
    positions = None
    if draw(st.booleans()):
        gaps = draw(st.lists(st.floats(0.5, 3), min_size=shape[0] - 1, max_size=shape[0] - 1))
        positions = (0.0, *np.cumsum(gaps).tolist())
    return Geometry(shape, affine, positions)


@settings(max_examples=200, deadline=None)
@given(geometries(), st.data())
def test_same_voxels_at_same_points(native, data):
    geometry, moved = canonical(native)
    array = numbered(native.shape_zyx)
    relabelled = moved.array(array)
    np.testing.assert_allclose(
        points_and_values(relabelled, geometry), points_and_values(array, native), atol=1e-5
    )
    ends = [sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2))) for n in geometry.shape_zyx]
    box = Box(tuple(e[0] for e in ends), tuple(e[1] for e in ends))
    there = moved.box(box, native.shape_zyx)
    np.testing.assert_array_equal(moved.array(array[there.slices]), relabelled[box.slices])
    assert geometry.voxel_mm3 == pytest.approx(native.voxel_mm3)
    if native.slice_positions is not None:
        assert moved.order == (0, 1, 2)
        assert geometry.slice_positions[0] == 0
        assert list(geometry.slice_positions) == sorted(geometry.slice_positions)


@settings(max_examples=100, deadline=None)
@given(geometries())
def test_axes_run_towards_head_back_and_left(native):
    geometry, _ = canonical(native)
    steps = geometry.affine[:3, :3] / np.linalg.norm(geometry.affine[:3, :3], axis=0)
    along = steps[::-1]  # along[a, b]: how far axis b runs along world z, y, x
    assert (np.diag(along) >= 0).all()
    if native.slice_positions is None:
        best = max(sum(abs(along[a, order[a]]) for a in range(3)) for order in permutations(range(3)))
        assert np.trace(along) == pytest.approx(best)


def test_uneven_stack_is_flipped_with_its_positions():
    affine = np.diag([1.0, 1.0, 1.0, 1.0])[:, [2, 1, 0, 3]]  # zyx along world z, y, x
    affine[2, 0] = -2.0  # first slice nearest to the head
    native = Geometry((3, 2, 2), affine, (0.0, 1.0, 2.5))
    geometry, moved = canonical(native)
    assert moved.flips == (True, False, False)
    assert geometry.slice_positions == (0.0, 1.5, 2.5)
    np.testing.assert_allclose(
        geometry.to_lps(np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0]]))[:, 2], [-5, -2, 0]
    )
    np.testing.assert_allclose(geometry.slice_weights(), [1.5, 1.25, 1.0])


def test_slice_weights_fill_the_stack_without_overlap():
    even = canonical_geometry(SHAPE)
    np.testing.assert_array_equal(even.slice_weights(), np.ones(4))
    uneven = Geometry((4, 2, 2), np.eye(4), (0.0, 1.0, 3.0, 4.0))
    np.testing.assert_allclose(uneven.slice_weights(), [1, 1.5, 1.5, 1])


def test_contains_counts_whole_voxels():
    geometry = canonical_geometry(SHAPE, turn=rotation(3))
    inside = np.array([[-0.49, 0, 0], [3.49, 4.49, 5.49], [1.5, 2, 3], [0, -0.49, 5.49]], dtype=np.float64)
    outside = np.array(
        [[-0.51, 0, 0], [3.51, 4, 5], [0, -0.51, 0], [0, 4.51, 0], [0, 0, -0.51], [0, 0, 5.51]]
    )
    assert all(geometry.contains(geometry.to_lps(p)) for p in inside)
    assert not any(geometry.contains(geometry.to_lps(p)) for p in outside)


def test_contains_follows_the_positions_of_an_uneven_stack():
    uneven = Geometry((3, 2, 2), np.eye(4)[:, [2, 1, 0, 3]], (0.0, 1.0, 6.0))
    assert uneven.contains(np.array([0.0, 0.0, 6.4]))
    assert not uneven.contains(np.array([0.0, 0.0, -0.6]))
    assert not uneven.contains(np.array([0.0, 0.0, 6.6]))  # half a nominal step, not half the last gap


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[st.floats(-3, 3)] * 3), st.integers(0, 1000))
def test_corner_shift_is_in_voxels_of_the_first(offset, seed):
    a = canonical_geometry(SHAPE, turn=rotation(seed))
    affine = a.affine.copy()
    affine[:3, 3] = a.to_lps(np.array(offset))
    b = Geometry(SHAPE, affine)
    assert largest_corner_shift_voxels(a, b) == pytest.approx(np.abs(offset).max(), abs=1e-6)
    stretched = Geometry(SHAPE, a.affine @ np.diag([1, 1, 1.1, 1]))
    assert largest_corner_shift_voxels(a, stretched) == pytest.approx(0.5)


@given(st.tuples(*[st.integers(-3, 9)] * 12))
def test_boxes_meet_where_both_hold_the_voxel(n):
    a, b = Box(n[0:3], n[3:6]), Box(n[6:9], n[9:12])
    common = a.intersect(b)

    def holds(box):
        grid = np.indices((12, 12, 12)) - 3
        start, stop = (np.array(v).reshape(3, 1, 1, 1) for v in (box.start_zyx, box.stop_zyx))
        return ((grid >= start) & (grid < stop)).all(axis=0)

    both = holds(a) & holds(b)
    assert common.empty == (not both.any())
    assert np.count_nonzero(both) == np.prod(common.shape_zyx)
    if both.any():
        np.testing.assert_array_equal(holds(common), both)
    assert a.shift((1, -2, 3)).shape_zyx == a.shape_zyx
    assert a.shift((1, -2, 3)).start_zyx == (n[0] + 1, n[1] - 2, n[2] + 3)

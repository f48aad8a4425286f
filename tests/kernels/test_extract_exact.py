"""What extraction must do to the last bit, said without any oracle."""

import numpy as np
import pytest

from kernels import Brick, extract, oracle, pack
from tests import tolerances
from tests.kernels.batches import CASES, SIZES, brick, cases, grid


def one(brick, size):
    image, occupancy = extract(pack([brick], size), size)
    return image[0], occupancy[0]


def noise(shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(-1024, 3072, shape, np.int16), rng.integers(0, 2, shape, np.uint8)


def placed(linear, origin):
    return np.column_stack([np.asarray(linear, float), origin])


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("hu", [-1024, -1, 0, 3071])
def test_constant_stays_constant_to_the_edge(name, hu):
    flat = [
        Brick(np.full_like(b.hu, hu), np.ones(b.hu.shape, np.uint8), b.matrix, b.slice_positions)
        for b in cases(8)[name]
    ]
    packed = pack(flat, 8)
    image, occupancy = extract(packed, 8)
    outside = oracle.extract(packed, 8)[2]
    for b in range(len(flat)):
        ok = ~tolerances.undecided(packed, b, 8).reshape(8, 8, 8)
        np.testing.assert_array_equal(image[b][ok], np.where(outside[b], -1024, hu)[ok])
        np.testing.assert_array_equal(occupancy[b][ok], np.where(outside[b], 0, 255)[ok])


@pytest.mark.parametrize("size", SIZES)
def test_identity_is_a_copy(size):
    hu, mask = noise((size, size, size))
    image, occupancy = one(Brick(hu, mask, np.eye(3, 4)), size)
    np.testing.assert_array_equal(image, hu)
    np.testing.assert_array_equal(occupancy, 255 * mask)


@pytest.mark.parametrize("shift", [(1, 0, 0), (0, 2, 0), (0, 0, 3), (-2, 1, -4), (3, -3, 1), (-9, 0, 0)])
def test_integer_shift_is_a_copy_with_air_around(shift):
    hu, mask = noise((6, 7, 8))
    image, occupancy = one(Brick(hu, mask, placed(np.eye(3), shift)), 6)
    padded, marked = (np.pad(a, 20, constant_values=v) for a, v in ((hu, -1024), (mask, 0)))
    part = tuple(slice(20 + s, 26 + s) for s in shift)
    np.testing.assert_array_equal(image, padded[part])
    np.testing.assert_array_equal(occupancy, 255 * marked[part])


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2, 0), (2, 0, 1), (1, 0, 2), (2, 1, 0)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_quarter_turns_and_flips_are_copies(axes, signs):
    """Target axis i runs along brick axis ``axes[i]``: no axis may be mistaken for another."""
    hu, mask = noise((5, 5, 5))
    linear = np.zeros((3, 3))
    linear[axes, range(3)] = signs
    origin = [4.0 if linear[a].sum() < 0 else 0.0 for a in range(3)]
    image, occupancy = one(Brick(hu, mask, placed(linear, origin)), 5)
    flipped = [axis for axis in range(3) if signs[axis] < 0]
    np.testing.assert_array_equal(image, np.flip(hu.transpose(axes), flipped))
    np.testing.assert_array_equal(occupancy, 255 * np.flip(mask.transpose(axes), flipped))


def test_halves_round_upwards():
    hu = np.array([-3, -2, -1, 0, 1, 2, 3], np.int16).reshape(1, 1, 7)
    mask = np.array([0, 1, 1, 0, 0, 0, 1], np.uint8).reshape(1, 1, 7)
    image, occupancy = one(Brick(hu, mask, placed(np.eye(3), (0, 0, 0.5))), 6)
    np.testing.assert_array_equal(image[0, 0], [-2, -1, 0, 1, 2, 3])
    np.testing.assert_array_equal(occupancy[0, 0], [128, 255, 128, 0, 0, 128])


@pytest.mark.parametrize("degrees", [(0, 0, 0), (12, -33, 71)])
@pytest.mark.parametrize("ratio", [(1, 1, 1), (0.5, 0.3, 0.9)])
def test_finer_target_reproduces_a_ramp(ratio, degrees):
    z, y, x = np.meshgrid(*[np.arange(17.0)] * 3, indexing="ij")
    ramp = (90 * z - 47 * y + 31 * x - 500).astype(np.int16)
    matrix = grid((8.1, 7.9, 8.2), 8, ratio, degrees)
    packed = pack([Brick(ramp, None, matrix)], 8)
    image, _ = extract(packed, 8)
    target = np.stack(np.meshgrid(*[np.arange(8)] * 3, indexing="ij"), axis=-1)
    linear = packed.matrix[0].astype(np.float64)
    p = target @ linear[:, :3].T + linear[:, 3]
    assert p.min() > 0
    assert p.max() < 16
    exact = p @ [90, -47, 31] - 500
    error = tolerances.extraction(packed, 0, 8)[0].reshape(8, 8, 8)
    assert np.all(np.abs(image[0] - exact) <= 0.5 + error)


def test_filter_is_continuous_where_the_target_becomes_coarser():
    delta, size = 1e-5, 9
    fine, same, coarse = (
        one(brick((12, 12, 12), size, ratio=(r, r, r), degrees=(25, 40, 65)), size)[0].astype(int)
        for r in (1 - delta, 1.0, 1 + delta)
    )
    # every position moves by at most size * sqrt(3) * delta voxels, every width by delta; a weight
    # follows its position at slope <= 2 in L1, its width at <= 2 * T / W = 6; rounding adds one
    bound = 1 + 3 * 4095 * delta * (size * 3**0.5 + 6)
    assert bound < 4
    for other in (fine, coarse):
        assert np.abs(other - same).max() <= bound


@pytest.mark.parametrize("degrees", [(0, 0, 0), (30, 0, 0), (45, 45, 45), (10, -70, 160)])
@pytest.mark.parametrize("ratio", [(1, 1, 1), (2.5, 1, 1), (1, 1.5, 0.4)])
def test_reach_of_the_filter(degrees, ratio):
    """A lone bright voxel shows exactly where the tent of half-width ``max(1, ratio)`` reaches it."""
    hu = np.zeros((15, 15, 15), np.int16)
    hu[7, 7, 7] = 3000
    matrix = grid((7.05, 6.98, 7.03), 13, np.array(ratio) / 2 if max(ratio) == 1 else ratio, degrees)
    image, _ = one(Brick(hu, None, matrix), 13)
    target = np.stack(np.meshgrid(*[np.arange(13)] * 3, indexing="ij"), axis=-1)
    distance = np.abs(target @ matrix[:, :3].T + matrix[:, 3] - 7)
    width = np.maximum(1, np.array(ratio) / (2 if max(ratio) == 1 else 1))
    tent = np.prod(np.maximum(0, 1 - distance / width), axis=-1)
    inside = np.all(np.abs(distance) <= 7.5, axis=-1)
    assert np.all(image[inside & (tent == 0)] == 0)
    # the sum of a tent over all voxels lies within 15 % of its width, so at least so much must show
    bright = inside & (3000 * tent / np.prod(1.15 * width) > 1)
    assert bright.sum() >= 3
    assert np.all(image[bright] > 0)


def ball(shape, spacing, radius):
    z, y, x = (np.arange(n) - (n - 1) / 2 for n in shape)
    mm = (z[:, None, None] * spacing[0], y[:, None] * spacing[1], x * spacing[2])
    return (mm[0] ** 2 + mm[1] ** 2 + mm[2] ** 2 <= radius**2).astype(np.uint8)


@pytest.mark.parametrize("ratio", [(1, 1, 1), (2, 2, 2), (0.5, 0.25, 0.5), (0.5, 2, 3), (1, 3, 2)])
def test_volume_of_a_nodule_is_kept_at_integer_ratios(ratio):
    """Tents a whole number of times wider or narrower than the grid add up to one at every voxel.

    So only rounding moves the volume: by a half of 1/255 at each target voxel of partial volume.
    """
    mask = ball((23, 23, 25), (1, 0.9, 0.8), 4.6)  # twice the widest tent inside
    shape = np.array(mask.shape)
    size = int(np.ceil(max((13 + 2 * np.array(ratio)) / ratio)))  # the nodule and what its tents reach
    matrix = grid((shape - 1) / 2, size, ratio)
    matrix[:, 3] = np.floor(matrix[:, 3])  # a voxel centre on a voxel centre
    packed = pack([Brick(np.zeros(shape, np.int16), mask, matrix)], size)
    exact = mask.astype(float)
    for axis, width in enumerate(np.maximum(1, ratio)):
        p = matrix[axis, axis] * np.arange(size) + matrix[axis, 3]
        tent = np.maximum(0, 1 - np.abs(np.arange(shape[axis]) - p[:, None]) / width) / width
        exact = np.moveaxis(np.tensordot(tent, exact, (1, axis)), 0, axis)
    assert exact.sum() * np.prod(ratio) == pytest.approx(mask.sum(), rel=1e-9)
    partial = np.sum((exact > 1e-9) & (exact < 1 - 1e-9))
    volume = extract(packed, size)[1].sum(dtype=float) / 255 * np.prod(ratio)
    assert abs(volume - mask.sum()) <= partial * 0.5 / 255 * np.prod(ratio)
    assert volume == pytest.approx(mask.sum(), rel=tolerances.RESAMPLED_VOLUME)


@pytest.mark.parametrize("degrees", [(0, 0, 0), (17, 29, -41)])
@pytest.mark.parametrize("ratio", [(0.7, 0.7, 0.7), (1.3, 1.4, 0.6), (0.35, 1.6, 1.7), (1, 1, 1)])
def test_volume_of_a_nodule_is_nearly_kept_at_any_ratio(ratio, degrees):
    mask = ball((17, 17, 17), (1, 1, 1), 5.5)
    size = int(np.ceil(30 / min(ratio)))
    matrix = grid((8.2, 7.9, 8.1), size, ratio, degrees)
    _, occupancy = one(Brick(np.zeros(mask.shape, np.int16), mask, matrix), size)
    volume = occupancy.astype(float).sum() / 255 * np.prod(ratio)
    assert volume == pytest.approx(mask.sum(), rel=tolerances.RESAMPLED_VOLUME)

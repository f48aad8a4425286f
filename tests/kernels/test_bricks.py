"""The contract of `kernels`: what is refused, and what of the rest cannot overrun memory."""

import numpy as np
import pytest

from kernels import Brick, extract, pack
from kernels.arith import MAX_TAPS
from kernels.bricks import MAX_HALF_WIDTH, MAX_SIZE
from tests.kernels.batches import cases
from tests.kernels.check import assert_equals_oracle

HU = np.zeros((3, 4, 5), np.int16)
EYE = np.eye(3, 4)


def scaled(z, y=1.0, x=1.0):
    return np.diag([z, y, x, 1.0])[:3]


def changed(row, column, value):
    matrix = EYE.copy()
    matrix[row, column] = value
    return matrix


REFUSED = {
    "hu not int16": (Brick(HU.astype(np.float32), None, EYE), "`hu`"),
    "hu of foreign byte order": (Brick(HU.astype(">i2"), None, EYE), "`hu`"),
    "hu flat": (Brick(HU[0], None, EYE), "`hu`"),
    "hu empty": (Brick(HU[:, :0], None, EYE), "`hu`"),
    "mask of another shape": (Brick(HU, np.zeros((3, 4, 4), np.uint8), EYE), "`mask`"),
    "mask of bool": (Brick(HU, np.zeros(HU.shape, np.bool_), EYE), "`mask`"),
    "mask of 0 and 255": (
        Brick(HU, HU.astype(np.uint8) + np.uint8(255), EYE),
        "`mask` must hold 0 and 1, got 255",
    ),
    "matrix 4x4": (Brick(HU, None, np.eye(4)), "`matrix`"),
    "matrix with NaN": (Brick(HU, None, changed(1, 1, np.nan)), "`matrix`"),
    "matrix with infinity": (Brick(HU, None, changed(1, 3, np.inf)), "`matrix`"),
    "matrix beyond float32": (Brick(HU, None, changed(2, 3, 1e39)), "`matrix`"),
    "matrix too coarse": (Brick(HU, None, scaled(1, 15.001)), "too coarse"),
    "matrix too coarse by shear": (Brick(HU, None, changed(0, 2, 15.0)), "too coarse"),
    "one position": (Brick(HU[:1], None, EYE, np.zeros(1)), "`slice_positions`"),
    "too few positions": (Brick(HU, None, EYE, np.array([0.0, 1])), "`slice_positions`"),
    "positions in a table": (Brick(HU, None, EYE, np.zeros((3, 1))), "`slice_positions`"),
    "positions not from 0": (Brick(HU, None, EYE, np.array([1.0, 2, 3])), "`slice_positions`"),
    "positions descend": (Brick(HU, None, EYE, np.array([0.0, 2, 1])), "`slice_positions`"),
    "positions repeat": (Brick(HU, None, EYE, np.array([0.0, 1, 1])), "`slice_positions`"),
    "positions repeat in float32": (Brick(HU, None, EYE, np.array([0.0, 1, 1 + 1e-9])), "`slice_positions`"),
    "position NaN": (Brick(HU, None, EYE, np.array([0.0, np.nan, 1])), "`slice_positions`"),
    "position infinite": (Brick(HU, None, EYE, np.array([0.0, 1, np.inf])), "`slice_positions`"),
    "too coarse for the smallest gap": (Brick(HU, None, scaled(3), np.array([0.0, 0.19, 9])), "too coarse"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    brick, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        pack([Brick(HU, None, EYE), brick], 4)


@pytest.mark.parametrize("size", [-1, 0, MAX_SIZE + 1])
def test_size_refused(size):
    with pytest.raises(ValueError, match="`size`"):
        pack([], size)
    with pytest.raises(ValueError, match="`size`"):
        extract(pack([], 1), size)


def test_voxel_counter_cannot_overflow():
    """The counter is int32 and runs at most one stride (the cube, in whole blocks) beyond the last voxel."""
    assert 2 * MAX_SIZE**3 - 1 < 2**31


@pytest.mark.parametrize("slices", [None, np.array([0, 2, 3, 80.0])])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_widest_filter_fits_its_scratch(axis, slices):
    """At the limit exactly: 31 taps, and no position at any phase that needs a 32nd."""
    assert MAX_TAPS == 2 * MAX_HALF_WIDTH + 1
    shape = [4, 4, 4]
    shape[axis] = 4 if slices is not None and axis == 0 else 80
    matrix = np.eye(3, 4)
    matrix[axis, axis] = MAX_HALF_WIDTH
    for phase in (0, 1e-7, 0.25, 0.5, 2.4, 1 - 1e-7, 33 + 1e-6, 34 - 1e-6):
        matrix[axis, 3] = phase
        rng = np.random.default_rng(0)
        hu = rng.integers(-1024, 3072, shape, np.int16)
        packed = pack([Brick(hu, (hu > 0).astype(np.uint8), matrix, slices)], 5)
        assert_equals_oracle(packed, 5, *extract(packed, 5))


def test_no_bricks():
    packed = pack([], 5)
    image, occupancy = extract(packed, 5)
    assert image.shape == occupancy.shape == (0, 5, 5, 5)
    assert (image.dtype, occupancy.dtype) == (np.int16, np.uint8)
    for none, some in zip(packed.table, pack([Brick(HU, None, EYE)], 5).table, strict=True):
        assert (none.dtype, none.ndim) == (some.dtype, some.ndim)


def test_pack_copies_and_leaves_its_input_alone():
    bricks = cases(5)["ragged"]
    before = [(b.hu.copy(), b.matrix.copy()) for b in bricks]
    packed = pack(bricks, 5)
    extract(packed, 5)
    packed.hu[:] = 0
    for brick, (hu, matrix) in zip(bricks, before, strict=True):
        np.testing.assert_array_equal(brick.hu, hu)
        np.testing.assert_array_equal(brick.matrix, matrix)


def test_strided_and_read_only_bricks_are_packed_in_order():
    hu = np.arange(2 * 3 * 8, dtype=np.int16).reshape(2, 3, 8)
    turned = hu[:, ::-1, ::2]
    turned.flags.writeable = False
    packed = pack([Brick(turned, None, EYE), Brick(np.asfortranarray(hu), None, EYE)], 3)
    np.testing.assert_array_equal(packed.hu[:24], turned.ravel())
    np.testing.assert_array_equal(packed.hu[24:], hu.ravel())

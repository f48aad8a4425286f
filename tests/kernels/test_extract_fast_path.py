"""The fast paths are equal to the definition to the last bit.

One goes row by row and applies to every brick; the other skips work whose result is known and applies
to even bricks whose matrix has no off-diagonal entry (axial scans). All start from different poison,
so a voxel that one of them leaves unwritten shows.
"""

import numpy as np
import pytest
from hypothesis import given, settings

from kernels import _compiled, pack
from kernels.bricks import is_aligned
from tests.kernels.batches import SIZES, batches, brick, cases
from tests.kernels.check import POISON_HU, POISON_OCCUPANCY


def both(fast, packed, b, size):
    results = []
    for kernel, more in ((fast, 0), (_compiled.extract_direct, 1)):
        image = np.full((size, size, size), POISON_HU + more, np.int16)
        occupancy = np.full((size, size, size), POISON_OCCUPANCY + more, np.uint8)
        kernel(*packed.table, b, image, occupancy)
        results.append((image, occupancy))
    return results


def assert_paths_equal(bricks, size):
    packed = pack(bricks, size)
    compared = 0
    for b in range(len(bricks)):
        paths = [_compiled.extract_rows]
        if is_aligned(packed, b):
            paths.append(_compiled.extract_aligned)
            compared += 1
        for path in paths:
            fast, direct = both(path, packed, b, size)
            np.testing.assert_array_equal(fast[0], direct[0])
            np.testing.assert_array_equal(fast[1], direct[1])
    return compared


@given(batches(aligned=True))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_any_axial_brick(batch):
    bricks, size = batch
    assert assert_paths_equal(bricks, size) == len(bricks)


@given(batches())
@settings(max_examples=200, deadline=None, derandomize=True)
def test_any_brick(batch):
    assert_paths_equal(*batch)


@pytest.mark.parametrize("size", SIZES)
def test_named_cases(size):
    compared = {name: assert_paths_equal(bricks, size) for name, bricks in cases(size).items()}
    assert compared["identity"] == compared["coarser"] == compared["flipped"] == compared["outside"] == 1
    assert compared["sheets"] == 3
    assert compared["oblique"] == compared["tilted"] == compared["uneven"] == compared["crowded_ends"] == 0


def test_sparse_mask():
    """Most slices and rows hold no nodule: the fast path skips them."""
    source = brick((9, 9, 9), 8, ratio=(1.3, 0.8, 1.1))
    source.mask[:] = 0
    source.mask[3, 5, 2] = 1
    assert assert_paths_equal([source], 8) == 1


def test_negligible_rotation_is_dropped():
    """A direction cosine of 1e-9 is rounding noise; one of 1e-3 is a rotation."""
    source = brick((9, 9, 9), 8)
    source.matrix[0, 1] = 1e-9
    assert is_aligned(pack([source], 8), 0)
    source.matrix[0, 1] = 1e-3
    assert not is_aligned(pack([source], 8), 0)


def test_without_a_mask_its_voxels_are_not_read():
    """`pack` leaves zeros there, but the table says that there is no mask, and the table is believed."""
    packed = pack([brick((9, 9, 9), 8, mask=False)], 8)
    packed.mask[:] = 1
    for _, occupancy in both(_compiled.extract_rows, packed, 0, 8):
        assert not occupancy.any()

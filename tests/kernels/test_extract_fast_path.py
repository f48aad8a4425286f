"""The fast paths are equal to the definition to the last bit.

One goes row by row and applies to every brick; the other skips work whose result is known and applies
to even bricks whose matrix has no off-diagonal entry (axial scans). All start from different poison,
so a voxel that one of them leaves unwritten shows.
"""

import subprocess
import sys

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


BEHIND = """
import ctypes, mmap
import numpy as np
from dataclasses import replace
from kernels import extract, pack
from tests.kernels.batches import brick

source = brick((7, 8, 9), 13, shift=(3, 3, 3), ratio=(0.5, 0.5, 0.5), degrees=(9, 5, 3))  # past a corner
packed = pack([source], 13)
pages = mmap.mmap(-1, 2 * mmap.PAGESIZE)
start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
hu = np.frombuffer(pages, np.int16, packed.hu.size, mmap.PAGESIZE - packed.hu.nbytes)
hu[:] = packed.hu
assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(start + mmap.PAGESIZE), mmap.PAGESIZE, 0) == 0
shown, expected = extract(replace(packed, hu=hu), 13)[0], extract(packed, 13)[0]
assert (shown == expected).all()
print("whole", flush=True)
__import__("os")._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mprotect by way of libc")
def test_nothing_is_read_behind_the_last_voxel():
    """The page behind it may not be touched: a pair loaded across the end would end the process."""
    ended = subprocess.run([sys.executable, "-c", BEHIND], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, "whole"), ended.stderr

"""The CPU kernels equal the independent float64 oracle within the derived tolerance."""

import numpy as np
import pytest
from hypothesis import given, settings

from kernels import extract, oracle, pack
from tests import tolerances
from tests.kernels.batches import CASES, SIZES, batches, cases
from tests.kernels.check import assert_equals_oracle


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", SIZES)
def test_named_cases_equal_oracle(name, size):
    packed = pack(cases(size)[name], size)
    assert_equals_oracle(packed, size, *extract(packed, size))


@given(batches())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_batch_equals_oracle(batch):
    bricks, size = batch
    packed = pack(bricks, size)
    assert_equals_oracle(packed, size, *extract(packed, size))


def test_a_brick_does_not_depend_on_its_batch():
    bricks = cases(5)["ragged"]
    together = extract(pack(bricks, 5), 5)
    for b, brick in enumerate(bricks):
        alone = extract(pack([brick], 5), 5)
        for whole, part in zip(together, alone, strict=True):
            np.testing.assert_array_equal(whole[b], part[0])


def test_cases_reach_inside_and_outside():
    """The cases prove something only if they hold voxels of both kinds."""
    outside = {}
    for name, bricks in cases(5).items():
        outside[name] = oracle.extract(pack(bricks, 5), 5)[2].mean()
    assert outside["outside"] == 1
    assert all(outside[name] == 0 for name in ("plain", "finer", "oblique", "uneven", "crowded_fine"))
    assert all(0.3 < outside[name] < 0.99 for name in ("border", "off_corner", "coarser", "sheets"))


@pytest.mark.parametrize("name", [name for name in CASES if name != "outside"])
def test_tolerance_is_tight(name):
    """Derived, not generous: far below the half that rounding costs, and mostly below a tenth HU."""
    packed = pack(cases(5)[name], 5)
    for b in range(len(packed.offset)):
        hu_error, share_error = tolerances.extraction(packed, b, 5)
        assert np.max(hu_error) < (0.2 if name == "widest" else 0.1)
        assert np.max(share_error) < 0.02

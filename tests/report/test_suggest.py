"""Suggested settings against answers worked out by hand."""

import math

import pytest

from tests.report.stores import margin_of
from toolkit.report.suggest import Crop, Extent, ball, suggest, weigh

NOW = Crop(1.0, 64, 16)


def balls(*diameters: float) -> list[Extent]:
    return [Extent(d / 2, d, math.pi / 6 * d**3) for d in diameters]


@pytest.mark.parametrize(
    ("extents", "source_mm", "spacing", "size"),
    [
        (balls(*[20.0] * 100), 0.7, 2.0, 16),  # 20/6 mm is coarser than 2; 20 + 10 mm are 15 voxels
        (balls(*[4.5] * 100), None, 0.75, 24),  # 4.5/6; 14.5 mm are 19.3 voxels
        (balls(*[4.5] * 100), 0.9, 0.9, 24),  # no finer than the scans; 16.1 voxels
        (balls(*[3.0] * 100), 0.72, 0.7, 24),  # 0.05 mm steps, down; 18.6 voxels
        (balls(*[6.0] * 99, 60.0), None, 1.0, 16),  # the largest 1 % need not fit; 16 mm exactly
        (balls(*[6.0] * 98, 60.0, 60.0), None, 1.0, 72),  # the largest 2 % must; 70 voxels
        (balls(12.0), None, 2.0, 16),  # one nodule; 22 mm are 11 voxels
    ],
)
def test_the_rule(extents, source_mm, spacing: float, size: int) -> None:
    advice = suggest(extents, NOW, margin_of, source_mm)
    assert advice is not None
    best = advice.suggested.crop
    assert (best.spacing_mm, best.size, best.margin) == (spacing, size, size // 4)
    assert advice.suggested.cut_share <= 0.01


def test_nothing_to_fit() -> None:
    assert suggest([], NOW, margin_of) is None


def test_what_settings_mean() -> None:
    option = weigh("x", Crop(0.5, 40, 10), balls(10.0, 10.0, 10.0, 30.0), Crop(1.0, 20, 0))
    assert option.cut_share == 0.25  # 30 mm do not fit into 20 mm
    assert option.background == pytest.approx(1 - math.pi / 6 / 8)  # a ball in a cube twice as wide
    assert option.across == pytest.approx(20.0)
    assert option.stored_bytes == 4 * 60**3 * 3
    assert option.cost == 8.0
    assert ball(10.0) == pytest.approx(523.5988, abs=1e-4)


def test_a_nodule_larger_than_its_crop_leaves_no_background_below_nothing() -> None:
    assert weigh("x", Crop(1.0, 8, 0), balls(100.0), NOW).background == 0


def test_a_nodule_that_just_fits_is_not_cut() -> None:
    assert weigh("x", Crop(0.7, 30, 0), balls(21.0), NOW).cut_share == 0


def test_alternatives_are_all_different_and_one_fits_all() -> None:
    extents = balls(*[4.0 + 0.2 * k for k in range(100)], 50.0)
    advice = suggest(extents, NOW, margin_of, 0.5)
    assert advice is not None
    crops = [o.crop for o in (advice.now, advice.suggested, *advice.others)]
    assert len({*crops}) == len(crops) >= 5
    everything = next(o for o in advice.others if o.name == "all fit")
    assert (everything.cut_share, advice.suggested.cut_share) == (0, pytest.approx(1 / 101))
    assert advice.now.cost == 1


def test_what_the_store_has_already_is_not_named_twice() -> None:
    extents = balls(*[6.0] * 50)
    advice = suggest(extents, Crop(1.0, 16, 4), margin_of)
    assert advice is not None
    assert advice.suggested.crop == advice.now.crop
    assert advice.now.crop not in [o.crop for o in advice.others]

"""Measurements on balls whose answers are known."""

from pathlib import Path

import numpy as np
import pytest

from tests.report.stores import LUNG_HU, NODULE_HU, ball, make, nodule
from toolkit.report.flags import FLAGS, MODIFIED_Z, flags_of, unusual_sizes
from toolkit.report.measure import HU_BINS, HU_STEP, LOW_HU, OUTSIDE_HU, Measured, hu_counts, measure, survey

GOOD = Measured(0.0, held_share=1.0, reach_mm=4.0, off_mm=0.1, inside_hu=30.0, contrast_hu=800.0)


@pytest.mark.parametrize("spacing", [0.5, 1.0, 1.25])
def test_a_ball_in_the_middle(spacing: float) -> None:
    image, mask = ball(41, 8 * spacing, spacing)
    one = measure(image, mask, 4, spacing)
    assert (one.outside_share, one.held_share, one.touches) == (0, 1, False)
    assert one.reach_mm == pytest.approx(8.5 * spacing)  # to the outer face of the last voxel
    assert one.off_mm == pytest.approx(0, abs=1e-9)
    assert one.inside_hu == NODULE_HU
    assert one.contrast_hu == NODULE_HU - LUNG_HU


def test_a_ball_off_the_centre() -> None:
    image, mask = ball(41, 5.0, at_mm=(6.0, 0.0, -2.0))
    one = measure(image, mask, 0, 1.0)
    assert one.off_mm == pytest.approx(np.sqrt(40))
    assert one.reach_mm == pytest.approx(11.5)


def test_a_ball_cut_in_half_by_the_crop() -> None:
    image, mask = ball(40, 6.0, at_mm=(12.0, 0.0, 0.0))  # the crop's face is 12 mm from its centre
    one = measure(image, mask, 8, 1.0)
    assert one.touches
    assert one.held_share == pytest.approx(0.5)
    assert one.reach_mm == pytest.approx(18.0)
    near = measure(*ball(40, 6.0, at_mm=(5.0, 0.0, 0.0)), 8, 1.0)
    assert (near.touches, near.held_share) == (False, 1)


def test_a_mask_in_the_margin_only_is_not_held() -> None:
    image, mask = ball(40, 2.0, at_mm=(16.0, 0.0, 0.0))
    one = measure(image, mask, 8, 1.0)
    assert (one.held_share, one.touches) == (0, False)


def test_no_mask() -> None:
    image, mask = ball(16, 3.0)
    image[:8] = OUTSIDE_HU
    assert measure(image, np.zeros_like(mask), 0, 1.0) == Measured(0.5)


def test_a_mask_that_fills_the_crop_has_no_surroundings() -> None:
    image, mask = np.full((8, 8, 8), 100, np.int16), np.full((8, 8, 8), 255, np.uint8)
    one = measure(image, mask, 0, 1.0)
    assert (one.touches, one.contrast_hu, one.inside_hu) == (True, None, 100)


def test_counts_hold_every_voxel() -> None:
    values = np.array([-2000, -1024, -1001, -1000, -981, -980, 0, 3071, 9000], np.int16)
    counts = hu_counts(values)
    assert (counts.sum(), len(counts)) == (9, HU_BINS)
    assert (counts[0], counts[1], *counts[-2:]) == (5, 1, 1, 1)
    assert counts[-LOW_HU // HU_STEP] == 1


def test_a_survey_of_a_store_counts_inside_and_everywhere(tmp_path: Path) -> None:
    store = make(tmp_path / "s", 5)
    found = survey(store)
    inner = slice(store.margin, store.margin + store.size)
    images = np.concatenate([shard.images for shard in store.shards])[:, inner, inner, inner]
    masks = np.concatenate([shard.masks for shard in store.shards])[:, inner, inner, inner]
    edges = np.array([LOW_HU + HU_STEP * k for k in range(HU_BINS + 1)])
    np.testing.assert_array_equal(found.crop_counts, np.histogram(images, edges)[0])
    np.testing.assert_array_equal(found.inside_counts, np.histogram(images[masks > 0], edges)[0])
    assert len(found.measured) == 5


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({}, ()),
        ({"held_share": None, "inside_hu": None, "contrast_hu": None, "off_mm": None}, ("empty",)),
        ({"held_share": 0.0}, ("empty",)),
        ({"touches": True}, ("cut",)),
        ({"off_mm": 4.1}, ("off",)),  # more than 2 + 8/4
        ({"off_mm": 3.9}, ()),
        ({"inside_hu": -901.0}, ("hu",)),
        ({"inside_hu": 501.0}, ("hu",)),
        ({"inside_hu": 500.0}, ()),
        ({"contrast_hu": 49.0}, ("faint",)),
        ({"contrast_hu": 50.0}, ()),
        ({"outside_share": 0.51}, ("outside",)),
        ({"outside_share": 0.5}, ()),
        ({"touches": True, "contrast_hu": -10.0, "outside_share": 0.9}, ("cut", "faint", "outside")),
    ],
)
def test_each_flag_has_its_rule(changes, flags) -> None:
    one = Measured(**{**vars(GOOD), **changes})
    assert flags_of([nodule()], [one], ["a"]) == [flags]


def test_a_point_raises_no_flag_of_masks() -> None:
    assert flags_of([nodule(mask_source="none")], [Measured(0.0)], ["a"]) == [()]


def test_twins_are_found() -> None:
    nodules = [nodule(k) for k in range(3)]
    assert flags_of(nodules, [GOOD] * 3, ["a", "b", "a"]) == [("twin",), (), ("twin",)]


def test_unusual_sizes_are_those_far_from_the_others() -> None:
    usual = list(np.geomspace(4, 16, 31))  # median 8; the median distance is half an octave
    limit = 8 * 2 ** (MODIFIED_Z / 0.6745 / 2)
    found = unusual_sizes([*usual, limit * 1.4, limit * 0.8, 8 * 8 / limit / 1.4])
    assert [k for k, odd in enumerate(found) if odd] == [31, 33]
    assert not any(unusual_sizes([5.0, 5.0, 500.0]))  # too few to judge
    assert not any(unusual_sizes([5.0] * 20 + [500.0]))  # no spread to measure by


def test_every_flag_can_be_told_from_the_others() -> None:
    assert len({flag.key for flag in FLAGS}) == len({flag.short for flag in FLAGS}) == len(FLAGS)

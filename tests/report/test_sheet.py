"""Strips of slices, read back with Pillow."""

import io
import json
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.report.stores import MARGIN, SIZE, ball, make, nodule
from toolkit.report.measure import survey
from toolkit.report.sheet import (
    LEVELS,
    TONE,
    TONE_HU,
    Level,
    choose,
    make_sheet,
    make_strip,
    sheet_json,
    slice_indices,
)
from toolkit.store import Store

FINE = Level(17, 96, 95)


def pixels(base64: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(b64decode(base64))).convert("L"))


def test_a_strip_holds_the_slices_that_it_says(tmp_path: Path) -> None:
    store = make(tmp_path / "s", 3)
    strip = make_strip(store, 2, 8.0, FINE)
    image, mask = pixels(strip.image).reshape(-1, SIZE, SIZE), pixels(strip.mask).reshape(-1, SIZE, SIZE)
    inner = slice(MARGIN, MARGIN + SIZE)
    crop, truth = store.image(2)[inner, inner, inner], store.mask(2)[inner, inner, inner]
    assert len(image) == len(mask) == len(strip.offsets_mm) == 17
    assert sorted(strip.offsets_mm, reverse=True) == list(strip.offsets_mm)  # from head to foot
    for k, offset in enumerate(strip.offsets_mm):
        z = round(offset + (SIZE - 1) / 2)
        np.testing.assert_array_equal(mask[k] > 0, truth[z] >= 128)
        expected = np.interp(crop[z], TONE_HU, TONE)
        assert np.abs(image[k] - expected).mean() < 3


def test_the_uppermost_slice_comes_first(tmp_path: Path) -> None:
    images = np.broadcast_to((-900 + 40 * np.arange(SIZE))[:, None, None], (SIZE,) * 3).astype(np.int16)
    _, mask = ball(SIZE, 4.0)
    store = Store.create(tmp_path / "s", [nodule()], images[None], mask[None], 1.0)
    rows = pixels(make_strip(store, 0, 8.0, FINE).image).reshape(-1, SIZE, SIZE).mean(axis=(1, 2))
    assert (np.diff(rows) < 0).all()


def test_large_crops_are_brought_to_size(tmp_path: Path) -> None:
    image, mask = ball(100, 20.0)
    store = Store.create(tmp_path / "s", [nodule(diameter_mm=40.0)], image[None], mask[None], 1.0)
    strip = make_strip(store, 0, 24.0, Level(9, 50, 90))
    small = pixels(strip.mask).reshape(-1, 50, 50)
    assert pixels(strip.image).shape == (450, 50)
    middle = small[len(small) // 2] > 0
    assert middle.sum() * 4 == pytest.approx(np.pi * 400, rel=0.02)  # the area of the disc
    rows, columns = np.nonzero(middle)
    assert rows.mean() == pytest.approx(24.5, abs=0.1)
    assert columns.mean() == pytest.approx(24.5, abs=0.1)


def test_no_mask_is_no_bytes(tmp_path: Path) -> None:
    store = make(tmp_path / "s", 1, mask_source="none", occupancy=0.0, volume_mm3=None)
    assert make_strip(store, 0, 8.0, FINE).mask == ""


@pytest.mark.parametrize(
    ("size", "spacing", "shown", "most", "expected"),
    [
        (64, 1.0, 8.0, 9, [24, 26, 28, 30, 32, 34, 36, 38, 40]),
        (64, 0.5, 8.0, 5, [16, 24, 32, 40, 48]),
        (5, 1.0, 8.0, 9, [0, 1, 2, 3, 4]),
        (4, 1.0, 8.0, 9, [1, 2, 3]),
        (1, 1.0, 8.0, 9, [0]),
    ],
)
def test_slices_lie_evenly_about_the_middle(size, spacing, shown, most, expected) -> None:
    assert slice_indices(size, spacing, shown, most) == expected
    assert expected[len(expected) // 2] == size // 2


def test_flagged_ones_are_chosen_first() -> None:
    flagged = [k % 10 == 3 for k in range(100)]
    chosen = choose(flagged, 30)
    assert chosen == sorted({*chosen})
    assert len(chosen) == 30
    assert {k for k in range(100) if flagged[k]} <= {*chosen}
    others = [k for k in chosen if not flagged[k]]
    assert max(np.diff(others)) <= 7  # even: 90 over 20 are 4.5 apart, and flagged ones lie between
    assert choose(flagged, 4) == [3, 23, 53, 73]
    assert choose(flagged, 1000) == list(range(100))
    assert choose(flagged, 0) == []


def test_what_does_not_fit_is_held_less_well_then_left_out(tmp_path: Path) -> None:
    store = make(tmp_path / "s", 40, noise=30)
    measured = survey(store).measured
    flags = [()] * 40
    whole = make_sheet(store, measured, flags)
    assert (whole.level, len(whole.strips)) == (LEVELS[0], 40)
    cost = sum(len(strip.image) + len(strip.mask) for strip in whole.strips)
    tight = make_sheet(store, measured, flags, budget=cost // 2)
    assert tight.level != LEVELS[0]
    assert len(tight.strips) == 40
    tiny = make_sheet(store, measured, flags, budget=cost // 20)
    assert 0 < len(tiny.strips) < 40
    assert tiny.level == LEVELS[-1]
    for sheet, limit in ((tight, cost // 2), (tiny, cost // 20)):
        assert sum(len(s.image) + len(s.mask) for s in sheet.strips) <= 1.1 * limit
    assert len(make_sheet(store, measured, flags, most=7).strips) == 7


def test_the_script_gets_plain_and_harmless_json(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    image, mask = ball(SIZE, 4.0)
    records = [nodule(nodule_id=evil, label=None, volume_mm3=None)]
    store = Store.create(tmp_path / "s", records, image[None], mask[None], 1.0)
    measured = survey(store).measured
    text = sheet_json(make_sheet(store, measured, [("cut", "size")]), store, measured, [("cut", "size")])
    assert "<" not in text
    value = json.loads(text)
    assert value["id"] == [evil]
    assert value["label"] == ["open"]
    assert value["volume"] == [None]
    assert [key for k, (key, _) in enumerate(value["flags"]) if value["raised"][0] >> k & 1] == [
        "cut",
        "size",
    ]
    assert len({len(v) for v in value.values() if isinstance(v, list)} - {4, len(value["flags"])}) == 1

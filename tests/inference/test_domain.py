"""Where a nodule lies outside what the model saw."""

import numpy as np
import pytest

from toolkit.inference.domain import domain_notes
from toolkit.models.folder import Range

SEEN = {"diameter_mm": Range(3.0, 4.0, 8.0, 25.0, 30.0), "slice_spacing_mm": Range(1.0, 1.0, 1.0, 2.5, 2.5)}


def notes(**values: float) -> list[str]:
    (found,) = domain_notes(SEEN, {name: np.array([value]) for name, value in values.items()})
    return [f"{note.code} {note.public}" for note in found]


@pytest.mark.parametrize(
    ("diameter", "code"),
    [
        (2.9, "W-PRED-001"),
        (3.0, "W-PRED-002"),
        (3.9, "W-PRED-002"),
        (4.0, None),
        (25.0, None),
        (25.1, "W-PRED-002"),
        (30.0, "W-PRED-002"),
        (30.1, "W-PRED-001"),
        (np.nan, None),
        (np.inf, "W-PRED-001"),
    ],
)
def test_the_ends_belong_to_what_was_seen(diameter: float, code: str | None) -> None:
    assert [text[:10] for text in notes(diameter_mm=diameter)] == ([code] if code else [])


def test_the_words_say_what_was_measured_and_what_was_seen() -> None:
    outside, rare = notes(diameter_mm=42.345, slice_spacing_mm=5.0)[0], notes(diameter_mm=28.0)[0]
    assert "diameter" in outside
    assert "42.34 mm" in outside
    assert "3 to 30 mm" in outside
    assert "28 mm, 4 to 25 mm (98 of 100) expected" in rare
    assert notes(slice_spacing_mm=5.0) == [
        "W-PRED-001 slice spacing of the scan outside of what the model saw: 5 mm, 1 to 2.5 mm expected."
    ]


def test_a_stored_spacing_that_was_rounded_is_the_same_spacing() -> None:
    assert notes(slice_spacing_mm=2.5 + 5e-7) == notes(slice_spacing_mm=1.0 - 5e-7) == []


def test_what_training_did_not_record_says_nothing() -> None:
    assert domain_notes({}, {"diameter_mm": np.array([1e9, 1.0])}) == [(), ()]
    assert domain_notes(SEEN, {"mean_hu": np.array([1e9])}) == [()]

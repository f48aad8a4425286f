"""Where a nodule lies outside what the model saw: a probability there is a guess, and says so."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import Problem
from toolkit.models.folder import Range

WORDS = {
    "diameter_mm": ("diameter", "mm"),
    "mean_hu": ("mean density", "HU"),
    "slice_spacing_mm": ("slice spacing of the scan", "mm"),
    "pixel_spacing_mm": ("pixel spacing of the scan", "mm"),
}
ROUNDING = 1e-6
"""Relative; spacings are stored with six decimals."""


def domain_notes(
    seen: Mapping[str, Range], features: Mapping[str, NDArray[np.float64]]
) -> list[tuple[Problem, ...]]:
    """Return what lies outside the ranges that training saw, a tuple for each nodule.

    Outside of least and largest it is W-PRED-001, outside of the middle 98 % W-PRED-002. A value that is
    unknown (NaN), and a feature that training did not record, say nothing.
    """
    count = len(next(iter(features.values()), ()))
    return [
        tuple(
            note
            for name, of in seen.items()
            if name in features and (note := _judge(name, float(features[name][k]), of)) is not None
        )
        for k in range(count)
    ]


def _judge(name: str, value: float, seen: Range) -> Problem | None:
    what, unit = WORDS.get(name, (name, ""))
    measured = f"{value:.4g} {unit}".strip()
    if _beyond(value, seen.least, seen.largest):
        expected = f"{seen.least:.4g} to {seen.largest:.4g} {unit}".strip()
        return Problem("W-PRED-001", f"{what} outside of what the model saw", measured, expected)
    if _beyond(value, seen.low, seen.high):
        expected = f"{seen.low:.4g} to {seen.high:.4g} {unit} (98 of 100)".replace("  ", " ")
        return Problem("W-PRED-002", f"{what} as the model saw it rarely", measured, expected)
    return None


def _beyond(value: float, low: float, high: float) -> bool:
    slack = ROUNDING * max(abs(low), abs(high))
    return value < low - slack or value > high + slack  # NaN is neither

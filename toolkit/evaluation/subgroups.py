"""The same numbers for nodules that have something in common: size, solidity, slice spacing."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from toolkit.evaluation.bootstrap import intervals
from toolkit.evaluation.evaluation import Subgroup
from toolkit.evaluation.metrics import auroc, count
from toolkit.evaluation.pooled import Floats, Lines, Side

FEWEST = 10
"""Nodules of a class below which a number says nothing."""
DIAMETER = ((6.0, 8.0, 15.0), ("below 6 mm", "6 to 8 mm", "8 to 15 mm", "15 mm and more"))
"""6 and 8 mm are where guidelines on lung nodules change their advice (Fleischner 2017)."""
SOLIDITY = ((0.2, 0.8), ("ground glass: below 20 % solid", "part-solid: 20 to 80 %", "solid: 80 % and more"))
SLICES = ((1.3, 2.6), ("up to 1.25 mm", "1.25 to 2.5 mm", "above 2.5 mm"))
"""Ends lie between the spacings that scanners make, so that rounding moves no scan."""


def subgroups(
    side: Side, solid_share: Floats | None, spacing_mm: Mapping[str, tuple[float, float]] | None
) -> tuple[Subgroup, ...]:
    """Return every group that has a nodule; `solid_share` (n,) is of the scored lines."""
    groups = [("diameter", *each) for each in _bands(side.lines.diameter_mm, *DIAMETER)]
    if solid_share is not None:
        groups += [("solidity", *each) for each in _bands(solid_share, *SOLIDITY)]
    if spacing_mm is not None:
        nothing = (np.nan, np.nan)
        slices = np.array([spacing_mm.get(case, nothing)[0] for case in side.lines.case_id.tolist()])
        groups += [("slice spacing", *each) for each in _bands(slices, *SLICES)]
    masks = [inside for _, _, inside in groups]
    calibrated, label, called = side.lines.calibrated, side.lines.label, side.lines.decision == 1

    def statistic(lines: Lines, weights: Floats) -> Floats:
        told = []
        for inside in masks:
            here = np.flatnonzero(inside[lines])
            some, few = lines[here], weights[:, here]
            counts = count(called[some], label[some], few)
            told += [auroc(calibrated[some], label[some], few), counts.recall, counts.specificity]
        return np.stack(told, axis=1)

    value, drawn = side.resample(statistic)
    return tuple(
        _group(side, by, name, inside, value[3 * k : 3 * k + 3], drawn[:, 3 * k : 3 * k + 3])
        for k, (by, name, inside) in enumerate(groups)
    )


def _bands(
    values: Floats, ends: Sequence[float], names: Sequence[str]
) -> list[tuple[str, NDArray[np.bool_]]]:
    band = np.searchsorted(ends, values, side="right")
    band[np.isnan(values)] = len(names)
    masks = [(name, band == k) for k, name in enumerate((*names, "unknown"))]
    return [(name, inside) for name, inside in masks if inside.any()]


def _group(
    side: Side, by: str, name: str, inside: NDArray[np.bool_], value: Floats, drawn: Floats
) -> Subgroup:
    once = inside & side.first
    positives = int(side.lines.label[once].sum())
    negatives = int(once.sum()) - positives
    enough = (min(positives, negatives) >= FEWEST, positives >= FEWEST, negatives >= FEWEST)
    value = np.where(enough, value, np.nan)
    told = "" if enough[0] else f"too few: {positives} malignant, {negatives} benign"
    patients = side.patients(once)
    either = [side.patients(once & (side.lines.label == k)) for k in (1, 0)]
    area, recall, specificity = intervals(value, drawn, [min(either), *either])
    nodules = positives + negatives
    return Subgroup(by, name, nodules, patients, positives, area, recall, specificity, told)

"""ROC and precision-recall curves as a few points, each with a band over the patient bootstrap."""

import numpy as np
from numpy.typing import NDArray

from toolkit.evaluation.bootstrap import intervals
from toolkit.evaluation.evaluation import Curve
from toolkit.evaluation.metrics import steps
from toolkit.evaluation.pooled import Floats, Lines, Side

POINTS = 400
ROC_GRID = tuple(k / 50 for k in range(51))
RECALL_GRID = tuple(k / 50 for k in range(1, 51))
ROUNDING = 1e-9
"""Counts are whole; shares of them are rounded."""


def curves(side: Side) -> tuple[Curve, Curve]:
    """Return the ROC and the precision-recall curve.

    The band of the ROC is of the largest recall at a false-positive rate of at most x; that of the
    precision-recall curve is of the precision at the highest threshold whose recall reaches x.
    """
    rates, recalls = np.array(ROC_GRID), np.array(RECALL_GRID)

    def statistic(lines: Lines, weights: Floats) -> Floats:
        _, found, alarms = steps(side.lines.calibrated[lines], side.lines.label[lines], weights)
        told = np.full((len(weights), len(rates) + len(recalls)), np.nan)
        for row, hits, false in zip(told, found, alarms, strict=True):
            if hits[-1] and false[-1]:
                k = np.searchsorted(false, rates * false[-1] + ROUNDING, side="right") - 1
                row[: len(rates)] = hits[k] / hits[-1]
                k = np.searchsorted(hits, recalls * hits[-1] - ROUNDING, side="left")
                row[len(rates) :] = hits[k] / (hits[k] + false[k])
        return told

    bands = intervals(*side.resample(statistic))
    lines = side.repeats[0]
    label = side.lines.label[lines]
    _, (found,), (alarms,) = steps(side.lines.calibrated[lines], label, np.ones((1, len(lines))))
    recall, rate = found / found[-1], alarms / alarms[-1]
    precision = found[1:] / (found[1:] + alarms[1:])
    roc = Curve(*_thin(rate, recall), ROC_GRID, tuple(bands[: len(rates)]))
    return roc, Curve(*_thin(recall[1:], precision), RECALL_GRID, tuple(bands[len(rates) :]))


def _thin(x: Floats, y: Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return at most `POINTS` points: corners of the curve, then every so many of them, ends kept."""
    turns = np.ones(len(x), np.bool_)
    turns[1:-1] = ((x[1:-1] != x[:-2]) | (x[1:-1] != x[2:])) & ((y[1:-1] != y[:-2]) | (y[1:-1] != y[2:]))
    corners = np.flatnonzero(turns)
    some: NDArray[np.intp] = corners[
        np.unique(np.round(np.linspace(0, len(corners) - 1, min(POINTS, len(corners)))).astype(np.intp))
    ]
    return tuple(map(float, x[some])), tuple(map(float, y[some]))

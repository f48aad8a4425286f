"""Validation logits whose population metrics are known, and the records of such a run."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from toolkit.evaluation.results import AtThreshold, Interval, Summary
from toolkit.training.record import EpochRecord

Floats = NDArray[np.float64]


def at(logit: Floats, label: Floats, threshold: float, half: float = 0.05) -> AtThreshold:
    """A threshold, with intervals of a given half width."""
    called, positive = logit >= threshold, label == 1
    hits = (called & positive).sum()
    recall, specificity = hits / positive.sum(), (~called & ~positive).sum() / (~positive).sum()
    f_beta = 5 * hits / (4 * positive.sum() + called.sum())
    values = (recall, specificity, hits / max(called.sum(), 1), (recall + specificity) / 2, f_beta)
    return AtThreshold(threshold, *(around(float(value), half) for value in values))


def around(value: float, half: float) -> Interval:
    return Interval(value, value - half, value + half)


def summary(logit: Floats, label: Floats, threshold: float = 0.0, half: float = 0.05) -> Summary:
    """One side at one time; no two logits are equal."""
    loss = np.logaddexp(0, np.where(label == 1, -logit, logit))
    positive, negative = float(loss[label == 1].mean()), float(loss[label == 0].mean())
    hits = label[np.argsort(-logit)].cumsum()
    steps = np.diff(hits, prepend=0) == 1
    precision = (hits / np.arange(1, len(label) + 1))[steps].mean()
    wrong = (np.arange(len(label)) + 1 - hits)[steps]  # benign nodules above each malignant one
    return Summary(
        len(label),
        len(label),
        int(label.sum()),
        (positive + negative) / 2,
        positive,
        negative,
        around(float(1 - wrong.mean() / (label == 0).sum()), half),
        around(float(precision), half),
        at(logit, label, 0.0, half),
        at(logit, label, threshold, half),
    )


def records(
    logits: Floats, label: Floats, thresholds: Sequence[float] | None = None, train: Sequence[Summary] = ()
) -> list[EpochRecord]:
    """The records of a run with these validation logits, (epochs, n)."""
    made = []
    for index, logit in enumerate(logits):
        val = summary(logit, label, thresholds[index] if thresholds else 0.0)
        side = train[index] if train else val
        made.append(EpochRecord(index + 1, 1e-3, 0.5, val, side, val.auroc.value, 1))
    return made

"""Validation logits whose population metrics are known, and the records of such a run."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, fbeta_score, recall_score, roc_auc_score

from toolkit.evaluation.results import AtThreshold, Interval, Summary
from toolkit.training.record import EpochRecord

Floats = NDArray[np.float64]


def at(logit: Floats, label: Floats, threshold: float, half: float = 0.05) -> AtThreshold:
    """What scikit-learn finds at a threshold, with intervals of a given half width."""
    called = logit >= threshold
    recall, specificity = recall_score(label, called), recall_score(1 - label, ~called)
    precision = (called & (label == 1)).sum() / max(called.sum(), 1)
    f_beta = fbeta_score(label, called, beta=2)
    values = (recall, specificity, precision, (recall + specificity) / 2, f_beta)
    return AtThreshold(threshold, *(Interval(float(v), float(v - half), float(v + half)) for v in values))


def summary(logit: Floats, label: Floats, threshold: float = 0.0, half: float = 0.05) -> Summary:
    """One side at one time."""
    loss = np.logaddexp(0, np.where(label == 1, -logit, logit))
    positive, negative = float(loss[label == 1].mean()), float(loss[label == 0].mean())
    auroc, precision = roc_auc_score(label, logit), average_precision_score(label, logit)
    return Summary(
        len(label),
        len(label),
        int(label.sum()),
        (positive + negative) / 2,
        positive,
        negative,
        Interval(float(auroc), float(auroc - half), float(auroc + half)),
        Interval(float(precision), float(precision - half), float(precision + half)),
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

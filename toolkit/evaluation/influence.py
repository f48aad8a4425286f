"""What each patient moves a metric by: standard errors of differences without redrawing.

The derivative of a metric with respect to the weight of a nodule, added up by patient: the infinitesimal
jackknife (Efron 1981). For the area under the ROC curve it gives the variance of DeLong 1988, with patients
as clusters that of Obuchowski 1997. Derivatives of a mean of metrics, or of a difference, are the mean or the
difference of derivatives: so the error of a *smoothed* and *paired* difference costs one subtraction.
"""

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
MetricName = Literal["auroc", "average_precision", "balanced_accuracy", "f_beta", "loss", "recall"]


def influence(
    metric: MetricName,
    logit: ArrayLike,
    label: ArrayLike,
    patient: ArrayLike,
    *,
    threshold: float = 0.0,
    beta: float = 2.0,
    prior: float = 0.5,
) -> Floats:
    """Return how far each patient moves a metric, float64 (patients,), patients in sorted order.

    They add up to 0. Higher is better, so the sign of ``loss`` is turned.

    Parameters
    ----------
    logit, label, patient
        (n,); labels 1 malignant, 0 benign, NaN not scored.
    threshold, beta
        Of ``balanced_accuracy``, ``f_beta`` and ``recall``: malignant from `threshold` on.
    prior
        Weight of the malignant class in ``loss``; see `toolkit.evaluation.results.Summary`.

    Returns
    -------
        NaN for every patient where the metric is not defined (one class only).
    """
    target = np.asarray(label, np.float64)
    names, which = np.unique(np.asarray(patient), return_inverse=True)
    scored = ~np.isnan(target)
    score, positive = np.asarray(logit, np.float64)[scored], target[scored] > 0.5
    if not 0 < positive.sum() < len(positive):
        return np.full(len(names), np.nan)
    if metric == "auroc":
        each = _auroc(score, positive)
    elif metric == "average_precision":
        each = _average_precision(score, positive)
    elif metric == "loss":
        share = np.where(positive, prior, 1 - prior)
        each = _of_classes(-share * np.logaddexp(0, np.where(positive, -score, score)), positive)
    elif metric == "f_beta":
        each = _f_beta(score >= threshold, positive, beta)
    else:
        hit = np.where(positive, score >= threshold, score < threshold).astype(np.float64)
        each = _of_classes(hit * (positive if metric == "recall" else 0.5), positive)
    return np.asarray(np.bincount(which[scored], each, len(names)), np.float64)


def standard_error(moves: Floats) -> float:
    """Return the standard error of the metric, or of the difference, whose moves these are."""
    patients = len(moves)
    return math.sqrt(float(np.square(moves).sum()) * patients / max(patients - 1, 1))


def _of_classes(value: Floats, positive: NDArray[np.bool_]) -> Floats:
    """Return the derivative of the sum of the two class means of `value`."""
    moves = np.empty(len(value))
    for side in (positive, ~positive):
        moves[side] = (value[side] - value[side].mean()) / side.sum()
    return moves


def _auroc(logit: Floats, positive: NDArray[np.bool_]) -> Floats:
    """Share of the other class that a nodule is ranked rightly against; a tie counts half."""
    placement = np.empty(len(logit))
    for side, sign in ((positive, 1), (~positive, -1)):
        other = np.sort(sign * logit[~side])
        mine = sign * logit[side]
        below, up_to = other.searchsorted(mine, "left"), other.searchsorted(mine, "right")
        placement[side] = (below + up_to) / (2 * len(other))
    return _of_classes(placement, positive)


def _average_precision(logit: Floats, positive: NDArray[np.bool_]) -> Floats:
    """Mean precision at the malignant nodules; equal logits are one step."""
    level, which = np.unique(logit, return_inverse=True)
    hits = np.bincount(which, positive, len(level))
    # both counts, per distinct logit: of nodules from this logit on
    caught = hits[::-1].cumsum()[::-1]
    called = np.bincount(which, minlength=len(level))[::-1].cumsum()[::-1]
    precision, malignant = caught / called, positive.sum()
    # one more nodule at a logit changes the precision of every level up to it
    gained = (hits * (called - caught) / called**2).cumsum()[which]
    lost = (hits * caught / called**2).cumsum()[which]
    value = (hits * precision).sum() / malignant
    own = precision[which] - value + gained
    return np.asarray(np.where(positive, own, -lost) / malignant)


def _f_beta(called: NDArray[np.bool_], positive: NDArray[np.bool_], beta: float) -> Floats:
    """F = (1 + b2) TP / (b2 (TP + FN) + TP + FP)."""
    square = beta * beta
    below = square * positive.sum() + called.sum()
    value = (1 + square) * (called & positive).sum() / below
    return np.asarray(((1 + square) * (called & positive) - value * (square * positive + called)) / below)

"""Metrics of nodules with weights, for many bootstrap draws at once.

`logit` and `label` are (n,), `weights` (draws, n); a label is 1 or 0. A nodule is called malignant where its
logit is at least the threshold. What is not defined (a class is missing) is NaN, never an exception.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.evaluation.results import Interval, Summary

Floats = NDArray[np.float64]
Metric = Literal["auroc", "average_precision", "balanced_accuracy", "f_beta", "recall", "specificity", "loss"]


@dataclass(frozen=True, eq=False)
class Counts:
    """Weighted counts of right and wrong decisions, each (draws,)."""

    true_positive: Floats
    false_negative: Floats
    false_positive: Floats
    true_negative: Floats


def auroc(logit: Floats, label: Floats, weights: Floats | None = None) -> Floats:
    """Return the area under the ROC curve, (draws,): ties count half."""
    raise NotImplementedError


def average_precision(logit: Floats, label: Floats, weights: Floats | None = None) -> Floats:
    """Return the average precision, (draws,): sum of the steps of recall times precision, ties as one step."""
    raise NotImplementedError


def count(called: NDArray[np.bool_], label: Floats, weights: Floats | None = None) -> Counts:
    """Return how often what was called malignant, bool (n,), was right and wrong."""
    raise NotImplementedError


def summarize(
    logit: Floats,
    label: Floats,
    patient: NDArray[np.generic],
    *,
    threshold: float,
    prior: float,
    beta: float,
    draws: int = 400,
    seed: int = 0,
) -> Summary:
    """Return all metrics of one side at one time.

    Parameters
    ----------
    logit, label, patient
        (n,); NaN labels are left out.
    threshold
        On the raw logit, as chosen on validation.
    prior
        Effective share of positives in training, which weighs the two losses.
    beta
        Of F-beta.
    """
    raise NotImplementedError


def paired(
    metric: Metric,
    logit_a: Floats,
    logit_b: Floats,
    label: Floats,
    patient: NDArray[np.generic],
    draws: int = 1000,
    seed: int = 0,
    *,
    threshold: float = 0.0,
    beta: float = 2.0,
) -> Interval:
    """Return metric(a) - metric(b) on the same nodules, the same patients drawn for both.

    ``recall``, ``specificity``, ``balanced_accuracy`` and ``f_beta`` are taken at `threshold`; ``loss`` is the
    mean binary cross-entropy, of which less is better.
    """
    raise NotImplementedError


def epochs_apart(
    logits: NDArray[np.floating],
    label: Floats,
    patient: NDArray[np.generic],
    a: int,
    b: int,
    metric: Metric = "auroc",
    draws: int = 1000,
    seed: int = 0,
) -> Interval:
    """Return metric(epoch a) - metric(epoch b) from ``validation_logits.npy``, (epochs, n); rows from 0."""
    raise NotImplementedError


def within_noise(
    logits: NDArray[np.floating],
    label: Floats,
    patient: NDArray[np.generic],
    best: int,
    metric: Metric = "auroc",
    draws: int = 400,
    seed: int = 0,
) -> NDArray[np.bool_]:
    """Return which epochs cannot be told from row `best`: bool (epochs,), the paired 95 % interval holds 0."""
    raise NotImplementedError

"""Metrics of nodules with weights, for many bootstrap draws at once.

`logit` and `label` are (n,), `weights` (draws, n); a label is 1 or 0. A nodule is called malignant where its
logit is at least the threshold. What is not defined (a class is missing) is NaN, never an exception.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.evaluation.bootstrap import distinct, interval, intervals, resample
from toolkit.evaluation.results import AtThreshold, Interval, Summary

Floats = NDArray[np.float64]
Metric = Literal["auroc", "average_precision", "balanced_accuracy", "f_beta", "recall", "specificity", "loss"]
AT_THRESHOLD = ("recall", "specificity", "precision", "balanced_accuracy", "f_beta")


@dataclass(frozen=True, eq=False)
class Counts:
    """Weighted counts of right and wrong decisions, each (draws,)."""

    true_positive: Floats
    false_negative: Floats
    false_positive: Floats
    true_negative: Floats

    @property
    def recall(self) -> Floats:
        """Share of malignant nodules that are called so; sensitivity."""
        return ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def specificity(self) -> Floats:
        """Share of benign nodules that are called so."""
        return ratio(self.true_negative, self.true_negative + self.false_positive)

    @property
    def precision(self) -> Floats:
        """Share of nodules called malignant that are; not defined where none is called so."""
        return ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def negative_predictive_value(self) -> Floats:
        """Share of nodules called benign that are; not defined where none is called so."""
        return ratio(self.true_negative, self.true_negative + self.false_negative)

    @property
    def balanced_accuracy(self) -> Floats:
        """Mean of recall and specificity."""
        return (self.recall + self.specificity) / 2

    def f_beta(self, beta: float) -> Floats:
        """F-beta: recall counts beta times as much as precision; 0 where no malignant nodule is found."""
        found = (1 + beta**2) * self.true_positive
        return ratio(found, found + beta**2 * self.false_negative + self.false_positive)


def ratio(part: Floats, whole: Floats) -> Floats:
    """Return part / whole, NaN where the whole is 0."""
    share = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=share, where=whole != 0)
    return share


def ranking(logit: Floats, label: Floats, weights: Floats | None = None) -> tuple[Floats, Floats]:
    """Return the area under the ROC curve and the average precision, each (draws,), from one sort.

    Only groups of equal logits that hold a positive matter. From the largest logit down, the negatives above
    such a group are ranked wrongly against its positives, those in it half (Mann and Whitney 1947). The
    average precision is the sum of the steps of recall times the precision after each.
    """
    weights = np.ones((1, len(logit))) if weights is None else weights
    order = np.argsort(-logit, kind="stable")
    if not np.array_equal(order, np.arange(len(order))):
        logit, label, weights = logit[order], label[order], weights[:, order]
    positive = np.flatnonzero(label == 1)
    if not len(positive):
        return np.full(len(weights), np.nan), np.full(len(weights), np.nan)
    total = np.zeros((len(weights), len(logit) + 1))
    np.cumsum(weights, axis=1, out=total[:, 1:])
    starts = np.flatnonzero(np.concatenate([[True], logit[1:] != logit[:-1]]))
    group = np.searchsorted(starts, positive, side="right") - 1
    first = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
    held = group[first]
    step = np.add.reduceat(weights[:, positive], first, axis=1)
    above = total[:, starts[held]]
    upto = total[:, np.concatenate([starts[1:], [len(logit)]])[held]]
    found = np.cumsum(step, axis=1)
    positives = found[:, -1]
    negatives = total[:, -1] - positives
    wrong = (step * (above + upto - 2 * found + step)).sum(axis=1) / 2
    precision = np.divide(found, upto, out=np.zeros_like(found), where=upto > 0)
    return 1 - ratio(wrong, positives * negatives), ratio((step * precision).sum(axis=1), positives)


def steps(logit: Floats, label: Floats, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the different logits, falling, (g,), and true and false positives, (draws, g + 1).

    The first column is of calling none malignant, the k-th of calling those at or above the k-th logit so.
    """
    order = np.argsort(-logit, kind="stable")
    falling = logit[order]
    ends = np.flatnonzero(np.concatenate([falling[1:] != falling[:-1], [True]]))
    weights = weights[:, order]
    none = np.zeros((len(weights), 1))
    found, alarms = (
        np.concatenate([none, np.cumsum(weights * side, axis=1)[:, ends]], axis=1)
        for side in (label[order], 1 - label[order])
    )
    return falling[ends], found, alarms


def auroc(logit: Floats, label: Floats, weights: Floats | None = None) -> Floats:
    """Return the area under the ROC curve, (draws,): ties count half."""
    return ranking(logit, label, weights)[0]


def average_precision(logit: Floats, label: Floats, weights: Floats | None = None) -> Floats:
    """Return the average precision, (draws,): ties are one step."""
    return ranking(logit, label, weights)[1]


def count(called: NDArray[np.bool_], label: Floats, weights: Floats | None = None) -> Counts:
    """Return how often what was called malignant, bool (n,), was right and wrong."""
    weights = np.ones((1, len(label))) if weights is None else weights
    positive = label == 1
    sets = np.stack([positive & called, positive & ~called, ~positive & called, ~positive & ~called], axis=1)
    return Counts(*(weights @ sets.astype(np.float64)).T)


def cross_entropy(logit: Floats, label: Floats) -> Floats:
    """Return the binary cross-entropy of each raw logit, (n,), in nats."""
    return np.logaddexp(0.0, np.where(label == 1, -logit, logit))


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
    # longer than 40 lines for its docstring and the list of what is told
    logit, label, patient = _scored(logit, label, patient)
    order = np.argsort(-logit, kind="stable")
    logit, label, patient = logit[order], label[order], patient[order]

    def statistic(weights: Floats) -> Floats:
        columns = [*ranking(logit, label, weights)]
        for at in (0.0, threshold):
            counts = count(logit >= at, label, weights)
            columns += [_at_threshold(counts, name, beta) for name in AT_THRESHOLD]
        return np.stack(columns, axis=1)

    either = [distinct(patient, label == k) for k in (1, 0)]
    behind = [min(either)] * 2
    for at in (0.0, threshold):
        behind += [*either, distinct(patient, logit >= at), min(either), min(either)]
    area, precision, *rest = intervals(*resample(statistic, patient, draws, seed), behind)
    loss = cross_entropy(logit, label)
    means = [float(loss[label == k].mean()) if (label == k).any() else np.nan for k in (1, 0)]
    return Summary(
        nodules=len(label),
        patients=len(np.unique(patient)),
        positives=int(label.sum()),
        loss=prior * means[0] + (1 - prior) * means[1],
        loss_positive=means[0],
        loss_negative=means[1],
        auroc=area,
        average_precision=precision,
        at_half=AtThreshold(0.0, *rest[: len(AT_THRESHOLD)]),
        at_threshold=AtThreshold(threshold, *rest[len(AT_THRESHOLD) :]),
    )


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

    ``recall``, ``specificity``, ``balanced_accuracy`` and ``f_beta`` are taken at `threshold`; ``loss`` is
    the mean binary cross-entropy, of which less is better.
    """
    known = ~np.isnan(label)
    a, b = np.asarray(logit_a, np.float64)[known], np.asarray(logit_b, np.float64)[known]
    label, patient = np.asarray(label, np.float64)[known], patient[known]

    def statistic(weights: Floats) -> Floats:
        both = [measure(metric, each, label, weights, threshold, beta) for each in (a, b)]
        return (both[0] - both[1])[:, None]

    value, drawn = resample(statistic, patient, draws, seed)
    return interval(value[0], drawn[:, 0])


def within_noise(
    logits: NDArray[np.floating],
    label: Floats,
    patient: NDArray[np.generic],
    best: int,
    metric: Metric = "auroc",
    draws: int = 400,
    seed: int = 0,
) -> NDArray[np.bool_]:
    """Return which epochs cannot be told from row `best`: bool (epochs,), the paired 95 % interval holds 0.

    Where `best` is the highest of many, chance helped it, so even more epochs are as good as this says.
    """
    known = ~np.isnan(label)
    wide, label = np.asarray(logits, np.float64)[:, known], np.asarray(label, np.float64)[known]

    def statistic(weights: Floats) -> Floats:
        return np.stack([measure(metric, each, label, weights) for each in wide], axis=1)

    value, drawn = resample(statistic, patient[known], draws, seed)
    apart = intervals(value[[best]] - value, drawn[:, [best]] - drawn)
    return np.array([not (each.low > 0 or each.high < 0) for each in apart])


def measure(
    metric: Metric,
    logit: Floats,
    label: Floats,
    weights: Floats | None = None,
    threshold: float = 0.0,
    beta: float = 2.0,
) -> Floats:
    """Return a metric by name, (draws,)."""
    if metric == "auroc":
        return auroc(logit, label, weights)
    if metric == "average_precision":
        return average_precision(logit, label, weights)
    if metric == "loss":
        weights = np.ones((1, len(label))) if weights is None else weights
        return ratio(weights @ cross_entropy(logit, label), weights.sum(axis=1))
    return _at_threshold(count(logit >= threshold, label, weights), metric, beta)


def _at_threshold(counts: Counts, name: str, beta: float) -> Floats:
    found: Floats = counts.f_beta(beta) if name == "f_beta" else getattr(counts, name)
    return found


def _scored(
    logit: Floats, label: Floats, patient: NDArray[np.generic]
) -> tuple[Floats, Floats, NDArray[np.generic]]:
    known = ~np.isnan(label)
    return np.asarray(logit, np.float64)[known], np.asarray(label, np.float64)[known], patient[known]

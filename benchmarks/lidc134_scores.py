"""Scores of several contenders on the same outer folds, compared with the same draws of patients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from toolkit.bench.record import Estimate
from toolkit.evaluation.bootstrap import interval, patient_weights
from toolkit.evaluation.metrics import auroc
from toolkit.evaluation.results import Interval
from toolkit.loading.split import Split, indices
from toolkit.store import Store

Floats = NDArray[np.float64]
DRAWS, SEED = 2000, 0


@dataclass(frozen=True, eq=False)
class Column:
    """Scores of one contender for all scored nodules, once a repeat.

    Attributes
    ----------
    name
        Of the contender.
    score
        float64 (repeats, n); larger is more malignant.
    fold
        int64 (repeats, n): which model gave it.
    label, patient
        (n,).
    """

    name: str
    score: Floats
    fold: NDArray[np.int64]
    label: Floats
    patient: NDArray[np.int64]

    @classmethod
    def of(cls, name: str, store: Store, split: Split, scores: Sequence[Floats]) -> Self:
        """Put the scores of each partition's test side, in the store's order, in their places."""
        repeats = len({part.name.split(" fold ")[0] for part in split.partitions})
        each = len(split.partitions) // repeats
        score, fold = np.full((repeats, len(store)), np.nan), np.zeros((repeats, len(store)), np.int64)
        for number, (part, found) in enumerate(zip(split.partitions, scores, strict=True)):
            index = indices(store, part.test)
            score[number // each, index], fold[number // each, index] = found, number
        label = np.array([np.nan if nodule.label is None else nodule.label for nodule in store.nodules])
        _, patient = np.unique([nodule.patient_id for nodule in store.nodules], return_inverse=True)
        known = ~np.isnan(label)
        if np.isnan(score[:, known]).any():
            raise ValueError(f"{name}: a scored nodule has no score in some repeat")
        return cls(name, score[:, known], fold[:, known], label[known], patient[known])

    def pooled(self, weights: Floats) -> Floats:
        """Return the AUROC over all folds together, mean over repeats, (draws,)."""
        return np.mean([auroc(score, self.label, weights) for score in self.score], axis=0)

    def within(self, weights: Floats) -> Floats:
        """Return the AUROC over pairs judged by one model, mean over repeats, (draws,)."""
        return np.mean(
            [self._pairs(score, fold, weights) for score, fold in zip(self.score, self.fold, strict=True)],
            axis=0,
        )

    def _pairs(self, score: Floats, fold: NDArray[np.int64], weights: Floats) -> Floats:
        right, all_pairs = np.zeros(len(weights)), np.zeros(len(weights))
        for number in np.unique(fold):
            own = fold == number
            w, positive = weights[:, own], self.label[own] == 1
            pairs = w[:, positive].sum(axis=1) * w[:, ~positive].sum(axis=1)
            area = auroc(score[own], self.label[own], w)
            right += np.where(pairs > 0, pairs * np.nan_to_num(area), 0)
            all_pairs += pairs
        return np.divide(right, all_pairs, out=np.full(len(right), np.nan), where=all_pairs > 0)


def compare(columns: Sequence[Column]) -> list[Estimate]:
    """Return AUROC of each contender and the differences of each pair, last minus first, with intervals."""
    first = columns[0]
    ones = np.ones((1, len(first.label)))
    weights = patient_weights(first.patient, DRAWS, SEED).astype(np.float64)
    figures = []
    measures: dict[str, Callable[[Column, Floats], Floats]] = {
        "pooled": Column.pooled,
        "within folds": Column.within,
    }
    for how, measure in measures.items():
        value = {each.name: measure(each, ones)[0] for each in columns}
        drawn = {each.name: measure(each, weights) for each in columns}
        named = {each.name: interval(value[each.name], drawn[each.name]) for each in columns}
        for k, b in enumerate(value):
            for a in list(value)[k + 1 :]:
                named[f"{a} - {b}"] = interval(value[a] - value[b], drawn[a] - drawn[b])
        figures += [_estimate(f"auroc {how}/{name}", found, first) for name, found in named.items()]
    return figures


def _estimate(name: str, found: Interval, of: Column) -> Estimate:
    repeats, n = of.score.shape
    note = (
        f"{int(of.label.sum())} malignant, {len(np.unique(of.patient))} patients, mean of {repeats} repeats, "
        f"{DRAWS} draws of patients"
    )
    value, low, high = (float(f"{each:.6g}") for each in found)
    return Estimate(f"lidc134/{name}", value, low, high, n, note)

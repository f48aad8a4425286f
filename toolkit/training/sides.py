"""Who teaches and who validates in one partition: everything that can be wrong with it is refused here."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import Problem, UsageError
from toolkit.evaluation.labels import LabelRule
from toolkit.loading.sampler import Members, members
from toolkit.loading.split import Partition, indices
from toolkit.store import Store

PROBE = 7
"""Stream of chance that chooses the training nodules which every epoch looks at."""


@dataclass(frozen=True, eq=False)
class Sides:
    """The nodules of a partition, as numbers in the store.

    Attributes
    ----------
    partition
        Name and ids.
    target, label
        float64 (n of the store,): what is learned, in [0, 1]; 1, 0 or NaN as it is scored.
    teaching
        Training nodules of known target, int64.
    validation
        Scored validation nodules, int64.
    probe
        Scored training nodules, as many as of validation, whole patients by chance: the curves' other side.
    patient
        int64 (n of the store,).
    """

    partition: Partition
    target: NDArray[np.float64]
    label: NDArray[np.float64]
    teaching: NDArray[np.int64]
    validation: NDArray[np.int64]
    probe: NDArray[np.int64]
    patient: NDArray[np.int64]

    @property
    def counts(self) -> tuple[int, int]:
        """Malignant and benign training nodules; what teaches without being scored is neither."""
        label = self.label[self.teaching]
        return int((label == 1).sum()), int((label == 0).sum())

    def members(self, index: NDArray[np.int64], store: Store) -> Members:
        """Return nodules for a sampler, with their targets as labels."""
        plain = members(store.nodules, index)
        return Members(plain.index, self.target[index], plain.patient)


def make_sides(store: Store, partition: Partition, rule: LabelRule, seed: int) -> Sides:
    """Return the sides of a partition.

    Raises `UsageError` E-TRAIN-001 where labels are missing or of one class, E-TRAIN-002 where one lies
    outside [0, 1], E-TRAIN-005 where validation lacks a class.
    """
    target = rule.targets(store.nodules)
    _check(target, rule)
    label = rule.classes(target)
    patient = members(store.nodules).patient
    train, val = indices(store, partition.train), indices(store, partition.val)
    teaching = train[~np.isnan(target[train])]
    scored, validation = train[~np.isnan(label[train])], val[~np.isnan(label[val])]
    _both("training", label[scored], "E-TRAIN-001", rule)
    _both("validation", label[validation], "E-TRAIN-005", rule)
    probe = _some(scored, patient[scored], len(validation), seed)
    return Sides(partition, target, label, teaching, validation, probe, patient)


def _check(target: NDArray[np.float64], rule: LabelRule) -> None:
    known = target[~np.isnan(target)]
    if not len(known):
        measured = f"0 of {len(target)} nodules have one ({rule.source})"
        action = "Nothing trained; give labels to toolkit preprocess --labels, or set labels.source"
        raise UsageError(Problem("E-TRAIN-001", "the store has no labels", measured, "", action))
    if known.min() < 0 or known.max() > 1:
        measured = f"{known.min():g} to {known.max():g}"
        raise UsageError(
            Problem("E-TRAIN-002", "labels lie outside [0, 1]", measured, "0 to 1", "Nothing trained")
        )


def _both(side: str, label: NDArray[np.float64], code: str, rule: LabelRule) -> None:
    bad, good = int((label == 1).sum()), int((label == 0).sum())
    if not bad or not good:
        measured = f"{bad} malignant, {good} benign ({rule.name})"
        action = "Nothing trained; label more nodules, or make another split"
        raise UsageError(
            Problem(code, f"the {side} side lacks a class", measured, "at least 1 of each", action)
        )


def _some(index: NDArray[np.int64], patient: NDArray[np.int64], least: int, seed: int) -> NDArray[np.int64]:
    """Return nodules of whole patients by chance, `least` or a few more, in the store's order."""
    unique, which = np.unique(patient, return_inverse=True)
    turn = np.random.default_rng([seed, PROBE]).permutation(len(unique))[which]
    last = np.sort(turn)[min(least, len(index)) - 1]
    return np.asarray(index[turn <= last])

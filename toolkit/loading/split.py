"""Patients onto sides: train, validation and test, shared by class and size, never a patient on two.

Nodules are grouped by patient; patients whose crops show the same thing (`toolkit.loading.alike`) are one
group. A split depends on the store's content and the seed, not on the store's order.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import Problem, UsageError
from toolkit.loading.alike import Alike, alike
from toolkit.loading.assign import assign
from toolkit.store import Nodule, Store

SIDES = ("train", "val", "test")
Side = Literal["train", "val", "test"]
BANDS_MM = (6.0, 8.0, 15.0)
"""Diameters that divide size bands; 6 and 8 mm are where guidelines on lung nodules change their advice."""
CLASSES = ("benign", "malignant", "unknown")
MALIGNANT_FROM = 0.5
MUST = (-4, -3)
"""Columns of the classes that no side may lack, counted from the last."""
OUTER, INNER = 16, 17
"""Streams of chance, apart from those of the samplers."""


@dataclass(frozen=True)
class Partition:
    """One way to divide a store: nodule ids of each side, sorted.

    `name` is ``holdout``, ``from store`` or ``repeat r fold f``, counted from 1.
    """

    name: str
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    def side(self, side: Side) -> tuple[str, ...]:
        """Return the nodule ids of a side."""
        sides: dict[str, tuple[str, ...]] = {"train": self.train, "val": self.val, "test": self.test}
        return sides[side]


@dataclass(frozen=True)
class Split:
    """One or more partitions of one store.

    Attributes
    ----------
    rule
        How it was made, in words.
    seed
        None where chance had no part.
    store
        Config digest of the store.
    partitions
        One for a holdout, folds times repeats for cross-validation.
    tied
        Pairs of patients kept on one side because their crops show the same thing.
    """

    rule: str
    seed: int | None
    store: str
    partitions: tuple[Partition, ...]
    tied: int = 0


def holdout(store: Store, val: float, test: float, seed: int = 0) -> Split:
    """Divide a store once into train, validation and test.

    Raises `UsageError` E-SPLIT-006 for impossible shares, E-SPLIT-002 where a side would lack a class
    that the store has.
    """
    _check_seed(seed)
    shares = (1 - val - test, val, test)
    if not (0 <= val < 1 and 0 <= test < 1 and shares[0] > 1e-9 and val + test > 0):
        raise _impossible("holdout", f"{val:g}/{test:g}", "VAL/TEST, each at least 0, together below 1")
    groups = _groups(store)
    used = [k for k in range(3) if shares[k] > 0]
    dealt = assign(groups.counts, [shares[k] for k in used], seed, OUTER, must=MUST)
    side = np.array(used)[dealt]
    _refuse_empty(groups, side, {SIDES[k]: shares[k] for k in used}, "holdout")
    parts = (_partition("holdout", groups, side),)
    return Split(f"holdout {val:g}/{test:g}", seed, _digest(store), parts, groups.tied)


def cross_validation(store: Store, folds: int, repeats: int = 1, val: float = 0.15, seed: int = 0) -> Split:
    """Divide a store into folds; each is the test side once a repeat, `val` of the rest its validation side.

    Raises `UsageError` E-SPLIT-006 for impossible numbers, E-SPLIT-002 where a class has too few patients.
    """
    _check_seed(seed)
    if folds < 2:
        raise _impossible("folds", f"{folds}", "at least 2")
    if repeats < 1:
        raise _impossible("repeats", f"{repeats}", "at least 1")
    if not 0 < val < 1:
        raise _impossible("inner-val", f"{val:g}", "above 0, below 1")
    groups = _groups(store)
    _refuse_too_few(groups, folds)
    parts = []
    for repeat in range(repeats):
        outer = assign(groups.counts, [1 / folds] * folds, seed, OUTER, repeat, MUST)
        for fold in range(folds):
            name = f"repeat {repeat + 1} fold {fold + 1}"
            side = np.full(len(outer), SIDES.index("test"))
            rest = np.flatnonzero(outer != fold)
            inner = assign(groups.counts[rest], (1 - val, val), seed, INNER, repeat * folds + fold, MUST)
            side[rest] = inner
            shares = {"train": (1 - val) * (1 - 1 / folds), "val": val * (1 - 1 / folds), "test": 1 / folds}
            _refuse_empty(groups, side, shares, name)
            parts.append(_partition(name, groups, side))
    return Split(
        f"{folds} folds, {repeats} repeats, {val:g}", seed, _digest(store), tuple(parts), groups.tied
    )


WORDS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def from_store(store: Store) -> Split:
    """Take the sides that the manifest gave to all nodules.

    Raises `UsageError` E-SPLIT-006 where a nodule has none or another word. Patients and crops on two
    sides are for `check` in `toolkit.loading.split_file` to refuse.
    """
    sides: dict[str, list[str]] = {side: [] for side in SIDES}
    strange = Counter(n.split for n in store.nodules if n.split.strip().lower() not in WORDS)
    if strange or not store.nodules:
        told = (
            ", ".join(f"{count} with {word!r:.20}" for word, count in strange.most_common(4)) or "no nodule"
        )
        action = "Nothing written; mend the manifest's column split, or ask for --holdout or --folds"
        what = "the store's nodules do not all have a side"
        raise UsageError(Problem("E-SPLIT-006", what, told, "train, val or test", action))
    for nodule in store.nodules:
        sides[WORDS[nodule.split.strip().lower()]].append(nodule.nodule_id)
    part = Partition("from store", *(tuple(sorted(sides[side])) for side in SIDES))
    return Split("from store", None, _digest(store), (part,))


def class_of(nodule: Nodule) -> str:
    """Return ``malignant``, ``benign`` or ``unknown``."""
    if nodule.label is None:
        return "unknown"
    return "malignant" if nodule.label >= MALIGNANT_FROM else "benign"


def indices(store: Store, ids: Sequence[str]) -> NDArray[np.int64]:
    """Return the numbers of nodules in a store, int64, in the store's order."""
    wanted = {*ids}
    found = [i for i, nodule in enumerate(store.nodules) if nodule.nodule_id in wanted]
    return np.array(found, np.int64)


@dataclass(frozen=True, eq=False)
class _Groups:
    """Nodule ids of each group; `counts` (groups, columns): strata, then classes, then all."""

    ids: tuple[tuple[str, ...], ...]
    counts: NDArray[np.int64]
    classes: Mapping[str, NDArray[np.int64]]
    tied: int


def _band(nodule: Nodule) -> int:
    if nodule.diameter_mm is None:
        return len(BANDS_MM) + 1
    return int(np.searchsorted(BANDS_MM, nodule.diameter_mm, side="right"))


def _groups(store: Store) -> _Groups:
    """Group nodules by patient and by what crops show, in an order that the store's order does not change."""
    nodules = sorted(store.nodules, key=lambda nodule: nodule.nodule_id)
    for a, b in pairwise(nodules):
        if a.nodule_id == b.nodule_id:
            raise UsageError(Problem("E-SPLIT-006", "two nodules of the store have one id"))
    if not nodules:
        raise UsageError(Problem("E-SPLIT-006", "the store has no nodule"))
    pairs = alike(store)
    heads = tie(store, pairs)
    names = {head: k for k, head in enumerate(sorted({*heads.values()}))}
    strata = len(CLASSES) * (len(BANDS_MM) + 2)
    counts = np.zeros((len(names), strata + len(CLASSES) + 1), np.int64)
    ids: list[list[str]] = [[] for _ in names]
    for nodule in nodules:
        group, kind = names[heads[nodule.patient_id]], CLASSES.index(class_of(nodule))
        counts[group, [kind * (len(BANDS_MM) + 2) + _band(nodule), strata + kind, -1]] += 1
        ids[group].append(nodule.nodule_id)
    classes = {name: counts[:, strata + k] for k, name in enumerate(CLASSES)}
    tied = {frozenset((store.nodules[p.first].patient_id, store.nodules[p.second].patient_id)) for p in pairs}
    return _Groups(tuple(map(tuple, ids)), counts, classes, len(tied))


def tie(store: Store, pairs: Sequence[Alike]) -> dict[str, str]:
    """Return for each patient the least id among those tied to them, directly or through others."""
    head = {nodule.patient_id: nodule.patient_id for nodule in store.nodules}

    def find(patient: str) -> str:
        while head[patient] != patient:
            head[patient] = head[head[patient]]
            patient = head[patient]
        return patient

    for pair in pairs:
        a, b = sorted(find(store.nodules[i].patient_id) for i in (pair.first, pair.second))
        head[b] = a
    return {patient: find(patient) for patient in head}


def _partition(name: str, groups: _Groups, side: NDArray[np.int64]) -> Partition:
    ids = [
        tuple(sorted(i for group in np.flatnonzero(side == k) for i in groups.ids[group])) for k in range(3)
    ]
    return Partition(name, *ids)


def _refuse_too_few(groups: _Groups, folds: int) -> None:
    """Refuse folds where a class cannot be on the test, the validation and the training side of each."""
    for name in CLASSES[:2]:
        have = int((groups.classes[name] > 0).sum())
        need = max(folds, 4) if folds == 2 else folds  # the largest fold aside, 2 must be left
        if 0 < have < need:
            action = f"Nothing written; ask for at most {have} --folds" if have > 2 else "Nothing written"
            raise _too_few(name, f"{have} patients have one", f"{need} for {folds} folds", action)


def _refuse_empty(groups: _Groups, side: NDArray[np.int64], shares: Mapping[str, float], where: str) -> None:
    """Refuse a partition in which a side lacks a class that the store has."""
    for name in CLASSES[:2]:
        has = groups.classes[name] > 0
        have = int(has.sum())
        for label, share in shares.items():
            if have and not has[side == SIDES.index(label)].any():
                due = f"{have} patients x {share:.3g} = {have * share:.2g} due on the {label} side, 0 there"
                action = f"Nothing written ({where}); {len(shares)} sides need as many patients of the class"
                raise _too_few(name, due, "at least 1", action)


def _too_few(name: str, measured: str, expected: str, action: str) -> UsageError:
    return UsageError(
        Problem("E-SPLIT-002", f"too few patients with {name} nodules", measured, expected, action)
    )


def _impossible(name: str, value: str, expected: str) -> UsageError:
    return UsageError(Problem("E-SPLIT-006", f"{name} is impossible", value, expected, "Nothing written"))


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**64:
        raise _impossible("seed", f"{seed}", "0 to 2**64 - 1")


def _digest(store: Store) -> str:
    return str(store.settings["config_digest"])

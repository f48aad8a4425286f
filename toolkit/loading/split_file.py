"""The split as a file: one sealed line of JSON, checked against its store before anything is trained.

::

    format      1
    kind        "split"
    rule, seed  how it was made
    strata      least label of a malignant nodule, and the diameters that divide bands, mm
    store       config digest of the store
    tied        pairs of patients kept together because their crops show the same thing
    partitions  name; train, val, test: sorted nodule ids; counts by side and class
    digest      of the rest

A split made elsewhere becomes such a file through `write_split`.
"""

from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import Problem, StoreError, UsageError
from toolkit.loading.alike import Alike, alike
from toolkit.loading.numbered import Numbered, count, numbered
from toolkit.loading.split import BANDS_MM, MALIGNANT_FROM, SIDES, Partition, Split
from toolkit.store import Store
from toolkit.store.files import write_atomic
from toolkit.store.format import sealed, unseal

FORMAT_VERSION = 1
SHOWN = 3


def write_split(path: str | Path, split: Split, store: Store) -> None:
    """Write a split of a store after `check_ids`; replaces an older file in one step."""
    known = check_ids(split, store)
    parts = [
        {
            "name": part.name,
            **{side: list(getattr(part, side)) for side in SIDES},
            "counts": count(store, part, known),
        }
        for part in split.partitions
    ]
    value = {
        "format": FORMAT_VERSION,
        "kind": "split",
        "rule": split.rule,
        "seed": split.seed,
        "strata": {"malignant_from": MALIGNANT_FROM, "bands_mm": list(BANDS_MM)},
        "store": split.store,
        "tied": split.tied,
        "partitions": parts,
    }
    write_atomic(Path(path), sealed(value))


def read_split(path: str | Path, store: Store, *, compare_crops: bool = True) -> Split:
    """Read a split and check that this store can be divided by it.

    Parameters
    ----------
    compare_crops
        Also look for crops of two sides that show the same thing; it costs a few milliseconds a nodule.

    Raises
    ------
    UsageError
        E-SPLIT-001 where the file is damaged or no split, E-SPLIT-003 where it is of another store or a
        nodule is not on exactly one side, E-SPLIT-004 where a patient is on two sides, E-SPLIT-005
        where crops of two sides show the same thing.
    """
    path = Path(path)
    value = _load(path)
    try:
        parts = tuple(
            Partition(str(part["name"]), *(_ids(part[side]) for side in SIDES))
            for part in value["partitions"]
        )
        seed = None if value["seed"] is None else int(value["seed"])
        split = Split(str(value["rule"]), seed, str(value["store"]), parts, int(value["tied"]))
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(path, "fields are missing or wrong") from error
    check_ids(split, store)
    if compare_crops:
        check_crops(split, store, alike(store))
    return split


def _load(path: Path) -> dict[str, Any]:
    try:
        value = unseal(path.read_bytes(), path)
    except OSError as error:
        raise _unreadable(path, error.strerror or "it cannot be opened") from error
    except StoreError as error:
        raise _unreadable(path, "its digest does not match its content") from error
    if value.get("kind") != "split" or value.get("format") != FORMAT_VERSION:
        raise _unreadable(path, f"kind {value.get('kind')}, format {value.get('format')}")
    return value


def _ids(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(i, str) for i in value):
        raise TypeError
    return tuple(value)


def _unreadable(path: Path, measured: str) -> UsageError:
    action = "Make it again with toolkit split, or with write_split"
    expected = f"a sealed split of format {FORMAT_VERSION}"
    return UsageError(
        Problem("E-SPLIT-001", "the split cannot be read", measured, expected, action, (str(path),))
    )


def check_ids(split: Split, store: Store) -> Numbered:
    """Refuse a split that does not put every nodule on one side, and every patient on one.

    Raises `UsageError` E-SPLIT-003 and E-SPLIT-004. Returns the store's nodules by number.
    """
    if split.store != store.settings["config_digest"]:
        raise _other(f"store {split.store:.8}", f"{store.settings['config_digest']:.8}")
    if not split.partitions:
        raise _other("no partition", "at least one")
    known = numbered(store)
    for part in split.partitions:
        sides = known.sides(part)
        every = np.concatenate(sides)
        times = np.bincount(every[every >= 0], minlength=len(store))
        lost, twice, foreign = (int((some).sum()) for some in (times == 0, times > 1, every < 0))
        if lost or foreign or twice:
            told = f"{part.name}: {lost} nodules on no side, {twice} listed twice, {foreign} not in the store"
            raise _other(told, "each nodule of the store once")
        present = known.on_sides(sides)
        both = sorted((known.patients[k], k) for k in np.flatnonzero(present.sum(axis=0) > 1).tolist())
        if both:
            found = [(p, [s for s, here in zip(SIDES, present[:, k], strict=True) if here]) for p, k in both]
            named = "; ".join(f"{p} in {' and '.join(sides_of)}" for p, sides_of in found[:SHOWN])
            told = f"{part.name}: {len(both)} patients, {named}"
            action = "Nothing done; put all nodules of a patient on one side, or let toolkit split do it"
            what = "a patient is on two sides of the split"
            raise UsageError(Problem("E-SPLIT-004", what, told, "each patient on one side", action))
    return known


def check_crops(split: Split, store: Store, pairs: list[Alike]) -> None:
    """Refuse a split with crops of two sides that show the same thing (`UsageError` E-SPLIT-005)."""
    for part in split.partitions:
        where = {i: side for side in SIDES for i in getattr(part, side)}
        wrong = []
        for pair in pairs:
            a, b = (store.nodules[i].nodule_id for i in (pair.first, pair.second))
            if where[a] != where[b]:
                wrong.append(f"{a} in {where[a]} and {b} in {where[b]} (correlation {pair.correlation:.3f})")
        if wrong:
            told = f"{part.name}: {len(wrong)} pairs, {'; '.join(wrong[:SHOWN])}"
            action = (
                "Nothing done; put these patients on one side, or let toolkit split tie them. "
                "--allow-similar accepts them"
            )
            what = "crops on two sides show the same thing"
            raise UsageError(Problem("E-SPLIT-005", what, told, "none", action))


def _other(measured: str, expected: str) -> UsageError:
    action = "Nothing done; make the split again with toolkit split"
    return UsageError(Problem("E-SPLIT-003", "the split does not fit the store", measured, expected, action))

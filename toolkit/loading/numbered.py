"""The nodules of a store by number: what a split says of them, as arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.loading.split import CLASSES, SIDES, Partition, class_of
from toolkit.store import Store


@dataclass(frozen=True, eq=False)
class Numbered:
    """The nodules of a store by number, so that a side is an array: a set of texts costs ten times as much.

    Attributes
    ----------
    place
        Nodule id to number.
    patients, whose
        Patient ids, and which of them each nodule is of; int64 (nodules,).
    kinds
        Which of `CLASSES` each nodule is; int64 (nodules,).
    """

    place: Mapping[str, int]
    patients: tuple[str, ...]
    whose: NDArray[np.int64]
    kinds: NDArray[np.int64]

    def sides(self, partition: Partition) -> tuple[NDArray[np.int64], ...]:
        """Return the numbers of the nodules of each side; -1 for an id that the store does not have."""
        place = self.place
        return tuple(np.array([place.get(i, -1) for i in getattr(partition, s)], np.int64) for s in SIDES)

    def on_sides(self, sides: Sequence[NDArray[np.int64]]) -> NDArray[np.bool_]:
        """Return which patients are on which sides; bool (sides, patients)."""
        return np.stack([np.bincount(self.whose[at], minlength=len(self.patients)) > 0 for at in sides])


def numbered(store: Store) -> Numbered:
    """Return the nodules of a store by number."""
    place = {nodule.nodule_id: k for k, nodule in enumerate(store.nodules)}
    codes: dict[str, int] = {}
    whose = [codes.setdefault(nodule.patient_id, len(codes)) for nodule in store.nodules]
    kinds = [CLASSES.index(class_of(nodule)) for nodule in store.nodules]
    return Numbered(place, tuple(codes), np.array(whose, np.int64), np.array(kinds, np.int64))


def count(store: Store, partition: Partition, known: Numbered | None = None) -> dict[str, dict[str, int]]:
    """Return patients, nodules and nodules of each class on each side."""
    known = known or numbered(store)
    sides = known.sides(partition)
    patients = known.on_sides(sides).sum(axis=1).tolist()
    table = {}
    for side, at, some in zip(SIDES, sides, patients, strict=True):
        classes = np.bincount(known.kinds[at], minlength=len(CLASSES)).tolist()
        table[side] = {"patients": some, "nodules": len(at), **dict(zip(CLASSES, classes, strict=True))}
    return table

"""Results come in any order; shards are written in the order of the plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from toolkit.archive.case import Case
from toolkit.errors import Problem
from toolkit.preprocess.extract import Extracted, finish, records
from toolkit.preprocess.identity import IdKey
from toolkit.preprocess.plan import PlannedShard, Settings
from toolkit.store.format import Nodule
from toolkit.store.ledger import Entry
from toolkit.store.writer import ShardWriter

Result = tuple[Case | None, str, Extracted]


class Collector:
    """Gathers results and commits a shard as soon as all its cases are there."""

    def __init__(
        self,
        store: Path,
        settings: Settings,
        id_key: IdKey,
        on_device: bool,
        shards: Sequence[PlannedShard],
    ) -> None:
        self._store, self._settings, self._id_key, self._on_device = store, settings, id_key, on_device
        self._shard_of = {case_id: shard for shard in shards for case_id in shard.case_ids}
        self._results: dict[str, dict[str, Result]] = {}
        self._writers: dict[str, ShardWriter] = {}
        self._written: dict[str, int] = {}

    def add(self, case_id: str, case: Case | None, key: str, result: Extracted) -> None:
        """Take a result; write what is next in its shard, and commit the shard with its last case."""
        shard = self._shard_of[case_id]
        result = finish(result, self._settings, on_device=self._on_device)
        self._results.setdefault(shard.name, {})[case_id] = (case, key, result)
        if shard.name not in self._writers:
            self._writers[shard.name] = ShardWriter(self._store, shard.name, self._settings.side)
            self._written[shard.name] = 0
        waiting = self._results[shard.name]
        while self._written[shard.name] < len(shard.case_ids):
            following = shard.case_ids[self._written[shard.name]]
            if following not in waiting:
                return
            self._write(self._writers[shard.name], following, *waiting.pop(following))
            self._written[shard.name] += 1
        del self._results[shard.name], self._written[shard.name]
        with self._writers.pop(shard.name) as writer:
            writer.commit()

    def _write(
        self, writer: ShardWriter, case_id: str, case: Case | None, key: str, result: Extracted
    ) -> None:
        entry, nodules = entry_of(tell(result, self._settings), case_id, case, key, self._id_key)
        if not nodules:
            nothing = (0, *(self._settings.side,) * 3)
            writer.append(entry, [], np.empty(nothing, np.int16), np.empty(nothing, np.uint8))
            return
        assert result.images is not None and result.masks is not None  # noqa: S101, PT018  # finished
        writer.append(entry, nodules, result.images, result.masks)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._writers.values():
            writer.__exit__(kind, error, trace)


@dataclass(frozen=True)
class Told:
    """What a ledger will say of a case, but for keyed hashes: nothing here needs the id key.

    Attributes
    ----------
    problem
        Why it was refused; None where it is done or empty.
    nodules
        Records that bear the archive's names of the nodules; digests of their voxels and crops.
    facts
        Notes and what was measured on the scan.
    """

    problem: Problem | None = None
    nodules: tuple[Nodule, ...] = ()
    digests: tuple[Mapping[str, Any], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def tell(result: Extracted, settings: Settings) -> Told:
    """Return what is to be said of a finished case."""
    notes = {(note.code, note.public) for note in (*result.scan_notes, *result.notes)}
    facts = _plain({**result.scan, "notes": sorted(notes)})
    if result.problem is not None or not result.findings:
        return Told(result.problem, facts=facts)
    digests = tuple({name: fact[name] for name in ("pixels", "image", "mask")} for fact in result.facts)
    return Told(None, tuple(records(result, settings)), digests, facts)


def entry_of(
    told: Told, case_id: str, case: Case | None, key: str, id_key: IdKey
) -> tuple[Entry, list[Nodule]]:
    """Return the ledger entry of a case and its nodules, named by keyed hashes."""
    patient_id = id_key.hash("patient", case.patient_id) if case is not None else ""
    if told.problem is not None:
        problem = told.problem
        said = (problem.code, problem.public, problem.transient)
        return Entry(case_id, patient_id, key, "refused", *said, facts=told.facts), []
    if not told.nodules:
        return Entry(case_id, patient_id, key, "empty", facts=told.facts), []
    split = case.split if case is not None else ""
    nodules = [
        replace(
            nodule,
            nodule_id=nodule_id(case_id, nodule.nodule_id, id_key),
            case_id=case_id,
            patient_id=patient_id,
            split=split,
        )
        for nodule in told.nodules
    ]
    return Entry(case_id, patient_id, key, "done", nodules=told.digests, facts=told.facts), nodules


def nodule_id(case_id: str, name: str, id_key: IdKey) -> str:
    """Return a nodule's id: its case's and its number, or a hash of the name that a manifest gave it."""
    if name.isdecimal() and len(name) <= 3 and str(int(name)) == name:
        return f"{case_id}-{int(name):03d}"
    return f"{case_id}-{id_key.hash('nodule', name)}"


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: [list(v) if isinstance(v, tuple) else v for v in value] for name, value in facts.items()}

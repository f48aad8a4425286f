"""Results come in any order; shards are written in the order of the plan."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from toolkit.archive.case import Case, Finding
from toolkit.errors import Problem
from toolkit.preprocess.extract import Extracted, finish, records
from toolkit.preprocess.identity import IdKey
from toolkit.preprocess.plan import PlannedShard, Settings
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
        patient_id = self._id_key.hash("patient", case.patient_id) if case is not None else ""
        notes = {(note.code, note.public) for note in (*result.scan_notes, *result.notes)}
        facts = {**result.scan, "notes": sorted(notes)}
        side = self._settings.side
        if result.problem is not None or not result.findings:
            entry = _refusal(case_id, patient_id, key, result.problem, facts)
            writer.append(
                entry, [], np.empty((0, *(side,) * 3), np.int16), np.empty((0, *(side,) * 3), np.uint8)
            )
            return
        assert result.images is not None and result.masks is not None  # noqa: S101, PT018  # finished
        names = [nodule_id(case_id, finding, self._id_key) for finding in result.findings]
        nodules = records(result, self._settings, case_id, patient_id, names, case.split if case else "")
        digests = tuple({name: fact[name] for name in ("pixels", "image", "mask")} for fact in result.facts)
        entry = Entry(case_id, patient_id, key, "done", nodules=digests, facts=_plain(facts))
        writer.append(entry, nodules, result.images, result.masks)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._writers.values():
            writer.__exit__(kind, error, trace)


def nodule_id(case_id: str, finding: Finding, id_key: IdKey) -> str:
    """Return a nodule's id: its case's and its number, or a hash of the name that a manifest gave it."""
    if finding.name.isdecimal() and len(finding.name) <= 3 and str(int(finding.name)) == finding.name:
        return f"{case_id}-{int(finding.name):03d}"
    return f"{case_id}-{id_key.hash('nodule', finding.name)}"


def _refusal(
    case_id: str, patient_id: str, key: str, problem: Problem | None, facts: Mapping[str, Any]
) -> Entry:
    """Return the ledger entry of a case without crops: empty, or refused by a problem."""
    if problem is None:
        return Entry(case_id, patient_id, key, "empty", facts=_plain(facts))
    return Entry(
        case_id,
        patient_id,
        key,
        "refused",
        problem.code,
        problem.public,
        problem.transient,
        facts=_plain(facts),
    )


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: [list(v) if isinstance(v, tuple) else v for v in value] for name, value in facts.items()}

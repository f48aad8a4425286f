"""What became of all cases of a job, counted from the ledgers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from toolkit.archive.case import Case
from toolkit.archive.discover import Discovery
from toolkit.archive.outcomes import UnreadFiles
from toolkit.errors import Problem
from toolkit.preprocess.job import Job, Made, Summary, Work
from toolkit.preprocess.plan import PlannedShard
from toolkit.store.ledger import Entry, read_ledger


class Fate(NamedTuple):
    """What a ledger says of its cases: `refused` are (case id, code, message)."""

    done: int
    nodules: int
    empty: tuple[str, ...]
    refused: tuple[tuple[str, str, str], ...]


def fate_of(entries: Sequence[Entry]) -> Fate:
    """Return what became of the cases of a shard."""
    return Fate(
        sum(entry.status == "done" for entry in entries),
        sum(len(entry.nodules) for entry in entries),
        tuple(entry.case_id for entry in entries if entry.status == "empty"),
        tuple((entry.case_id, entry.code, entry.message) for entry in entries if entry.status == "refused"),
    )


def summarise(
    job: Job,
    found: Discovery,
    mine: Sequence[PlannedShard],
    work: Work,
    made: Made,
    finished: Mapping[str, Fate],
    seconds: Mapping[str, float],
) -> Summary:
    """Count the outcomes of all cases of this part as the ledgers have them.

    `finished` are the shards whose ledgers this run has read already.
    """
    cases = work.cases
    done = nodules = 0
    codes: Counter[str] = Counter()
    told: list[tuple[str, Problem]] = []
    empties: list[str] = []
    for shard in mine:
        if shard.name in made.lost:
            told += [(_name(cases, c), made.failures[c]) for c in shard.case_ids]
            codes.update(made.failures[c].code for c in shard.case_ids)
            continue
        try:
            fate = finished.get(shard.name) or fate_of(read_ledger(job.store, shard.name))
        except FileNotFoundError:  # stopped before it was its turn
            continue
        done, nodules = done + fate.done, nodules + fate.nodules
        empties += [_name(cases, case_id) for case_id in fate.empty]
        codes.update(code for _, code, _ in fate.refused)
        for case_id, code, message in fate.refused:
            told.append((_name(cases, case_id), made.failures.get(case_id, Problem(code, message))))
    total = sum(len(shard.case_ids) for shard in mine)
    return Summary(
        cases=total,
        done=done,
        empty=len(empties),
        refused=dict(sorted(codes.items())),
        resumed=total - sum(len(shard.case_ids) for shard in work.todo),
        nodules=nodules,
        failures=tuple(told),
        files=found.refused,
        ignored=found.ignored,
        outcomes=UnreadFiles(found, dict(told)),
        empties=empties,
        seconds=seconds,
        bytes_read=made.bytes_read,
        stopped=made.stopped,
        device=job.device,
    )


def foresee(
    found: Discovery,
    mine: Sequence[PlannedShard],
    work: Work,
    seconds: float,
) -> Summary:
    """Say what a run would start from, without reading a pixel."""
    cases = work.cases
    refused = [
        (cases[c].case_id, p) for s in work.todo for c in s.case_ids if c in cases and (p := cases[c].problem)
    ]
    total = sum(len(shard.case_ids) for shard in mine)
    return Summary(
        cases=total,
        refused=dict(Counter(problem.code for _, problem in refused)),
        resumed=total - sum(len(shard.case_ids) for shard in work.todo),
        failures=refused,
        files=found.refused,
        ignored=found.ignored,
        outcomes=UnreadFiles(found),
        seconds={"index": seconds, "total": seconds},
    )


def _name(cases: Mapping[str, Case], case_id: str) -> str:
    """Return the archive's own name of a hashed case, while the archive has it."""
    return cases[case_id].case_id if case_id in cases else case_id

"""What became of all cases of a job, counted from the ledgers."""

from collections import Counter
from collections.abc import Mapping, Sequence

from toolkit.archive.case import Case
from toolkit.archive.discover import Discovery
from toolkit.archive.outcomes import outcomes
from toolkit.errors import Problem
from toolkit.preprocess.job import Job, Made, Summary, Work
from toolkit.preprocess.plan import PlannedShard
from toolkit.store.ledger import read_ledger


def summarise(
    job: Job,
    found: Discovery,
    mine: Sequence[PlannedShard],
    work: Work,
    made: Made,
    seconds: Mapping[str, float],
) -> Summary:
    """Count the outcomes of all cases of this part as the ledgers have them."""
    cases = work.cases
    status: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    told: list[tuple[str, Problem]] = []
    empties: list[str] = []
    nodules = 0
    for shard in mine:
        if shard.name in made.lost:
            told += [(_name(cases, c), made.failures[c]) for c in shard.case_ids]
            codes.update(made.failures[c].code for c in shard.case_ids)
            continue
        try:
            entries = read_ledger(job.store, shard.name)
        except FileNotFoundError:  # stopped before it was its turn
            continue
        for entry in entries:
            status[entry.status] += 1
            nodules += len(entry.nodules)
            name = _name(cases, entry.case_id)
            if entry.status == "empty":
                empties.append(name)
            if entry.status == "refused":
                codes[entry.code] += 1
                told.append((name, made.failures.get(entry.case_id, Problem(entry.code, entry.message))))
    total = sum(len(shard.case_ids) for shard in mine)
    return Summary(
        cases=total,
        done=status["done"],
        empty=status["empty"],
        refused=dict(sorted(codes.items())),
        resumed=total - sum(len(shard.case_ids) for shard in work.todo),
        nodules=nodules,
        failures=tuple(told),
        files=found.refused,
        ignored=found.ignored,
        outcomes=[o for o in outcomes(found, dict(told)) if o.outcome != "read"],
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
        outcomes=[o for o in outcomes(found) if o.outcome != "read"],
        seconds={"index": seconds, "total": seconds},
    )


def _name(cases: Mapping[str, Case], case_id: str) -> str:
    """Return the archive's own name of a hashed case, while the archive has it."""
    return cases[case_id].case_id if case_id in cases else case_id

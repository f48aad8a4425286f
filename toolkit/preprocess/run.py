"""From an archive to a store on one machine: index, plan, extract in worker processes, commit by shard."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from toolkit.archive.case import Case
from toolkit.archive.catalog import Scanned, catalog, scan_new_folder
from toolkit.archive.discover import Discovery
from toolkit.archive.index_cache import IndexCache
from toolkit.archive.outcomes import FileOutcome, outcomes
from toolkit.archive.scan import FileEntry
from toolkit.errors import Problem, StoreError
from toolkit.preprocess import cached_findings
from toolkit.preprocess.collect import Collector
from toolkit.preprocess.crosswalk import write_crosswalk
from toolkit.preprocess.extract import Extracted, Task, extract_case
from toolkit.preprocess.identity import IdKey
from toolkit.preprocess.plan import (
    PlannedShard,
    Settings,
    case_key,
    extend_plan,
    own_shards,
    read_plan,
    write_plan,
)
from toolkit.preprocess.pool import Died, Failed, Pool, death, why
from toolkit.progress import bar
from toolkit.store.ledger import holds, read_ledger, write_csv
from toolkit.store.log import RunLog
from toolkit.store.writer import write_settings


@dataclass(frozen=True)
class Job:
    """One call of ``toolkit preprocess``; see its help for what each field means."""

    archive: Path
    store: Path
    id_key: IdKey
    manifest: Path | None = None
    labels: Path | None = None
    settings: Settings = field(default_factory=Settings)
    workers: int = 1
    device: Literal["cpu", "cuda"] = "cpu"
    index_cache: Path | None = None
    part: tuple[int, int] = (0, 1)
    dry_run: bool = False
    max_failures: int | None = None
    series_uids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """What became of all cases of a job, in this and earlier runs.

    Attributes
    ----------
    cases
        Cases of this part.
    done, empty, refused
        Their outcomes; `refused` counts by code.
    resumed
        Cases that an earlier run had finished.
    nodules
        Nodules in the done cases.
    failures
        (case id, problem) of the refused cases, for the terminal; files are named by the run that
        refused them.
    files
        Files that belong to no case, each with its problem.
    ignored
        Files that are something else, by what they are.
    outcomes
        What became of every file that is no part of a usable case.
    empties
        Case ids of the readable scans in which nothing is marked.
    stopped
        True where --max-failures ended the run early.
    """

    cases: int
    done: int = 0
    empty: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    resumed: int = 0
    nodules: int = 0
    failures: Sequence[tuple[str, Problem]] = ()
    files: Sequence[Problem] = ()
    ignored: Mapping[str, Sequence[str]] = field(default_factory=dict)
    outcomes: Sequence[FileOutcome] = ()
    empties: Sequence[str] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    bytes_read: int = 0
    stopped: bool = False

    @property
    def exit_code(self) -> int:
        """0 all well (or nothing to do), 4 all input bad or without nodules, 8 partly done."""
        bad = sum(self.refused.values()) + len(self.files)
        if not bad and not self.stopped:
            return 0
        return 8 if self.done else 4


def preprocess(job: Job) -> Summary:
    """Make or finish a store.

    Raises `ToolkitError` where the whole job is impossible; a case that cannot be used is in the
    summary and in the ledger. What is committed stays whatever happens, and the same call resumes.
    """
    start = time.perf_counter()
    with ExitStack() as stack:
        pool: Pool[Any, Any] = stack.enter_context(Pool(job.workers))
        cache = IndexCache(job.index_cache)
        stack.callback(cache.close)
        found = catalog(
            job.archive,
            job.manifest,
            job.settings.rules,
            cache,
            lambda folders: scan_in(pool, folders),
            labels=job.labels,
            open_cases=job.dry_run,
            series_uids=job.series_uids,
        )
        indexed = time.perf_counter()
        cases = {job.id_key.hash("case", case.case_id): case for case in found.cases}
        keys = {name: case_key(case, job.settings, job.id_key) for name, case in cases.items()}
        identity = {**job.settings.resolved(), "ids": job.id_key.fingerprint}
        write_settings(job.store, identity, dry_run=job.dry_run)
        plan = extend_plan(read_plan(job.store), list(cases))
        mine = own_shards(plan, job.part)
        todo = [s for s in mine if not _is_finished(job.store, s, keys, job.settings.side)]
        if job.dry_run:
            return _dry_summary(found, mine, todo, cases, indexed - start)
        write_plan(job.store, plan)
        write_crosswalk(job.store, found.cases, job.id_key)
        failures, stopped, bytes_read = _extract_all(job, pool, cache, todo, cases, keys)
        write_csv(job.store)
        planned = sum(len(shard.case_ids) for shard in todo)
        seconds = {"index": indexed - start, "total": time.perf_counter() - start}
        return _summary(job, found, mine, planned, cases, failures, stopped, seconds, bytes_read)


def scan_in(pool: Pool[str, Scanned], folders: Iterable[str]) -> Iterator[Scanned]:
    """Scan new folders in the workers; a folder that kills its worker is named, not scanned again."""
    names = list(folders)
    with bar("index", len(names), "folders") as advance:
        for number, result in pool.map(scan_new_folder, names):
            advance()
            if isinstance(result, Died | Failed):
                problem = Problem("E-CASE-002", "folder cannot be read", why(result), files=(names[number],))
                yield names[number], [FileEntry(".", 0, 0, "bad", list(vars(problem).values()))], True
            else:
                yield result


def _is_finished(store: Path, shard: PlannedShard, keys: Mapping[str, str], side: int) -> bool:
    """Tell whether a shard is committed with the present keys; a case that left the archive is kept."""
    try:
        entries = read_ledger(store, shard.name)
    except (FileNotFoundError, StoreError):
        return False
    old = {entry.case_id: entry.key for entry in entries}
    return holds(store, shard.name, entries, [(c, keys.get(c, old.get(c, ""))) for c in shard.case_ids], side)


def _extract_all(
    job: Job,
    pool: Pool[Task, Extracted],
    cache: IndexCache,
    todo: Sequence[PlannedShard],
    cases: Mapping[str, Case],
    keys: Mapping[str, str],
) -> tuple[dict[str, Problem], bool, int]:
    """Extract all cases of some shards and commit each shard as its last case arrives."""
    order = [(shard, case_id) for shard in todo for case_id in shard.case_ids]
    failures: dict[str, Problem] = {}
    bytes_read = 0
    with (
        RunLog(job.store) as log,
        Collector(job.store, job.settings, job.id_key, job.device == "cuda", todo) as collector,
        ThreadPoolExecutor(1) as committer,
        bar("preprocess", len(order), "cases") as advance,
    ):
        waiting: list[Future[None]] = []
        for number, result in pool.map(extract_case, _tasks(job, cache, order, cases)):
            _, case_id = order[number]
            case = cases.get(case_id)
            outcome = _outcome(result)
            if case is not None and outcome.problem is None:
                cached_findings.keep(cache, case, job.settings, outcome.findings, outcome.notes)
            if outcome.problem is not None:
                failures[case_id] = outcome.problem
            waiting.append(committer.submit(collector.add, case_id, case, keys.get(case_id, ""), outcome))
            log.case(case_id, outcome.seconds, outcome.bytes_read)
            bytes_read += outcome.bytes_read
            advance(1, outcome.bytes_read)
            while len(waiting) > 2 * job.workers or (waiting and waiting[0].done()):
                waiting.pop(0).result()
            if job.max_failures is not None and len(failures) > job.max_failures:
                break
        for future in waiting:
            future.result()
        log.finish(len(order), bytes_read)
    stopped = job.max_failures is not None and len(failures) > job.max_failures
    return failures, stopped, bytes_read


def _tasks(
    job: Job, cache: IndexCache, order: Sequence[tuple[PlannedShard, str]], cases: Mapping[str, Case]
) -> Iterator[Task]:
    for _, case_id in order:
        case = cases.get(case_id)
        if case is None:
            action = "Left out; it returns when its files do"
            gone = Problem(
                "E-CASE-001", "planned case is no longer in the archive", action=action, transient=True
            )
            case = Case(case_id, "", "", None, problem=gone)
        known = cached_findings.load(cache, case, job.settings)
        findings, notes = known if known is not None else (None, ())
        yield Task(case, job.settings, findings, notes, job.device == "cuda")


def _outcome(result: Extracted | Died | Failed) -> Extracted:
    """Turn a dead worker or an unforeseen error into a refusal of its case."""
    if isinstance(result, Extracted):
        return result
    return Extracted(death(result))


def _summary(
    job: Job,
    found: Discovery,
    mine: Sequence[PlannedShard],
    worked_on: int,
    cases: Mapping[str, Case],
    failures: Mapping[str, Problem],
    stopped: bool,
    seconds: Mapping[str, float],
    bytes_read: int,
) -> Summary:
    """Count the outcomes of all cases of this part as the ledgers have them."""
    status: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    told: list[tuple[str, Problem]] = []
    empties: list[str] = []
    nodules = 0
    for shard in mine:
        try:
            entries = read_ledger(job.store, shard.name)
        except FileNotFoundError:  # stopped before it was its turn
            continue
        for entry in entries:
            status[entry.status] += 1
            nodules += len(entry.nodules)
            name = cases[entry.case_id].case_id if entry.case_id in cases else entry.case_id
            if entry.status == "empty":
                empties.append(name)
            if entry.status == "refused":
                codes[entry.code] += 1
                told.append((name, failures.get(entry.case_id, Problem(entry.code, entry.message))))
    total = sum(len(shard.case_ids) for shard in mine)
    return Summary(
        cases=total,
        done=status["done"],
        empty=status["empty"],
        refused=dict(sorted(codes.items())),
        resumed=total - worked_on,
        nodules=nodules,
        failures=tuple(told),
        files=found.refused,
        ignored=found.ignored,
        outcomes=[o for o in outcomes(found, dict(told)) if o.outcome != "read"],
        empties=empties,
        seconds=seconds,
        bytes_read=bytes_read,
        stopped=stopped,
    )


def _dry_summary(
    found: Discovery,
    mine: Sequence[PlannedShard],
    todo: Sequence[PlannedShard],
    cases: Mapping[str, Case],
    seconds: float,
) -> Summary:
    """Say what a run would start from, without reading a pixel."""
    refused = [
        (cases[c].case_id, p) for s in todo for c in s.case_ids if c in cases and (p := cases[c].problem)
    ]
    total = sum(len(shard.case_ids) for shard in mine)
    return Summary(
        cases=total,
        refused=dict(Counter(problem.code for _, problem in refused)),
        resumed=total - sum(len(shard.case_ids) for shard in todo),
        failures=refused,
        files=found.refused,
        ignored=found.ignored,
        outcomes=[o for o in outcomes(found) if o.outcome != "read"],
        seconds={"index": seconds, "total": seconds},
    )

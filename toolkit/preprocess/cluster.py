"""The engine of a Dask cluster: workers make the crops of a shard each, this process publishes and names.

The id key stays here, and so do the names of cases and patients.
"""

import secrets
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from toolkit.archive.index_cache import IndexCache
from toolkit.errors import Problem, ResourceError, StoreError, UsageError
from toolkit.preprocess import cached_findings
from toolkit.preprocess.collect import entry_of
from toolkit.preprocess.job import Job, Made, Work
from toolkit.preprocess.plan import PlannedShard
from toolkit.preprocess.shards import (
    ShardDone,
    ShardTask,
    do_shard,
    not_done,
    veiled,
)
from toolkit.preprocess.tasks import task_of
from toolkit.preprocess.versions import versions
from toolkit.progress import bar
from toolkit.store.crops import CropFiles
from toolkit.store.format import digest
from toolkit.store.ledger import read_ledger
from toolkit.store.log import RunLog
from toolkit.store.writer import ShardWriter

RECOUNT_S = 5.0  # how often the workers are counted
AHEAD = 2  # shards that wait for each thread of the cluster
COMMITTERS = 4


def everywhere(job: Job) -> Job:
    """Return the job with paths that mean the same on every machine."""
    manifest = None if job.manifest is None else job.manifest.absolute()
    return replace(job, archive=job.archive.absolute(), store=job.store.absolute(), manifest=manifest)


@dataclass
class _Run:
    """What is known of a run while shards come in."""

    job: Job
    work: Work
    client: Any
    store_digest: str
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    failures: dict[str, Problem] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    bytes_read: int = 0
    threads: int = 0
    counted: float = -RECOUNT_S

    @property
    def stopped(self) -> bool:
        return self.job.max_failures is not None and len(self.failures) > self.job.max_failures


def make(job: Job, work: Work, cache: IndexCache, client: Any) -> Made:
    """Have a cluster make some shards; publish and name each as it comes.

    Raises `ResourceError` E-DASK-005 where the scheduler is lost: what was committed stays, and the same
    call, or one of another engine, resumes.
    """
    from distributed import as_completed

    run = _Run(job, work, client, digest((job.store / "store.json").read_bytes()))
    total = sum(len(shard.case_ids) for shard in work.todo)
    following = iter(work.todo)
    running: dict[Any, PlannedShard] = {}
    with (
        RunLog(job.store) as log,
        ThreadPoolExecutor(COMMITTERS) as committers,
        bar("preprocess", total, "cases") as advance,
    ):
        commits: list[Future[None]] = []
        finished = as_completed(loop=client.loop)
        try:
            _send(run, cache, following, running, finished)
            for future in finished:
                shard = running.pop(future)
                done = _result(future)
                del future
                commits.append(committers.submit(commit, job, work, shard, done))
                _note(run, cache, log, shard, done)
                advance(len(shard.case_ids), sum(case.bytes_read for case in done.cases))
                while len(commits) > 2 * COMMITTERS or (commits and commits[0].done()):
                    commits.pop(0).result()
                if run.stopped:
                    break
                _send(run, cache, following, running, finished)
            for committing in commits:
                committing.result()
        finally:
            with suppress(Exception):  # a lost scheduler has none to cancel
                client.cancel(list(running), force=True)
        log.finish(total, run.bytes_read)
    return Made(run.failures, frozenset(run.lost), run.bytes_read, run.stopped)


def _send(
    run: _Run,
    cache: IndexCache,
    following: Iterator[PlannedShard],
    running: dict[Any, PlannedShard],
    finished: Any,
) -> None:
    """Send shards until each thread of the cluster has some waiting."""
    if time.monotonic() - run.counted >= RECOUNT_S:
        try:
            run.threads = sum(run.client.nthreads().values())
        except (OSError, CancelledError) as error:
            raise _lost() from error
        run.counted = time.monotonic()
    while len(running) < (1 + AHEAD) * max(run.threads, 2):
        shard = next(following, None)
        if shard is None:
            return
        task = shard_task(run.job, run.work, cache, shard, run.store_digest)
        future = run.client.submit(do_shard, task, key=f"toolkit-{run.token}-{shard.name}", pure=False)
        running[future] = shard
        finished.add(future)


def shard_task(job: Job, work: Work, cache: IndexCache, shard: PlannedShard, store_digest: str) -> ShardTask:
    """Return a shard as it travels to a worker."""
    return ShardTask(
        shard=shard.name,
        versions=versions(),
        archive=job.archive,
        store=job.store,
        store_digest=store_digest,
        settings=job.settings,
        keys=tuple((case_id, work.keys.get(case_id, "")) for case_id in shard.case_ids),
        tasks=tuple(veiled(task_of(job, work, cache, case_id)) for case_id in shard.case_ids),
    )


def _result(future: Any) -> ShardDone:
    """Return what a worker did; raises what ends the run."""
    try:
        done: ShardDone = future.result()
    except (CancelledError, OSError, TimeoutError) as error:
        raise _lost() from error
    except Exception as error:  # KilledWorker, or a task that a worker could not even read
        return ShardDone(problem=not_done(type(error).__name__))
    if done.problem is None or done.problem.code == "E-DASK-006":
        return done
    kinds = {"E-DISK": ResourceError, "E-STOR": StoreError}
    raise kinds.get(done.problem.code[:6], UsageError)(done.problem)


def _lost() -> ResourceError:
    action = "What was committed is safe; run again, with this or another engine, to resume"
    return ResourceError(Problem("E-DASK-005", "the scheduler is lost", action=action, transient=True))


def _note(run: _Run, cache: IndexCache, log: RunLog, shard: PlannedShard, done: ShardDone) -> None:
    """Keep what a shard's cases say for the summary, the index and the log."""
    if done.problem is not None:
        run.lost.add(shard.name)
        run.failures |= dict.fromkeys(shard.case_ids, done.problem)
        return
    for case_id, made in zip(shard.case_ids, done.cases, strict=bool(done.mark)):
        case = run.work.cases.get(case_id)
        if made.told.problem is not None:
            run.failures[case_id] = made.told.problem
        if case is not None and made.found is not None:
            cached_findings.keep(cache, case, run.job.settings, made.found)
        log.case(case_id, made.seconds, made.bytes_read)
        run.bytes_read += made.bytes_read


def commit(job: Job, work: Work, shard: PlannedShard, done: ShardDone) -> None:
    """Publish the crops that a worker left, and write the ledger."""
    if done.problem is not None:
        return
    if not done.mark:  # it was committed meanwhile
        read_ledger(job.store, shard.name)
        return
    rows = sum(len(made.told.nodules) for made in done.cases)
    try:
        crops = CropFiles.reopen(job.store, shard.name, job.settings.side, done.mark, rows)
    except (OSError, ValueError) as error:
        what, action = "the crops that a worker wrote are not here", "Stopped; is the store on a shared disk?"
        measured = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(Problem("E-DASK-004", what, measured or "", "", action)) from error
    with ShardWriter(job.store, shard.name, job.settings.side, crops) as writer:
        for case_id, made in zip(shard.case_ids, done.cases, strict=True):
            case, key = work.cases.get(case_id), work.keys.get(case_id, "")
            writer.note(*entry_of(made.told, case_id, case, key, job.id_key))
        writer.commit()

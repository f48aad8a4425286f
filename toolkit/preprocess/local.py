"""The engine of one machine: worker processes extract, this process commits."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from toolkit.archive.catalog import Scanned, scan_new_folder
from toolkit.archive.entries import FileEntry, pack_folder
from toolkit.archive.index_cache import IndexCache
from toolkit.archive.scan import FolderTask
from toolkit.errors import Problem
from toolkit.preprocess import cached_findings
from toolkit.preprocess.collect import Collector
from toolkit.preprocess.extract import extract_case
from toolkit.preprocess.job import Job, Made, Work
from toolkit.preprocess.pool import Exhausted, Lost, Pool, why
from toolkit.preprocess.tasks import outcome_of, task_of
from toolkit.progress import bar
from toolkit.store.log import RunLog


def scan_in(pool: Pool[FolderTask, Scanned], folders: Iterable[FolderTask]) -> Iterator[Scanned]:
    """Scan folders in the workers; one that kills its worker is named, and not scanned again in this run."""
    tasks = list(folders)
    with bar("index", len(tasks), "folders") as advance:
        for number, result in pool.map(scan_new_folder, tasks):
            advance()
            if isinstance(result, Lost):
                name = tasks[number].folder
                action = "--worker-memory GiB grants more" if isinstance(result, Exhausted) else ""
                problem = Problem("E-CASE-002", "folder cannot be read", why(result), "", action, (name,))
                yield name, pack_folder([FileEntry(".", 0, 0, "bad", list(vars(problem).values()))])
            else:
                yield result


def make(job: Job, work: Work, cache: IndexCache, pool: Pool[Any, Any]) -> Made:
    """Extract all cases of some shards and commit each shard as its last case arrives."""
    order = [case_id for shard in work.todo for case_id in shard.case_ids]
    failures: dict[str, Problem] = {}
    bytes_read = 0
    with (
        RunLog(job.store) as log,
        Collector(job.store, job.settings, job.id_key, job.device == "cuda", work.todo) as collector,
        ThreadPoolExecutor(1) as committer,
        bar("preprocess", len(order), "cases") as advance,
    ):
        waiting: list[Future[None]] = []
        tasks = (task_of(job, work, cache, case_id) for case_id in order)
        for number, result in pool.map(extract_case, tasks):
            case_id = order[number]
            case, key = work.cases.get(case_id), work.keys.get(case_id, "")
            outcome = outcome_of(result)
            if outcome.problem is not None:
                failures[case_id] = outcome.problem
            elif case is not None and case.masks:
                found = cached_findings.pack(outcome.findings, outcome.notes)
                cached_findings.keep(cache, case, job.settings, found)
            waiting.append(committer.submit(collector.add, case_id, case, key, outcome))
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
    return Made(failures, bytes_read=bytes_read, stopped=stopped)

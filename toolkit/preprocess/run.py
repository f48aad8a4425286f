"""From an archive to a store: index, plan, and an engine that makes the shards."""

import gc
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from toolkit.archive.catalog import catalog
from toolkit.archive.index_cache import IndexCache
from toolkit.device import resolve
from toolkit.errors import StoreError
from toolkit.preprocess import local
from toolkit.preprocess.crosswalk import write_crosswalk
from toolkit.preprocess.job import Job, Summary, Work
from toolkit.preprocess.plan import PlannedShard, case_key, extend_plan, own_shards, read_plan, write_plan
from toolkit.preprocess.pool import Pool
from toolkit.preprocess.summary import Fate, fate_of, foresee, summarise
from toolkit.store.crops import sweep
from toolkit.store.ledger import Entry, NodulesCsv, holds, read_ledger, write_csv
from toolkit.store.writer import sync_committed, write_settings


def preprocess(job: Job) -> Summary:
    """Make or finish a store.

    Raises `ToolkitError` where the whole job is impossible; a case that cannot be used is in the
    summary and in the ledger. What is committed stays whatever happens, and the same call resumes.
    """
    start = time.perf_counter()
    with ExitStack() as stack:
        client: Any = None
        if job.engine == "dask" and not job.dry_run:
            from toolkit.preprocess import cluster, connect

            job = cluster.everywhere(job)
            client = stack.enter_context(connect.connect(job.scheduler, job.workers))
            job = replace(job, device=connect.check_workers(client, job.device))
        elif job.device == "auto":
            job = replace(job, device=resolve(job.device))
        pool: Pool[Any, Any] = stack.enter_context(Pool(job.workers, job.worker_memory))
        cache = IndexCache(job.index_cache)
        stack.callback(cache.close)
        found = catalog(
            job.archive,
            job.manifest,
            job.settings.rules,
            cache,
            lambda folders: local.scan_in(pool, folders),
            labels=job.labels,
            open_cases=job.dry_run,
            series_uids=job.series_uids,
        )
        gc.freeze()  # what the catalogue holds stays to the end: no collection need walk through it
        stack.callback(gc.unfreeze)
        indexed = time.perf_counter()
        cases = {job.id_key.hash("case", case.case_id): case for case in found.cases}
        keys = {name: case_key(case, job.settings, job.id_key) for name, case in cases.items()}
        identity = {**job.settings.resolved(), "ids": job.id_key.fingerprint}
        write_settings(job.store, identity, dry_run=job.dry_run)
        plan = extend_plan(read_plan(job.store), list(cases))
        mine = own_shards(plan, job.part)
        finished, table = _finished(job, mine, keys)
        todo = [s for s in mine if s.name not in finished]
        work = Work(todo, cases, keys)
        if job.dry_run:
            return foresee(found, mine, work, indexed - start)
        write_plan(job.store, plan)
        sync_committed(job.store)
        write_crosswalk(job.store, found.cases, job.id_key)
        if client is None:
            made = local.make(job, work, cache, pool)
        else:
            pool.close()
            made = cluster.make(job, work, cache, client)
        sweep(job.store, {shard.name for shard in mine} - made.lost)
        write_csv(job.store, table)
        seconds = {"index": indexed - start, "total": time.perf_counter() - start}
        return summarise(job, found, mine, work, made, finished, seconds)


def _finished(
    job: Job, mine: Sequence[PlannedShard], keys: Mapping[str, str]
) -> tuple[dict[str, Fate], NodulesCsv | None]:
    """Return the fates of shards that are committed with the present keys; a case that left is kept.

    Where that is all of them, the table of their nodules comes with it: to read ledgers again takes as long.
    """
    fates: dict[str, Fate] = {}
    table: NodulesCsv | None = NodulesCsv()
    for shard in mine:
        entries = _entries(job, shard, keys)
        if entries is None:
            table = None
            continue
        fates[shard.name] = fate_of(entries)
        if table is not None:
            table.add(shard.name, entries)
    return fates, table


def _entries(job: Job, shard: PlannedShard, keys: Mapping[str, str]) -> list[Entry] | None:
    """Return the ledger of a shard with which nothing is left to do."""
    try:
        entries = read_ledger(job.store, shard.name)
    except (FileNotFoundError, StoreError):
        return None
    old = {entry.case_id: entry.key for entry in entries}
    expected = [(case_id, keys.get(case_id, old.get(case_id, ""))) for case_id in shard.case_ids]
    return entries if holds(job.store, shard.name, entries, expected, job.settings.side) else None

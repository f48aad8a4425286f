"""The steps that `benchmarks.scale` measures, each in a process of its own: ``... STEP FOLDER``, JSON on stdout."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scale_rows import SETTINGS, job
from toolkit.bench.machine import peak_mib

BARE = "peak of resident memory above that of imports; what a step is given (a store, opened) is included"
RATES = {"a batch": "ms", "slowest batch": "ms", "first batch of a resumed run": "ms", "crop": "ms"}
BATCH, POSITIVES = 64, 32
Extra = dict[str, float]


@dataclass(frozen=True)
class Step:
    """What one step is, what must be there before (not timed), and the step itself."""

    what: str
    run: Callable[[Path, Any], Extra | None]
    before: Callable[[Path], Any] = lambda work: None


def _index(work: Path, _: Any) -> None:
    from toolkit.archive.catalog import catalog
    from toolkit.archive.index_cache import IndexCache

    cache = IndexCache(work / "index")
    catalog(work / "archive", None, SETTINGS.rules, cache, open_cases=False)
    cache.close()


def _resume(work: Path, _: Any) -> None:
    from toolkit.preprocess.run import preprocess

    summary = preprocess(job(work))
    if summary.resumed != summary.cases or summary.done != summary.cases:
        raise AssertionError(f"{summary.resumed} and {summary.done} of {summary.cases}")


def _case_ids(work: Path) -> list[str]:
    from toolkit.preprocess.plan import read_plan

    return [case for shard in read_plan(work / "store") for case in shard.case_ids]


def _plan(work: Path, case_ids: list[str]) -> None:
    from toolkit.preprocess.plan import extend_plan, own_shards, read_plan

    half = extend_plan([], case_ids[: len(case_ids) // 2])
    if len(extend_plan(half, case_ids)) != len(read_plan(work / "store")) or not own_shards(half, (1, 2)):
        raise AssertionError


def _csv(work: Path, _: Any) -> None:
    from toolkit.store.ledger import write_csv

    write_csv(work / "store")


def _opened(work: Path) -> Any:
    from toolkit.store import Store

    return Store.open(work / "store")


def _open(work: Path, _: Any) -> None:
    _opened(work)


def _crops(work: Path, store: Any) -> Extra:
    """Map 2,000 crops anywhere in the store; their bytes are not read."""
    places = np.random.default_rng(0).integers(len(store), size=2000)
    start = time.perf_counter()
    for place in places.tolist():
        store.image(place)
        store.mask(place)
    return {"crop": 1000 * (time.perf_counter() - start) / len(places)}


def _split(work: Path, store: Any) -> None:
    from toolkit.loading import split

    split.alike = lambda store: []  # it reads pixels: `benchmarks.alike` has it
    made = split.holdout(store, 0.15, 0.15)
    split.indices(store, made.partitions[0].train)


def _divided(work: Path) -> Any:
    from toolkit.loading import split

    split.alike = lambda store: []
    store = _opened(work)
    return store, split.holdout(store, 0.15, 0.15)


def _split_file(work: Path, both: Any) -> None:
    from toolkit.loading.split_file import read_split, write_split

    store, made = both
    write_split(work / "split.json", made, store)
    read_split(work / "split.json", store, compare_crops=False)


def _sampler(work: Path, store: Any) -> Extra:
    """Start a sampler; then 1,000 batches of one epoch, and one of another in a new sampler."""
    from toolkit.loading.sampler import BalancedSampler, members

    of = members(store.nodules)
    sampler = BalancedSampler(of, batch=BATCH, positives=POSITIVES)
    sampler.batch(0, 0)
    return {}


def _batches(work: Path, store: Any) -> Extra:
    from toolkit.loading.sampler import BalancedSampler, members

    of = members(store.nodules)
    sampler = BalancedSampler(of, batch=BATCH, positives=POSITIVES)
    steps = sampler.steps(0)
    took = []
    for step in range(min(1000, steps)):
        start = time.perf_counter()
        sampler.batch(0, step)
        took.append(1000 * (time.perf_counter() - start))
    resumed = BalancedSampler(of, batch=BATCH, positives=POSITIVES)
    start = time.perf_counter()
    resumed.batch(37, steps // 2)
    first = 1000 * (time.perf_counter() - start)
    median = float(np.median(took[1:]))
    return {"a batch": median, "slowest batch": max(took[1:]), "first batch of a resumed run": first}


STEPS = {
    "index": Step("cases of an archive whose headers the index holds", _index),
    "plan": Step("read a plan; extend half of one", _plan, _case_ids),
    "resume": Step("toolkit preprocess on a finished store", _resume),
    "nodules.csv": Step("write nodules.csv from the ledgers", _csv),
    "open": Step("Store.open", _open),
    "crops": Step("map image and mask of 2,000 crops anywhere in the store", _crops, _opened),
    "split": Step("hold-out by patient without looking at pixels", _split, _opened),
    "split file": Step("write a split, read and check it", _split_file, _divided),
    "sampler": Step("members, sampler and first batch", _sampler, _opened),
    "batches": Step("1,000 batches; a batch in the middle of another epoch in a new sampler", _batches, _opened),
}


def main(argv: list[str]) -> None:
    """Run a step and tell what it took."""
    import toolkit.loading.sampler
    import toolkit.loading.split
    import toolkit.preprocess.run
    import toolkit.store  # noqa: F401  # imports are no part of a step

    step, work = STEPS[argv[0]], Path(argv[1])
    bare = peak_mib()
    before = step.before(work)
    wall, cpu = time.perf_counter(), time.process_time()
    extra = step.run(work, before)
    told = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    print(json.dumps({**told, "mib": peak_mib() - bare, "extra": extra or {}}))


if __name__ == "__main__":
    main(sys.argv[1:])

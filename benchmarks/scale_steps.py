"""The steps that `benchmarks.scale` measures: ``... STEP,STEP FOLDER``, noted in its ``runs.jsonl``."""

import gc
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scale_rows import SETTINGS, job
from toolkit.bench.machine import peak_mib, peak_reset

BARE = "peak of resident memory above that of imports; what a step is given, as an open store, is included"
RATES = {"a batch": "ms", "batch p99": "ms", "first batch of a resumed run": "ms", "crop": "ms"}
BATCH, POSITIVES = 64, 32
Extra = dict[str, float]
State = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """What one step is, and the step itself: (folder, what steps before it in the same process left).

    `times` is how often it runs in one process; `grows` is False of work that does not depend on n.
    """

    what: str
    run: Callable[[Path, State], Extra | None]
    times: int = 1
    grows: bool = True


def _index(work: Path, state: State) -> None:
    from toolkit.archive.catalog import catalog
    from toolkit.archive.index_cache import IndexCache

    cache = IndexCache(work / "index")
    catalog(work / "archive", None, SETTINGS.rules, cache, open_cases=False)
    cache.close()


def _resume(work: Path, state: State) -> None:
    from toolkit.preprocess.run import preprocess

    summary = preprocess(job(work))
    if summary.resumed != summary.cases or summary.done != summary.cases:
        raise AssertionError(f"{summary.resumed} and {summary.done} of {summary.cases}")


def _plan(work: Path, state: State) -> None:
    from toolkit.preprocess.plan import extend_plan, own_shards, read_plan

    plan = read_plan(work / "store")
    case_ids = [case for shard in plan for case in shard.case_ids]
    half = extend_plan([], case_ids[: len(case_ids) // 2])
    whole = extend_plan(half, case_ids)
    if sum(len(s.case_ids) for s in whole) != len(case_ids) or not own_shards(half, (1, 2)):
        raise AssertionError


def _csv(work: Path, state: State) -> None:
    from toolkit.store.ledger import write_csv

    write_csv(work / "store")


def _open(work: Path, state: State) -> None:
    from toolkit.store import Store

    state["store"] = Store.open(work / "store")


def _crops(work: Path, state: State) -> Extra:
    """Map 2,000 crops anywhere in the store; their bytes are not read."""
    store = state["store"]
    places = np.random.default_rng(0).integers(len(store), size=2000)
    start = time.perf_counter()
    for place in places.tolist():
        store.image(place)
        store.mask(place)
    return {"crop": 1000 * (time.perf_counter() - start) / len(places)}


def _split(work: Path, state: State) -> None:
    from toolkit.loading import split

    split.alike = lambda store: []  # it reads pixels
    state["split"] = split.holdout(state["store"], 0.15, 0.15)
    split.indices(state["store"], state["split"].partitions[0].train)


def _split_file(work: Path, state: State) -> None:
    from toolkit.loading.split_file import read_split, write_split

    write_split(work / "split.json", state["split"], state["store"])
    read_split(work / "split.json", state["store"], compare_crops=False)


def _sampler(work: Path, state: State) -> None:
    from toolkit.loading.sampler import BalancedSampler, members

    state["members"] = members(state["store"].nodules)
    state["sampler"] = BalancedSampler(state["members"], batch=BATCH, positives=POSITIVES)
    state["sampler"].batch(0, 0)


def _batches(work: Path, state: State) -> Extra:
    """Ask for 1,000 batches of an epoch, and for one of another in a new sampler."""
    from toolkit.loading.sampler import BalancedSampler

    sampler = state["sampler"]
    steps = sampler.steps(0)
    took = []
    for step in range(1, min(1001, steps)):
        start = time.perf_counter()
        sampler.batch(0, step)
        took.append(1000 * (time.perf_counter() - start))
    resumed = BalancedSampler(state["members"], batch=BATCH, positives=POSITIVES)
    start = time.perf_counter()
    resumed.batch(37, steps // 2)
    first = 1000 * (time.perf_counter() - start)
    late = float(np.percentile(took, 99))
    return {"a batch": float(np.median(took)), "batch p99": late, "first batch of a resumed run": first}


STEPS = {
    "index": Step("cases of an archive whose headers the index holds", _index),
    "plan": Step("read a plan, extend half of it to the whole", _plan, times=5),
    "resume": Step("toolkit preprocess on a finished store", _resume),
    "nodules.csv": Step("write nodules.csv from the ledgers", _csv),
    "open": Step("Store.open", _open),
    "crops": Step("map image and mask of 2,000 crops anywhere in the store", _crops, grows=False),
    "split": Step("hold-out by patient, without looking at pixels", _split),
    "split file": Step("write a split, read and check it", _split_file, times=5),
    "sampler": Step("members, sampler and first batch", _sampler, times=5),
    "batches": Step("1,000 batches; one in the middle of epoch 37 in a new sampler", _batches, grows=False),
}
TOGETHER = (
    ("index",),
    ("plan",),
    ("resume",),
    ("nodules.csv",),
    ("open", "crops", "split", "split file", "sampler", "batches"),
)
"""Steps of one process: those that need an open store share it."""


def main(argv: list[str]) -> None:
    """Run steps, told with commas, one after another, and tell what each took."""
    import toolkit.loading.sampler
    import toolkit.loading.split
    import toolkit.preprocess.run
    import toolkit.store  # noqa: F401  # imports are no part of a step

    work, state, bare = Path(argv[1]), State(), peak_mib()
    for name in [each for each in argv[0].split(",") for _ in range(STEPS[each].times)]:
        gc.collect()  # what steps before it left is no part of a step
        peak_reset()
        wall, cpu = time.perf_counter(), time.process_time()
        extra = STEPS[name].run(work, state)
        told: State = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        told |= {"step": name, "mib": peak_mib() - bare, "extra": extra or {}}
        with (work / "runs.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])

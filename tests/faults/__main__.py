"""``python -m tests.faults preprocess --seeds 300``: what was tried, how it ended, what was lost."""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from tests.faults import jobs
from tests.faults.broken import BROKEN
from tests.faults.door import begin_again_above_the_shim, preloaded
from tests.faults.harness import LOSSES, Files, Job, Tally, reference, try_seed

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "reliability_faults.jsonl"
KINDS = ("faults", "ends", "power", "flips")
SEEDS_TO_NOTICE = 250  # a child's exit code holds no more
JOBS = {"preprocess": jobs.preprocessing, "index": jobs.indexing, "training": jobs.training}


def main() -> int:
    """Try seeds and say what became of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--seed", type=int, help="This one alone; its files are kept.")
    parser.add_argument("--processes", type=int, default=1, help="Try so many seeds at once.")
    parser.add_argument("--prove", action="store_true", help="Also take safeguards out, and see it noticed.")
    parser.add_argument("--record", action="store_true", help=f"Add a line to {RESULTS.name}.")
    asked = parser.parse_args()
    if not preloaded():
        begin_again_above_the_shim()
    begun = time.monotonic()
    fast = Path("/dev/shm")
    work = Path(tempfile.mkdtemp(prefix="toolkit-faults-", dir=fast if fast.is_dir() else None))
    seeds = range(asked.seeds) if asked.seed is None else [asked.seed]
    try:
        job = JOBS[asked.job](work)
        expected, operations = reference(job, work / "reference")
        trial = partial(_trial, job, expected, operations)
        tallies = _dealt(seeds, asked.processes, work, trial)
        caught = {name: _noticed_after(name, work, trial) for name in BROKEN if asked.prove}
    finally:
        if asked.seed is None:
            shutil.rmtree(work)
        else:
            sys.stderr.write(f"files: {work}\n")
    wrong = [each for tally in tallies for each in tally.wrong]
    wrong += [f"not noticed: {name}" for name, seed in caught.items() if seed is None]
    told = {"what": f"faults: {asked.job}", **_counted(tallies, wrong)}
    told |= {"seconds": round(time.monotonic() - begun, 1), "seeds": len(seeds), "operations": operations}
    if caught:
        told["safeguards taken out, noticed at seed"] = caught
    sys.stdout.write(json.dumps(told, indent=2) + "\n")
    sys.stderr.write("".join(f"{each}\n" for each in wrong))
    if asked.record:
        _record(told)
    return 1 if wrong else 0


def _counted(tallies: Sequence[Tally], wrong: Sequence[str]) -> dict[str, object]:
    """Return how many faults of each kind were tried, how runs ended, and what was found and lost."""
    totals: dict[str, Counter[str]] = {
        name: sum((getattr(tally, name) for tally in tallies), Counter()) for name in KINDS
    }
    return {
        "tried": sum(n for kind, n in totals["faults"].items() if kind != "not reached"),
        "found": len(wrong),
        "lost": sum(each.split(": ")[-1] in LOSSES for each in wrong),
        **{name: dict(sorted(total.items())) for name, total in totals.items()},
    }


def _trial(job: Job, expected: Files, operations: int, seed: int, place: Path, tally: Tally) -> None:
    try_seed(job, place, seed, expected, operations, tally)


def _noticed_after(name: str, work: Path, trial: Callable[[int, Path, Tally], None]) -> int | None:
    """Return the seed that notices that a safeguard was taken out of the product."""
    place = work / name
    place.mkdir()
    child = os.fork()
    if not child:
        BROKEN[name]()
        tally = Tally()
        seed = 0
        while not tally.wrong and seed < SEEDS_TO_NOTICE:
            trial(seed, place, tally)
            seed += 1
        os._exit(seed if tally.wrong else 255)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code - 1 if 0 < code <= SEEDS_TO_NOTICE else None


def _dealt(
    seeds: Sequence[int], processes: int, work: Path, trial: Callable[[int, Path, Tally], None]
) -> list[Tally]:
    """Try seeds in some processes; return what each of them has to tell."""
    children = []
    for number in range(processes):
        place = work / str(number)
        place.mkdir()
        child = os.fork()
        if not child:
            tally = Tally()
            (place / "tally").write_text(json.dumps(vars(tally)))
            for seed in seeds[number::processes]:
                try:
                    trial(seed, place, tally)
                except BaseException:
                    tally.wrong.append(f"seed {seed}: {traceback.format_exc()}")
                (place / "tally").write_text(json.dumps(vars(tally)))
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    found = [json.loads((work / str(number) / "tally").read_text()) for number in range(processes)]
    return [Tally(*(Counter(each[n]) for n in KINDS), each["wrong"]) for each in found]


def _record(told: Mapping[str, object]) -> None:
    from toolkit.bench.machine import context

    about = {name: context("cpu")[name] for name in ("commit", "date", "device")}
    with RESULTS.open("a") as file:
        file.write(json.dumps({**told, **about}) + "\n")


if __name__ == "__main__":
    sys.exit(main())

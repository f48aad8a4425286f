"""``python -m tests.faults preprocess --seeds 300``: what was tried, how it ended, what was lost."""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.faults import jobs
from tests.faults.door import begin_again_above_the_shim, preloaded
from tests.faults.harness import Tally, reference, try_seed

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "reliability_faults.jsonl"
JOBS = {"preprocess": jobs.preprocessing, "training": jobs.training}


def main() -> int:
    """Try seeds and say what became of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--seed", type=int, help="This one alone; its files are kept.")
    parser.add_argument("--record", action="store_true", help=f"Add a line to {RESULTS.name}.")
    asked = parser.parse_args()
    if not preloaded():
        begin_again_above_the_shim()
    fast = Path("/dev/shm")
    work = Path(tempfile.mkdtemp(prefix="toolkit-faults-", dir=fast if fast.is_dir() else None))
    begun, tally = time.monotonic(), Tally()
    try:
        job = JOBS[asked.job](work)
        expected, operations = reference(job, work)
        seeds = range(asked.seeds) if asked.seed is None else [asked.seed]
        for seed in seeds:
            try_seed(job, work, seed, expected, operations, tally)
            if sys.stderr.isatty():
                sys.stderr.write(f"\r{seed + 1} of {len(seeds)} seeds, {len(tally.wrong)} wrong")
    finally:
        if asked.seed is None:
            shutil.rmtree(work)
        else:
            sys.stderr.write(f"files: {work}\n")
    told = {
        "what": f"faults/{asked.job}",
        "seeds": len(seeds),
        "operations": operations,
        "tried": sum(n for kind, n in tally.faults.items() if kind != "not reached"),
        "found": len(tally.wrong),
        "lost": sum("lost" in each or "gone" in each for each in tally.wrong),
        "seconds": round(time.monotonic() - begun, 1),
        **{name: dict(sorted(getattr(tally, name).items())) for name in ("faults", "ends", "power")},
    }
    sys.stdout.write(json.dumps(told, indent=2) + "\n")
    sys.stderr.write("".join(f"{each}\n" for each in tally.wrong))
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

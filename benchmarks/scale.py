"""How every step grows with the number of nodules: time, memory, start-up and resume, up to a million.

``python -m benchmarks.scale [--sizes N ...] [--slices 4] [--steps STEP ...] [--repeat 2] [--work FOLDER]
[--out FILE] [--svg FILE]``

Rows are synthetic and files have no pixels (`benchmarks.scale_rows`); what runs is the product. Steps run in
processes of their own (those that need an open store share one), which tell processor time, wall time and the
peak of resident memory. The growth is the slope of log(least processor time) on log(n log n): 1 is n log n,
and `MOST` is the bound. Steps whose work does not depend on n have none. ``--steps`` measures some only.
"""

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scale_rows import NODULES, write_rows
from benchmarks.scale_steps import BARE, RATES, STEPS, TOGETHER
from toolkit.bench.record import Estimate, Figure, append, figure, line

SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000)
SLICES = 4
"""Of each series: enough to tell how steps grow; ``--slices 300 --steps index`` tells what a slice costs."""
MOST = 1.1
"""Largest slope that is called n log n. Repeats on a shared machine differ by up to 20 %: over a hundredfold
n that moves a slope by 0.04, over tenfold by 0.08."""
LEAST_SECONDS = 0.05
"""Sizes at which a step takes less say more of its start than of its growth."""


@dataclass(frozen=True)
class Measured:
    """One run of a step: seconds of wall and processor, peak of memory above what imports take, MiB."""

    step: str
    nodules: int
    wall: float
    cpu: float
    mib: float
    extra: Mapping[str, float]


def measure(steps: Sequence[str], work: Path, nodules: int) -> None:
    """Run steps in a process of their own, which notes what they took in ``runs.jsonl`` of the folder.

    Raises `RuntimeError` with its words where it fails.
    """
    words = [sys.executable, "-m", "benchmarks.scale_steps", ",".join(steps), str(work)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{steps} at {nodules}: {done.stderr[-2000:]}")


def noted(work: Path, nodules: int) -> list[Measured]:
    """Return all runs that a folder of rows has seen."""
    path = work / "runs.jsonl"
    told = map(json.loads, path.read_text().splitlines() if path.exists() else ())
    return [Measured(t["step"], nodules, t["wall"], t["cpu"], t["mib"], t["extra"]) for t in told]


def slope(nodules: Sequence[int], seconds: Sequence[float]) -> tuple[float, float, float]:
    """Return the exponent of seconds in n log n by least squares on logarithms, and its 95 % interval.

    The interval is of the residuals about the line, by Student's t with n - 2 degrees of freedom.
    """
    x = np.log([n * math.log2(n) for n in nodules])
    y = np.log(seconds)
    x = x - x.mean()
    found = float(x @ y / (x @ x))
    if len(y) < 3:
        return found, found, found
    from scipy.stats import t

    rest = y - y.mean() - found * x
    half = float(t.ppf(0.975, len(y) - 2) * math.sqrt(rest @ rest / (len(y) - 2) / (x @ x)))
    return found, found - half, found + half


def grown(runs: Sequence[Measured]) -> Estimate | None:
    """Return the growth of a step in n log n; None where it is nowhere long enough to tell."""
    least: dict[int, float] = {}  # what others do on the machine only adds to a time
    for run in runs:
        least[run.nodules] = min(run.cpu, least.get(run.nodules, math.inf))
    least = {n: cpu for n, cpu in least.items() if cpu >= LEAST_SECONDS}
    if len(least) < 2 or not STEPS[runs[0].step].grows:
        return None
    found, low, high = slope([*least], [*least.values()])
    sizes = f"{len(least)} sizes from {min(least):,} on"
    note = f"slope of log(least processor time) on log(n log n), {sizes}; at most {MOST} is n log n"
    return Estimate(
        f"scale.growth/{runs[0].step}", round(found, 3), round(low, 3), round(high, 3), len(least), note
    )


def figures_of(runs: Sequence[Measured], slices: int = SLICES) -> list[Figure | Estimate]:
    """Return what is recorded of one step: seconds and MiB at each size, and its growth."""
    found: list[Figure | Estimate] = []
    of_slices = "" if slices == SLICES else f" x{slices}"
    for n in sorted({run.nodules for run in runs}):
        here = [run for run in runs if run.nodules == n]
        config = {"nodules": n, "series": n // NODULES, "slices": slices}
        name, what = f"scale/{here[0].step} {n}{of_slices}", STEPS[here[0].step].what
        found.append(figure(name, [r.wall for r in here], "s", what, config=config))
        found.append(figure(f"{name} processor", [r.cpu for r in here], "s", what, config=config))
        found.append(figure(f"{name} memory", [r.mib for r in here], "MiB", BARE, config=config))
        for extra in here[0].extra:
            values = [r.extra[extra] for r in here]
            unit = RATES[extra]
            found.append(figure(f"{name} {extra}", values, unit, what, config=config))
    growth = grown(runs)
    return found if growth is None or of_slices else [*found, growth]


def simulate(
    work: Path, sizes: Sequence[int], repeat: int, chosen: Sequence[str], slices: int = SLICES
) -> dict[str, list[Measured]]:
    """Write rows of every size and measure steps; what a folder has seen already is not repeated."""
    runs: dict[str, list[Measured]] = {step: [] for step in STEPS}
    for n in sizes:
        here = work / f"{n // NODULES}x{slices}"
        if not here.exists():
            write_rows(here, n // NODULES, slices)
        for steps in TOGETHER:
            if not {*steps}.intersection(chosen):
                continue
            seen = sum(run.step == steps[-1] for run in noted(here, n)) // STEPS[steps[-1]].times
            for _ in range(repeat - seen):
                measure(steps, here, n)
        for run in noted(here, n):
            if run.step not in chosen:
                continue
            runs[run.step].append(run)
            told = f"{run.step:<16}{n:>10,} {run.wall:8.2f} s {run.cpu:8.2f} s cpu {run.mib:8.0f} MiB"
            print(told, {k: round(v, 3) for k, v in run.extra.items()}, flush=True)
    return runs


def drawing(runs: Mapping[str, Sequence[Measured]]) -> str:
    """Return the chart of processor time against nodules, as the project's pages draw theirs."""
    from toolkit.report.axes import logarithmic
    from toolkit.report.lines import Curve, Plot, plot

    every = [run for of_step in runs.values() for run in of_step]
    low, high = min(run.nodules for run in every), max(run.nodules for run in every)
    top = max(run.cpu for run in every)
    curves = []
    for step, of_step in ((step, found) for step, found in runs.items() if found):
        sizes = sorted({run.nodules for run in of_step})
        seconds = [max(0.01, min(r.cpu for r in of_step if r.nodules == n)) for n in sizes]
        curves.append(Curve(step, [float(n) for n in sizes], seconds))
    x, y = logarithmic("nodules", low, high), logarithmic("s", 0.01, max(top, 1.0))
    return plot(Plot("Processor time of each step", x, y, curves))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, record; exit code 1 where a step grows faster than n log n."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="nodules")
    parser.add_argument("--slices", type=int, default=SLICES, help="of each series")
    parser.add_argument("--repeat", type=int, default=2, help="processes a step")
    parser.add_argument("--steps", nargs="+", choices=[*STEPS], default=[*STEPS])
    parser.add_argument("--work", type=Path, help="folder for rows and runs; kept, and gone on with")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--svg", type=Path, help="where to draw the growth")
    given = parser.parse_args(argv)
    work = given.work or Path(tempfile.mkdtemp(prefix="scale-"))
    try:
        runs = simulate(work, sorted(given.sizes), given.repeat, given.steps, given.slices)
    finally:
        if given.work is None:
            shutil.rmtree(work)
    figures: list[Any] = [
        f for of_step in runs.values() if of_step for f in figures_of(of_step, given.slices)
    ]
    for found in figures:
        print(line(found))
    if given.svg:
        given.svg.write_text(drawing(runs), encoding="utf-8")
    if given.out:
        append(figures, given.out)
    fast = [f for f in figures if isinstance(f, Estimate) and f.value > MOST]
    for found in fast:
        print(f"FAULT {found.name} is {found.value}, above {MOST}", file=sys.stderr)
    return 1 if fast else 0


if __name__ == "__main__":
    sys.exit(main())

"""Stage ``loader``: batches as training gets them, by the fused loader and, where installed, by DALI."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from itertools import islice
from typing import Literal

import numpy as np

from kernels.augment import Rows
from toolkit.bench.augment import ALLOWED, dtype_of
from toolkit.bench.data import endless, plan_of
from toolkit.bench.gate import check
from toolkit.bench.record import Figure, figure
from toolkit.bench.setting import Bench
from toolkit.bench.stopwatch import Work, in_turns, rates
from toolkit.loading.augment import preset
from toolkit.loading.batch import Batch
from toolkit.loading.open import open_loader
from toolkit.loading.plan import Plan

BATCHES = 4  # of a measurement
Name = Literal["fused", "dali"]


def gate(bench: Bench) -> str:
    """Compare a batch of each loader with the kernel's definition, voxel by voxel."""
    plan, worst = _plan(bench), 0.0
    exact = definition(replace(plan, dtype="float32"))
    for name in loaders():
        with open_loader(plan, name, bench.kind, bench.threads) as loader:
            made = next(iter(loader.epoch(0))).image.float().cpu().numpy()
        worst = max(worst, float(np.abs(made - exact).max()))
    allowed = ALLOWED[plan.dtype]
    return check("loader", f"{' and '.join(loaders())} against the slow path, of the window", worst, allowed)


def definition(plan: Plan) -> np.ndarray:
    """Return the first batch's images as the kernel's slow path makes them, float32 (b, c, d, h, w)."""
    table = plan.table(0, 0)
    rows = Rows(table)
    out = np.empty(rows.shape, np.float32)
    for k, i in enumerate(table.index):
        rows.fill(k, plan.store.image(int(i)), None, out[k], definition=True)
    return out.transpose(0, 4, 1, 2, 3)


def loaders() -> tuple[Name, ...]:
    """Return the loaders that are installed."""
    return ("fused", "dali") if find_spec("nvidia.dali") else ("fused",)


def measure(bench: Bench) -> list[Figure]:
    """Return samples/s of each loader, and of the fused one with fewer threads."""
    sizes, plan = bench.sizes, _plan(bench)
    few = [n for n in (1, 2, 4, 8, 16, 32, 64) if n < bench.threads] if bench.kind == "cpu" else []
    arms: dict[str, tuple[Name, int]] = {name: (name, bench.threads) for name in loaders()}
    arms |= {f"fused, threads={n}": ("fused", n) for n in few}
    with ExitStack() as stack:
        running: dict[str, Iterator[Batch]] = {}
        for name, (kind, threads) in arms.items():
            loader = stack.enter_context(open_loader(plan, kind, bench.kind, threads))
            bench.say(f"loader {name}: {loader.reason}")
            running[name] = endless(loader)
        works = {name: _reader(batches) for name, batches in running.items()}
        taken = in_turns(works, bench.effort, bench.kind)
    note = f"{sizes.patch}^3, batches of {sizes.batch}, default augmentation, {plan.dtype}"
    amount = BATCHES * sizes.batch
    return [
        figure(
            f"loader/{name}",
            rates(seconds, amount),
            "samples/s",
            note,
            config={"loader": arms[name][0], "threads": arms[name][1]},
        )
        for name, seconds in taken.items()
    ]


def _reader(batches: Iterator[Batch]) -> Work:
    return lambda turn: [each.step for each in islice(batches, BATCHES)]


def _plan(bench: Bench) -> Plan:
    """Return a plan that both loaders can carry out."""
    sizes = bench.sizes
    return plan_of(bench.store, preset("default"), sizes.patch, sizes.batch, dtype_of(bench))

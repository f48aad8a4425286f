"""Stage ``preprocess``: cases a second of the worker processes of ``toolkit preprocess``, by their number."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from toolkit.archive.case import Finding
from toolkit.bench.gate import check
from toolkit.bench.read import cases
from toolkit.bench.record import Figure, figure
from toolkit.bench.setting import Bench
from toolkit.bench.stopwatch import Work, in_turns, rates
from toolkit.preprocess.extract import Extracted, Task, extract_case
from toolkit.preprocess.plan import Settings
from toolkit.preprocess.pool import Lost, Pool, why

NAME = "preprocess/cases"
TASKS = 4  # of each worker


def tasks(bench: Bench) -> list[Task]:
    """Return a task for each scan on disk, its nodules known, as a second run has them."""
    sizes, found = bench.sizes, []
    settings = Settings(spacing_mm=1.0, size=sizes.cube, margin=sizes.margin)
    for case, patient in zip(cases(bench), bench.scans.patients, strict=True):
        findings = tuple(
            Finding(str(k), n.center_lps_mm, n.diameter_mm, "volume", n.volume_mm3, box=n.box, mask=n.mask)
            for k, n in enumerate(patient.nodules)
        )
        found.append(Task(case, settings, findings, on_device=bench.kind == "cuda"))
    return found


def results(pool: Pool[Task, Extracted], given: Sequence[Task]) -> Iterator[Extracted]:
    """Yield what workers make of tasks, in any order; raises `RuntimeError` where one cannot."""
    for _, result in pool.map(extract_case, given):
        if isinstance(result, Lost):
            raise RuntimeError(why(result))
        yield result


def gate(bench: Bench) -> str:
    """See that a worker's crops are those of this process, bit by bit."""
    given = tasks(bench)[:1]
    here = extract_case(given[0])
    with Pool[Task, Extracted](1) as pool:
        (there,) = results(pool, given)
    apart = max(_apart(a, b) for a, b in zip(_arrays(here), _arrays(there), strict=True))
    return check("preprocess", "crops of a worker and of this process", apart, 0.0)


def _arrays(made: Extracted) -> list[Any]:
    if made.problem is not None:
        raise RuntimeError(str(made.problem))
    return [made.images, made.masks] if made.bricks is None else [made.bricks.hu, made.bricks.mask]


def _apart(one: Any, other: Any) -> float:
    return float(np.abs(one.astype(np.int32) - other).max())


def numbers(bench: Bench) -> list[int]:
    """Return how many workers are tried: one for each processor, as is usual, half and a quarter of it."""
    return sorted({bench.threads, max(1, bench.threads // 2), max(1, bench.threads // 4)}, reverse=True)


def measure(bench: Bench) -> list[Figure]:
    """Return cases/s of each number of workers, which are started before."""
    given = tasks(bench)
    given = given * -(-TASKS * bench.threads // len(given))
    with ExitStack() as stack:
        pools = {n: stack.enter_context(Pool[Task, Extracted](n)) for n in numbers(bench)}

        def run(pool: Pool[Task, Extracted]) -> Work:
            return lambda turn: [None for _ in results(pool, given)]

        taken = in_turns({str(n): run(pool) for n, pool in pools.items()}, bench.effort)
    note = f"{bench.sizes.rows} x {bench.sizes.rows} pixels, nodules known, warm page cache, no store written"
    note += "; crops are made on the GPU, apart" if bench.kind == "cuda" else ""
    return [
        figure(_name(bench, n), rates(taken[str(n)], len(given)), "cases/s", note, config={"workers": n})
        for n in pools
    ]


def _name(bench: Bench, number: int) -> str:
    return NAME if number == bench.threads else f"{NAME}, workers={number}"

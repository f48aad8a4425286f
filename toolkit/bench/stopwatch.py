"""Time: works in turn, warm, on inputs that the caller rotates; events on a GPU, the clock elsewhere."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.bench.machine import Kind

Work = Callable[[int], object]
"""Does one piece of work; is given the number of the turn, so that it can take another input each time."""
MOST_TURNS = 1000


@dataclass(frozen=True)
class Effort:
    """How long is measured: every work `rounds` times, and longer until all took `least_s` seconds a work."""

    rounds: int
    least_s: float
    warm: int = 1


def in_turns(works: Mapping[str, Work], effort: Effort, kind: Kind = "cpu") -> dict[str, list[float]]:
    """Return seconds of every work, by name, in the order taken: A B C A B C, so that drift hits all alike.

    Each is called `effort.warm` times before; what compiles or fills caches does so there. On a GPU events
    on torch's current stream are the clock, and nothing else is under way at either end; CuPy's and Numba's
    default stream is the same one.
    """
    lap = _lap_cuda if kind == "cuda" else _lap
    for name in works:
        for turn in range(effort.warm):
            lap(works[name], turn)
    taken: dict[str, list[float]] = {name: [] for name in works}
    begun, turn = time.perf_counter(), 0
    while turn < effort.rounds or (
        turn < MOST_TURNS and time.perf_counter() - begun < effort.least_s * len(works)
    ):
        for name, work in works.items():
            taken[name].append(lap(work, turn))
        turn += 1
    return taken


def first_call(work: Work, kind: Kind = "cpu") -> float:
    """Return seconds of the first call, which is where compilers work."""
    return (_lap_cuda if kind == "cuda" else _lap)(work, 0)


def rates(seconds: list[float], amount: float) -> list[float]:
    """Return amounts a second."""
    return [amount / each for each in seconds]


def _lap(work: Work, turn: int) -> float:
    begun = time.perf_counter()
    work(turn)
    return time.perf_counter() - begun


def _lap_cuda(work: Work, turn: int) -> float:
    import torch

    make: Any = torch.cuda.Event  # untyped
    begin, end = make(enable_timing=True), make(enable_timing=True)
    torch.cuda.synchronize()
    begin.record()
    work(turn)
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / 1e3

"""Stages in order: every gate first, then the figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from toolkit.bench import augment, extract, loader, network, pipeline, read, roofline, train, workers
from toolkit.bench.advice import Advice, advise
from toolkit.bench.machine import context, peak_mib, peak_reset
from toolkit.bench.record import Figure, figure
from toolkit.bench.setting import Bench

FORMAT = 1


@dataclass(frozen=True)
class Stage:
    """A check that a stage gives right numbers, and its figures."""

    gate: Callable[[Bench], str]
    measure: Callable[[Bench], list[Figure]]


STAGES: Mapping[str, Stage] = {
    name: Stage(room.gate, room.measure)
    for name, room in (
        ("read", read),
        ("extract", extract),
        ("preprocess", workers),
        ("augment", augment),
        ("loader", loader),
        ("model", network),
        ("train", train),
        ("pipeline", pipeline),
    )
}


@dataclass(frozen=True)
class Report:
    """What a run found: gates in words, figures with the ceilings first, recommendations."""

    gates: tuple[str, ...]
    figures: tuple[Figure, ...]
    advice: tuple[Advice, ...]

    def to_json(self, bench: Bench) -> dict[str, Any]:
        """Return plain JSON as ``schema.json`` describes it."""
        advice = [asdict(each) | {"flag": each.flag} for each in self.advice]
        return {
            "format": FORMAT,
            "context": context(bench.kind),
            "gates": list(self.gates),
            "figures": [asdict(each) | {"samples": list(each.samples)} for each in self.figures],
            "advice": advice,
        }


def run(names: Sequence[str], bench: Bench) -> Report:
    """Check and measure stages.

    Raises `ToolkitError` E-BENCH-001, exit code 1, before any figure, where one gives wrong numbers.
    """
    import torch

    torch.backends.cudnn.benchmark = True  # as training has it; only GPUs see it
    if bench.compiled or bench.kind == "cuda":
        network.compile_all()
    gates = []
    for name in names:
        gates.append(STAGES[name].gate(bench))
        bench.say(gates[-1])
    found: list[Figure] = []
    for name in names:
        bench.say(f"measuring {name}")
        found += _with_memory(name, bench)
    ceilings = [*bench.ceilings.values(), *roofline.transfers(bench)]
    unique = {each.name: each for each in (*ceilings, *found)}
    return Report(tuple(gates), tuple(unique.values()), tuple(advise(found)))


def _with_memory(name: str, bench: Bench) -> list[Figure]:
    """Return a stage's figures, and its peaks of memory."""
    since = "of this process in the stage" if peak_reset() else "of this process since it started"
    if bench.kind == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    found = STAGES[name].measure(bench)
    found.append(figure(f"{name}/peak memory", [peak_mib()], "MiB", f"resident, {since}"))
    if bench.kind == "cuda":
        held = torch.cuda.max_memory_allocated() / 2**20
        found.append(figure(f"{name}/peak GPU memory", [held], "MiB", "allocated by torch"))
    return found

"""The training step from a plain MONAI script to ours, one technique after another.

``python -m benchmarks.waterfall [--device auto] [--steps NAME ...] [--compiled] [--out FILE] [--toy]``

Every technique keeps what those before it brought, and ``--steps compile`` measures that one beside the plain
script. Each state is measured twice, on a resident batch and fed by its loader, and all take turns in one
run; the difference is what the step waits for data. The gate comes first: loss and gradients of every state
against MONAI's network in float64. What a device has no use for is left out and named; what makes it slower
is shown like the rest. Without ``--steps`` figures go to ``benchmarks/results`` and `benchmarks.readme` draws
the chart of them.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import RESULTS
from benchmarks.waterfall_step import Crops, Fed, Recipe, Stepper, ahead, feed, make_network
from toolkit.bench import loader as loader_stage
from toolkit.bench.data import plan_of
from toolkit.bench.gate import check
from toolkit.bench.network import compile_all, possible
from toolkit.bench.record import Figure, append, default_path, figure, line
from toolkit.bench.setting import TOY, Bench, Sizes
from toolkit.bench.stopwatch import Effort, Work, in_turns, rates
from toolkit.bench.train import CHECKED, CHECKED_MODEL, CHECKED_OPTIONS, CHECKED_PATCH, UNCLIPPED, allowed
from toolkit.device import resolve
from toolkit.errors import ToolkitError
from toolkit.loading.augment import preset
from toolkit.loading.plan import Plan
from toolkit.memory import cores

NAME, STEPS, WARM = "waterfall", 4, 2
WINDOW = 1e-5  # of the window: float32, without augmentation


@dataclass(frozen=True)
class Technique:
    """What one state changes of the one before; `ours` where ``toolkit train`` does it by itself on a GPU."""

    name: str
    title: str
    changes: Mapping[str, Any]
    ours: bool = True


TECHNIQUES = (
    Technique("plain", "plain MONAI script: float32, eager, Adam", {}, ours=False),
    Technique("network", "our network: transitions pool first", {"network": "toolkit"}),
    Technique("channels_last", "channels last in memory", {"channels_last": True}),
    Technique("autotune", "cudnn.benchmark", {"autotune": True}),
    Technique("amp", "bfloat16 autocast", {"amp": "bfloat16"}),
    Technique("fused", "AdamW in one kernel", {"fused": True}),
    Technique("compile", "torch.compile", {"compile": "default"}),
    Technique(
        "max-autotune", "torch.compile, max-autotune", {"compile": "max-autotune-no-cudagraphs"}, ours=False
    ),
    Technique("loader", "fused loader, not MONAI's transforms", {"loader": "fused"}),
    Technique("guards", "clipped gradients, averaged weights", {"guards": True}),
    Technique("graph", "the whole step as one CUDA graph", {"graph": True}, ours=False),
    Technique("fast", "fast twin of the network", {"network": "fast"}),  # which impl = "auto" tries
)
NAMES = tuple(each.name for each in TECHNIQUES)


def left_out(technique: Technique, bench: Bench) -> str:
    """Return why a device has no use for a technique; empty where it has."""
    on_gpu = bench.kind == "cuda"
    if technique.name in ("autotune", "graph") and not on_gpu:
        return "there is no GPU"
    if technique.name == "amp" and bench.decision.amp != "bfloat16":
        return f"toolkit train takes {bench.decision.amp} here"
    if technique.name in ("compile", "max-autotune") and not bench.compiled:
        return "on a CPU it compiles for minutes; --compiled tries it"
    return ""


def states(
    bench: Bench, asked: Iterable[str] = NAMES, broken: Mapping[str, str] | None = None
) -> tuple[dict[str, Recipe], dict[str, str]]:
    """Return the recipes that are measured by technique, the plain one first, and why others are not.

    `broken` are techniques that do not run here, each with what was said.
    """
    wanted, recipe = {"plain", *asked}, Recipe()
    found, reasons = {}, {}
    for each in TECHNIQUES:
        reason = (broken or {}).get(each.name) or left_out(each, bench)
        if reason:
            reasons[each.name] = reason
            continue
        recipe = replace(recipe, **each.changes)
        if each.name in wanted:
            found[each.name] = recipe
    return found, reasons


class StateError(Exception):
    """A state that this device, or a compiler, cannot run: its technique, and the first line of why."""


def runnable(bench: Bench, asked: Iterable[str]) -> tuple[dict[str, Recipe], dict[str, str], list[str]]:
    """Return what `states` does, without techniques that do not run here, and the gates in words.

    Raises `ToolkitError` E-BENCH-001 where one gives wrong numbers.
    """
    asked, broken = list(asked), dict[str, str]()
    if bench.compiled:
        compile_all()
    while True:
        recipes, reasons = states(bench, asked, broken)
        try:
            return recipes, reasons, gate(bench, recipes)
        except StateError as error:
            name, why = error.args
            if name == "plain" or name in broken:
                raise
            broken[name] = why


def gate(bench: Bench, recipes: Mapping[str, Recipe]) -> list[str]:
    """Compare every state with float64, and both loaders with the kernel's definition, before any time."""
    told = [_gradients(bench, name, each) for name, each in recipes.items()]
    told.append(loader_stage.gate(bench))
    plan = plan_of(bench.store, preset("none"), bench.sizes.patch, bench.sizes.batch, "float32")
    exact = loader_stage.definition(plan)
    crops = Crops(str(bench.folder / "store"), plan.size, augmented=False)
    apart = max(float(np.abs(crops[k][0].numpy() - exact[k]).max()) for k in range(2))
    return [*told, check(NAME, "MONAI's patches without augmentation, of the window", apart, WINDOW)]


def _gradients(bench: Bench, name: str, recipe: Recipe) -> str:
    """Compare loss and gradients of one step with those of MONAI's network in float64 on the CPU."""
    device = torch.device(bench.kind)
    ours = Stepper(recipe, CHECKED_MODEL, device, clip_norm=UNCLIPPED, options=CHECKED_OPTIONS)
    exact = make_network("monai", CHECKED_MODEL, CHECKED_OPTIONS)
    exact.load_state_dict(ours.network.state_dict())
    exact = exact.double().train()
    torch.manual_seed(0)
    image, target = torch.rand(CHECKED, 1, *[CHECKED_PATCH] * 3), (torch.arange(CHECKED) % 2).float()
    try:
        ours.step(image.to(device), target.to(device))
    except RuntimeError as error:
        told = (str(error).splitlines() or [""])[0]
        raise StateError(name, f"does not run here: {type(error).__name__}: {told:.80}") from error
    loss = torch.nn.functional.binary_cross_entropy_with_logits(exact(image.double())[:, 0], target.double())
    loss.backward()
    names = [key for key, _ in ours.network.named_parameters()]
    found, right = (
        torch.cat([p[key].grad.double().cpu().flatten() for key in names])
        for p in (dict(ours.network.named_parameters()), dict(exact.named_parameters()))
    )
    worst = max(
        float((found - right).norm() / right.norm()), abs(float(ours.loss) / float(loss.detach()) - 1)
    )
    what = f"{name}, {recipe.amp}: loss and gradients against float64"
    return check(NAME, what, worst, allowed(recipe.amp, bench.kind))


def measure(
    bench: Bench, recipes: Mapping[str, Recipe], reasons: Mapping[str, str], workers: int
) -> list[Figure]:
    """Return samples/s of every state, fed and resident, what each technique brings, and compile times."""
    sizes, device = bench.sizes, torch.device(bench.kind)
    resident = (torch.rand(sizes.batch, 1, *[sizes.patch] * 3, device=device),)
    resident += ((torch.arange(sizes.batch, device=device) % 2).float(),)
    with ExitStack() as stack:
        steppers = {name: Stepper(each, sizes.model, device) for name, each in recipes.items()}
        feeds: dict[tuple[str, str], Fed] = {}
        works: dict[str, Work] = {}
        for name in recipes:
            works[f"{name}, resident"] = _repeat(steppers[name], resident)
        works, first = possible(works, bench)
        works = _with_feeds(works, recipes, steppers, feeds, (bench, workers, stack))
        taken = in_turns(works, bench.effort, bench.kind)
    return _figures(bench, recipes, reasons, workers, taken, first)


def _with_feeds(
    works: Mapping[str, Work],
    recipes: Mapping[str, Recipe],
    steppers: Mapping[str, Stepper],
    feeds: dict[tuple[str, str], Fed],
    about: tuple[Bench, int, ExitStack],
) -> dict[str, Work]:
    """Return the works with the fed one behind each resident one; recipes share loaders where they can.

    Between them the loader's stock is used up, untimed: it was made while others were measured.
    """
    bench, workers, stack = about
    found: dict[str, Work] = {}
    for key, work in works.items():
        name = key.removesuffix(", resident")
        recipe = recipes[name]
        kind = (recipe.loader, recipe.amp if recipe.loader == "fused" else "float32")
        if kind not in feeds:
            feeds[kind] = feed(recipe, bench, _plan(bench, kind[1]), workers, stack)
        found[key] = work
        found[f"{name}, settling"] = _consume(steppers[name], feeds[kind], ahead(recipe, workers))
        found[name] = _consume(steppers[name], feeds[kind], STEPS)
    return found


def _plan(bench: Bench, dtype: str) -> Plan:
    return plan_of(bench.store, preset("default"), bench.sizes.patch, bench.sizes.batch, dtype)


def _repeat(stepper: Stepper, batch: Sequence[torch.Tensor]) -> Work:
    return lambda turn: stepper.step(*batch)


def _consume(stepper: Stepper, batches: Fed, steps: int) -> Work:
    def work(turn: int) -> None:
        for image, target in islice(batches, steps):
            stepper.step(image, target)

    return work


def _figures(
    bench: Bench,
    recipes: Mapping[str, Recipe],
    reasons: Mapping[str, str],
    workers: int,
    taken: Mapping[str, list[float]],
    first: Mapping[str, float],
) -> list[Figure]:
    sizes, before, found = bench.sizes, "", []
    tf32 = bench.kind == "cuda" and torch.backends.cudnn.allow_tf32
    note = f"{sizes.model}, {sizes.patch}^3, batch {sizes.batch}, {workers} workers of the DataLoader"
    note += ", TF32 convolutions" if tf32 else ""
    titles = {each.name: each for each in TECHNIQUES}
    for name in (each for each in recipes if each in taken):
        ours = titles[name].ours and (name != "fast" or bench.kind == "cuda")
        about = {"title": titles[name].title, "ours": ours, "before": before, "kind": bench.kind}
        config = asdict(recipes[name]) | about | ({} if before else {"left_out": reasons})
        fed, alone = taken[name], taken[f"{name}, resident"]
        found.append(
            figure(f"{NAME}/{name}", rates(fed, STEPS * sizes.batch), "samples/s", note, config=config)
        )
        found.append(
            figure(f"{NAME}/{name}, resident", rates(alone, sizes.batch), "samples/s", note, config=config)
        )
        if before:
            ratio = [a / b for a, b in zip(taken[before], fed, strict=True)]
            found.append(figure(f"{NAME}.ratio/{name} / {before}", ratio, "x", f"fed; {note}"))
        if recipes[name].compile != "off" and name in ("compile", "max-autotune"):
            spent = max(0.0, first[f"{name}, resident"] - float(np.median(alone)))
            found.append(figure(f"{NAME}/compile time, {name}", [spent], "s", "in no rate"))
        before = name
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Run the gate, then the measurements."""
    args = _parser().parse_args(words)
    kind = resolve(args.device)
    batch = args.batch or (8 if kind == "cpu" else 32)
    sizes = Sizes(model="densenet121", patch=64, batch=batch, crops=8 * batch, exceed_cache=False)
    sizes = replace(TOY, patch=16, model="densenet-small") if args.toy else sizes
    effort = Effort(args.turns or (7 if kind == "cpu" else 20), 0.0, warm=WARM)
    workers = cores() if args.workers is None else args.workers
    with tempfile.TemporaryDirectory() as folder:
        compiled = kind == "cuda" or args.compiled
        bench = Bench(kind, Path(folder), sizes, effort, compiled, say=lambda text: print(text, flush=True))
        try:
            recipes, reasons, told = runnable(bench, args.steps or NAMES)
        except ToolkitError as error:
            print(f"gate is red, no figures: {error}", file=sys.stderr)
            return 1
        told += [f"left out {name}: {reason}" for name, reason in reasons.items()]
        print("\n".join(told), flush=True)
        figures = measure(bench, recipes, reasons, workers)
    for found in figures:
        print(line(found))
    if args.out or not (args.steps or args.toy):
        append(figures, args.out or default_path(RESULTS, kind), kind)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--steps", nargs="+", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--batch", type=int, help="8 on a CPU, 32 on a GPU")
    parser.add_argument("--turns", type=int, help="7 on a CPU, 20 on a GPU")
    parser.add_argument("--workers", type=int, help="of the DataLoader; as many as cores")
    parser.add_argument("--compiled", action="store_true", help="compile on a CPU, too")
    parser.add_argument("--toy", action="store_true", help="a small network and small patches")
    parser.add_argument("--out", type=Path)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())

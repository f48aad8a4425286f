"""Stage ``pipeline``: the loader feeding the step, beside the same step on a resident batch: starvation."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import islice
from typing import TYPE_CHECKING

from toolkit.bench.data import endless, plan_of
from toolkit.bench.gate import check
from toolkit.bench.record import Figure, figure
from toolkit.bench.setting import Bench
from toolkit.bench.stopwatch import Work, in_turns, rates
from toolkit.bench.train import CHECKED_MODEL, Arm, base_arm, batch_of, learner
from toolkit.loading.augment import preset
from toolkit.loading.batch import Loader, on_device
from toolkit.loading.open import open_loader
from toolkit.loading.plan import Plan
from toolkit.training.feed import of_epoch

if TYPE_CHECKING:
    import torch

    Fed = Iterator[tuple[torch.Tensor, torch.Tensor]]

FED, SETTLING = "pipeline/fed of resident", "settling"
STEPS = 2  # of a measurement
AHEAD = 3  # batches that a loader may make while others are measured: the next is asked for, and two more
CHECKED = 6  # steps; more than a loader has buffers
ALLOWED = {"cpu": 1e-6, "cuda": 1e-2}
"""Of a loss; sums in any order on a GPU. A step that saw another batch would be off by far more."""


def gate(bench: Bench) -> str:
    """See that steps that a loader feeds have the losses of steps on copies of the same batches."""
    arm = replace(base_arm(bench), compile="off")
    plan = _plan(bench, arm)
    with open_loader(plan, "auto", bench.kind, bench.threads) as loader:
        first = islice(fed(bench, plan, loader), CHECKED)
        kept = [(image.clone(), target.clone()) for image, target in first]
    with open_loader(plan, "auto", bench.kind, bench.threads) as loader:
        given = _losses(bench, arm, fed(bench, plan, loader))
    held = _losses(bench, arm, iter(kept))
    apart = max(abs(one - other) for one, other in zip(given, held, strict=True))
    return check("pipeline", "losses of steps that are fed, and on copies", apart, ALLOWED[bench.kind])


def _losses(bench: Bench, arm: Arm, batches: "Fed") -> list[float]:
    ours, found = learner(bench, CHECKED_MODEL, arm), []
    for image, target in islice(batches, CHECKED):
        ours.step(0, 0, image, target)
        found.append(ours.losses.clone())
    return [float(each) for each in found]


def measure(bench: Bench) -> list[Figure]:
    """Return samples/s of both, in turns, and what share of the resident rate the loader keeps up."""
    sizes, arm = bench.sizes, base_arm(bench)
    ours, plan = learner(bench, sizes.model, arm), _plan(bench, arm)
    image, target = batch_of(bench, arm, sizes.model_patch)
    with open_loader(plan, "auto", bench.kind, bench.threads) as loader:
        batches = fed(bench, plan, loader)

        def resident(turn: int) -> None:
            for _ in range(STEPS):
                ours.step(0, 0, image, target)

        def feeding(steps: int) -> Work:
            def work(turn: int) -> None:
                for here, there in islice(batches, steps):
                    ours.step(0, 0, here, there)

            return work

        works: dict[str, Work] = {"resident": resident, SETTLING: feeding(AHEAD), "fed": feeding(STEPS)}
        taken = in_turns(works, bench.effort, bench.kind)
        del taken[SETTLING]  # fed by what was made in advance, which tells nothing
    config = asdict(arm) | {"loader": loader.reason, "loader_threads": bench.threads}
    note = f"{sizes.model}, {sizes.model_patch}^3, default augmentation"
    found = [
        figure(f"pipeline/{name}", rates(seconds, STEPS * arm.batch), "samples/s", note, config=config)
        for name, seconds in taken.items()
    ]
    kept = [100 * a / b for a, b in zip(taken["resident"], taken["fed"], strict=True)]
    return [*found, figure(FED, kept, "%", f"100 % is a step that never waits; {note}", config=config)]


def _plan(bench: Bench, arm: Arm) -> Plan:
    return plan_of(bench.store, preset("default"), bench.sizes.model_patch, arm.batch, arm.amp)


def fed(bench: Bench, plan: Plan, loader: Loader) -> "Fed":
    """Yield images and targets on the device, as training has them, for ever."""
    import torch

    device = torch.device(bench.kind)
    targets = of_epoch(plan.sampler, 0, plan.labels(), device)  # type: ignore[arg-type]
    for batch, image in on_device(endless(loader), device):
        yield image, targets[batch.step]

"""Stage ``train``: the step of ``toolkit train`` on a resident batch, and what each setting does to it.

Clipping, averaged weights and the optimiser are part of it; compile time stands apart.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.bench import roofline
from toolkit.bench.gate import check
from toolkit.bench.machine import Kind
from toolkit.bench.network import on, possible
from toolkit.bench.record import Figure, figure
from toolkit.bench.setting import Bench
from toolkit.bench.stopwatch import Work, in_turns, rates
from toolkit.bench.work import gflop
from toolkit.models.registry import build
from toolkit.training.balance import Balancing
from toolkit.training.config import from_table
from toolkit.training.learner import Learner
from toolkit.training.precision import Amp, Decision, Impl, Mode

if TYPE_CHECKING:
    import torch

STEP, COMPILING = "train/step", "train/compile time"
CHECKED_MODEL, CHECKED_PATCH, CHECKED = "densenet-small", 32, 8
CHECKED_OPTIONS: Mapping[str, Any] = {"blocks": [1, 1]}
CHECKED_RELUS, ROUNDINGS = 7, 4
FLOAT32 = 5e-3
"""Of the norm of all gradients in float32, where so few ReLUs flip that one of a small map is most of it."""
UNCLIPPED = 1e9  # not 0: a step that clips leaves gradients behind from which float16's scale is gone


@dataclass(frozen=True)
class Arm:
    """Settings of a step; `threads` are torch's on the host."""

    batch: int
    amp: Amp
    compile: Mode
    channels_last: bool
    threads: int
    impl: Impl = "plain"


def learner(
    bench: Bench,
    model: str,
    arm: Arm,
    *,
    clip_norm: float = 1.0,
    options: Mapping[str, Any] | None = None,
) -> Learner:
    """Return what ``toolkit train`` would learn with."""
    import torch

    torch.manual_seed(0)
    table: dict[str, Any] = {
        "model": {"name": model, "options": dict(options or {})},
        "optimizer": {"clip_norm": clip_norm},
        "compute": {"channels_last": arm.channels_last},
    }
    decision = Decision(arm.amp, arm.compile, "", arm.impl)
    balance, device = Balancing("none", 0.5, 0.5), torch.device(bench.kind)
    # an epoch of one step: every step writes the same place of the losses
    network = build(model, 1, options, fast=arm.impl == "fast")
    return Learner(network, from_table(table), balance, decision, device, steps=1)


def batch_of(bench: Bench, arm: Arm, patch: int) -> "tuple[torch.Tensor, torch.Tensor]":
    """Return a resident batch of noise in the number type of its step, and targets of both classes."""
    import torch

    torch.manual_seed(0)
    image = on(bench, torch.rand(arm.batch, 1, *[patch] * 3), channels_last=arm.channels_last)
    target = (torch.arange(arm.batch) % 2).float().to(bench.kind)
    return image.to(getattr(torch, arm.amp)), target


def base_arm(bench: Bench) -> Arm:
    """Return what ``toolkit train`` takes here by itself, at the usual batch."""
    import torch

    decision = bench.decision
    return Arm(bench.sizes.batch, decision.amp, decision.compile, True, torch.get_num_threads())


def gate(bench: Bench) -> str:
    """Compare gradients of a step, in each number type that is tried, with those of float64 on the CPU."""
    told = [_gate(bench, amp) for amp in amps(bench)]
    return "; ".join([told[0], *(each.removeprefix("train: ") for each in told[1:])])


def _gate(bench: Bench, amp: Amp) -> str:
    arm = replace(base_arm(bench), batch=CHECKED, compile="off", amp=amp)
    apart = max(_apart(bench, arm), _apart(bench, replace(arm, impl="fast")))
    what = f"{amp} gradients, plain and fast, of their norm, against float64"
    return check("train", what, apart, allowed(amp, bench.kind))


def _apart(bench: Bench, arm: Arm) -> float:
    import torch
    from torch.nn import functional

    image, target = batch_of(bench, arm, CHECKED_PATCH)
    ours = learner(bench, CHECKED_MODEL, arm, clip_norm=UNCLIPPED, options=CHECKED_OPTIONS)
    exact = build(CHECKED_MODEL, 1, CHECKED_OPTIONS)
    exact.load_state_dict(ours.model.state_dict())
    exact = exact.double().train()
    ours.step(0, 0, image, target)
    logit = exact(image.double().cpu().contiguous(), None)
    functional.binary_cross_entropy_with_logits(logit, target.double().cpu()).backward()  # type: ignore[no-untyped-call]
    found, true = (
        torch.cat([p.grad.double().cpu().flatten() for p in model.parameters() if p.grad is not None])
        for model in (ours.model, exact)
    )
    return float((found - true).norm() / true.norm())


def allowed(amp: Amp, kind: Kind) -> float:
    """Return how far the gradients of the checked network may be from exact ones, of their norm.

    What rounding does to a gradient is flip ReLUs. Batch norm makes their inputs normal, so a relative error
    of d flips one in ``pi / d``; a flip takes or adds a whole component, and half of all are there, so one
    layer is off by ``sqrt(2 d / pi)``, and l layers, whose flips are independent, by the root of the sum of
    squares. A type of b bits rounds by ``1.5 / (sqrt(12) 2^b)`` (root mean square), four times a layer
    (map, weights, convolution, norm), which adds up to ``d = 2 sqrt(l)`` of it behind l layers. Twice that
    is allowed, 0.34 in bfloat16: 16 networks of 4 to 24 ReLUs were off by 0.5 to 1.2 times the estimate.
    Convolutions of a GPU may keep ten bits of float32, as float16 does.
    """
    if amp == "float32" and kind == "cpu":
        return FLOAT32
    bits = 8 if amp == "bfloat16" else 11
    rounding = 1.5 / (math.sqrt(12) * 2**bits)
    errors = (rounding * math.sqrt(ROUNDINGS * layer) for layer in range(1, CHECKED_RELUS + 1))
    return 2 * math.sqrt(2 / math.pi * sum(errors))


def arms(bench: Bench) -> dict[str, Arm]:
    """Return what is tried: the base, and whatever differs from it in one setting, by name."""
    base = base_arm(bench)
    found = {"": base}
    for batch in bench.sizes.batches:
        found[f", batch={batch}"] = replace(base, batch=batch)
    found[", channels_last=false"] = replace(base, channels_last=False)
    found[", impl=fast"] = replace(base, impl="fast")
    for amp in amps(bench):
        if amp != base.amp:
            found[f", amp={amp}"] = replace(base, amp=amp)
    if bench.compiled or bench.kind == "cuda":
        for mode in bench.sizes.modes:
            if mode != base.compile:
                found[f", compile={mode}"] = replace(base, compile=mode)
    if bench.kind == "cpu" and base.threads > 1:
        for threads in {1, base.threads // 2}:
            found[f", threads={threads}"] = replace(base, threads=threads)
    return found


def amps(bench: Bench) -> list[Amp]:
    """Return the number types that this device multiplies and gets gradients right in."""
    base: Amp = bench.decision.amp
    if bench.kind == "cuda":
        return list(dict.fromkeys([base, "float16", "float32"]))
    return list(dict.fromkeys([base, "float32"]))


def measure(bench: Bench) -> list[Figure]:
    """Return samples/s of every arm, in turns, and seconds that compilers took."""
    import torch

    tried, before = arms(bench), torch.get_num_threads()
    learners: dict[Arm, Learner] = {}
    works: dict[str, Work] = {}
    for name, arm in tried.items():
        key = replace(arm, batch=0, threads=0)
        if key not in learners:
            learners[key] = learner(bench, bench.sizes.model, arm)
        works[name] = _step(bench, learners[key], arm)
    try:
        able, first = possible(works, bench)
        taken = in_turns(able, bench.effort, bench.kind)
    finally:
        torch.set_num_threads(before)
    return [*_figures(bench, tried, taken), *_compile_times(tried, taken, first)]


def _step(bench: Bench, learner: Learner, arm: Arm) -> Work:
    import torch

    image, target = batch_of(bench, arm, bench.sizes.model_patch)

    def work(turn: int) -> None:
        if torch.get_num_threads() != arm.threads:
            torch.set_num_threads(arm.threads)
        learner.step(0, 0, image, target)

    return work


def _figures(bench: Bench, tried: dict[str, Arm], taken: dict[str, list[float]]) -> list[Figure]:
    sizes = bench.sizes
    work = gflop(sizes.model, sizes.model_patch, backward=True) / 1e3
    note = f"{sizes.model}, {sizes.model_patch}^3, resident batch"
    found = []
    for name, seconds in taken.items():
        arm = tried[name]
        each, ceiling = rates(seconds, arm.batch), roofline.matrix(bench, arm.amp)
        found.append(
            figure(f"{STEP}{name}", each, "samples/s", note, of=ceiling, in_its_unit=work, config=asdict(arm))
        )
    return found


def _compile_times(
    tried: dict[str, Arm], taken: dict[str, list[float]], first: dict[str, float]
) -> list[Figure]:
    """Return the first call of what is compiled, less a step."""
    note = "first call less a step; not part of any rate"
    found = []
    for name, seconds in taken.items():
        if tried[name].compile != "off":
            spent = max(0.0, first[name] - float(np.median(seconds)))
            found.append(figure(f"{COMPILING}{name}", [spent], "s", note, config=asdict(tried[name])))
    return found

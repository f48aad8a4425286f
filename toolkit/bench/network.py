"""Stage ``model``: the network alone, forward, and forward with gradients, by batch."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from toolkit.bench import roofline
from toolkit.bench.gate import check
from toolkit.bench.record import Figure, figure
from toolkit.bench.setting import Bench
from toolkit.bench.stopwatch import Work, first_call, in_turns, rates
from toolkit.bench.work import gflop
from toolkit.models.registry import build

if TYPE_CHECKING:
    import torch

ALLOWED = {"float32": 1e-4, "bfloat16": 0.1, "float16": 0.02}
"""Of the largest logit; float32 sums of a hundred layers, and what the short types round in each of them."""
TF32 = 0.02
"""The same for float32 on a GPU, whose convolutions keep ten bits where cuDNN is allowed to."""
CHECKED = 2
STATES = 64


def gate(bench: Bench) -> str:
    """Compare logits of the network as training has it with those of float64 on the CPU."""
    import copy

    import torch

    torch.manual_seed(0)
    plain = build(bench.sizes.model, 1).eval()
    image = torch.rand(CHECKED, 1, *[bench.sizes.model_patch] * 3)
    amp = bench.decision.amp
    made = copy.deepcopy(plain).to(bench.kind).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    with torch.inference_mode(), autocast(bench, amp):
        found = made(on(bench, image), None).double().cpu()
    with torch.inference_mode():
        exact = plain.double()(image.double(), None)
    apart = float((found - exact).abs().max() / exact.abs().max())
    allowed = TF32 if bench.kind == "cuda" and amp == "float32" else ALLOWED[amp]
    return check("model", f"{amp} logits, of the largest, against float64", apart, allowed)


def autocast(bench: Bench, amp: str) -> "torch.autocast":
    """Return the context in which a number type is used."""
    import torch

    return torch.autocast(bench.kind, getattr(torch, amp), enabled=amp != "float32")


def on(bench: Bench, image: "torch.Tensor", *, channels_last: bool = True) -> "torch.Tensor":
    """Return a batch on the device, in the layout that loaders give it, or contiguous."""
    import torch

    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    return image.to(bench.kind).contiguous(memory_format=layout)


def measure(bench: Bench) -> list[Figure]:
    """Return samples/s by batch, and the share of the matrix rate."""
    import torch

    sizes, amp = bench.sizes, bench.decision.amp
    torch.manual_seed(0)
    network = build(sizes.model, 1).to(bench.kind).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    batches = sorted({sizes.batch, *sizes.batches})
    works: dict[str, Work] = {}
    for batch in batches:
        image = on(bench, torch.rand(batch, 1, *[sizes.model_patch] * 3))
        works[f"forward, batch={batch}"] = _forward(bench, network, image, amp)
        works[f"forward+backward, batch={batch}"] = _both(bench, network, image, amp)
    tried, _ = possible(works, bench)
    taken = in_turns(tried, bench.effort, bench.kind)
    ceiling = roofline.matrix(bench, amp)
    note = f"{sizes.model}, {sizes.model_patch}^3, {amp}, eager, channels last"
    found = []
    for name, seconds in taken.items():
        batch = int(name.partition("=")[2])
        work = gflop(sizes.model, sizes.model_patch, backward="backward" in name) / 1e3
        config = {"batch": batch, "amp": amp}
        each = rates(seconds, batch)
        found.append(
            figure(f"model/{name}", each, "samples/s", note, of=ceiling, in_its_unit=work, config=config)
        )
    return found


def possible(works: dict[str, Work], bench: Bench) -> tuple[dict[str, Work], dict[str, float]]:
    """Return the works that run here and seconds of their first calls; the others are named to the person."""
    found, seconds = {}, {}
    for name, work in works.items():
        try:
            seconds[name] = first_call(work, bench.kind)
        except RuntimeError as error:  # out of the GPU's memory, or the compiler cannot
            told = (str(error).splitlines() or [""])[0]
            bench.say(f"left out {name.removeprefix(', ')}: {type(error).__name__}: {told:.80}")
            continue
        found[name] = work
    return found, seconds


def compile_all() -> None:
    """Let torch.compile keep every state that is measured, and raise where it would not.

    Beyond 8 states of one network (batches, layouts, number types, modes) it would run the others eagerly and
    say so in a line of a log.
    """
    from torch._dynamo import config

    config.recompile_limit = STATES
    config.fail_on_recompile_limit_hit = True


def _forward(bench: Bench, network: "torch.nn.Module", image: "torch.Tensor", amp: str) -> Work:
    import torch

    def work(turn: int) -> None:
        network.eval()
        with torch.inference_mode(), autocast(bench, amp):
            network(image, None)

    return work


def _both(bench: Bench, network: "torch.nn.Module", image: "torch.Tensor", amp: str) -> Work:
    def work(turn: int) -> None:
        network.train()
        network.zero_grad(set_to_none=True)
        with autocast(bench, amp):
            logit = network(image, None)
        backward: Callable[[], None] = logit.sum().backward
        backward()

    return work

"""The training step: ours beside MONAI's network as its users train it, and how fast batches come.

``python -m benchmarks.step [--device auto] [--model densenet121] [--size 64] [--batch 32] [--out FILE]``

Forward, backward and optimizer step on one resident batch, sides in turn. The gate comes first: the same
weights give the same logits. Number types and compilers that this device has no use for are left out.
"""

import argparse
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.networks.nets import DenseNet as MonaiDenseNet

from benchmarks import RESULTS
from toolkit.bench.data import endless, noise_store, plan_of
from toolkit.bench.record import Figure, append, default_path, figure, line
from toolkit.bench.stopwatch import Effort, in_turns, rates
from toolkit.device import resolve
from toolkit.loading.augment import preset
from toolkit.loading.open import open_loader
from toolkit.models.densenet import SIZES
from toolkit.models.registry import build
from toolkit.training.balance import Balancing
from toolkit.training.config import from_table
from toolkit.training.learner import Learner
from toolkit.training.precision import WRONG, Decision, decide, gradient_error

BOUND = 1e-3
"""Of the largest logit: float32 sums of a hundred layers in another order."""
WARM, READ, LOADED = 2, 16, 32
Step = Callable[[], None]


def theirs(model: str) -> torch.nn.Module:
    """Return MONAI's network of our sizes."""
    size = SIZES[model]
    return MonaiDenseNet(
        3,
        1,
        1,
        size["init_features"],
        size["growth"],
        size["blocks"],  # type: ignore[arg-type]
    )


def gate(model: str, image: torch.Tensor) -> float:
    """Return the largest difference of logits of the same weights, of the largest logit."""
    torch.manual_seed(0)
    their = theirs(model).to(image.device).eval()
    our = build(model, 1).to(image.device).eval()
    our.load_state_dict(their.state_dict())
    with torch.no_grad():
        a, b = our(image, None), their(image)[:, 0]
    return float((a - b).abs().max() / b.abs().max())


def plain_step(
    model: str, image: torch.Tensor, target: torch.Tensor, amp: str, *, compiled: bool = False
) -> Step:
    """Return the step of a plain script: MONAI's network, contiguous memory, Adam, eager.

    Compiled it is what a careful script does: channels last, too.
    """
    torch.manual_seed(0)
    layout = torch.channels_last_3d if compiled else torch.contiguous_format
    network: Any = theirs(model).to(image.device, memory_format=layout)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    image = image.contiguous(memory_format=layout)
    if compiled:
        network = torch.compile(network, dynamic=False)
    lossf = torch.nn.BCEWithLogitsLoss()

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(image.device.type, getattr(torch, amp), enabled=amp != "float32"):
            logit = network(image)[:, 0]
        lossf(logit.float(), target).backward()
        optimizer.step()

    return step


def our_step(model: str, image: torch.Tensor, target: torch.Tensor, decision: Decision) -> Step:
    """Return the step of ``toolkit train``: clipping, averaged weights and all."""
    torch.manual_seed(0)
    config = from_table({"model": {"name": model}})
    network = build(model, 1, fast=decision.impl == "fast")
    learner = Learner(network, config, Balancing("none", 0.5, 0.5), decision, image.device, config.epochs)
    image = image.to(memory_format=torch.channels_last_3d)
    if decision.amp != "float32":
        image = image.to(decision.dtype)
    return lambda: learner.step(0, 0, image, target)


def arms(model: str, image: torch.Tensor, target: torch.Tensor, *, compiled: bool) -> Mapping[str, Step]:
    """Return the steps that are compared, by name."""
    kind: Any = image.device.type
    amp = decide(from_table({}).compute, kind).amp
    amps = ["float32"]
    if amp != "float32" or gradient_error(kind) <= WRONG:
        amps.append("bfloat16" if amp == "float32" else amp)
    found: dict[str, Step] = {}
    for each in amps:
        found[f"monai eager {each}"] = plain_step(model, image, target, each)
        found[f"toolkit eager {each}"] = our_step(model, image, target, Decision(each, "off", ""))  # type: ignore[arg-type]
        fast = Decision(each, "off", "", "fast")  # type: ignore[arg-type]
        found[f"toolkit fast eager {each}"] = our_step(model, image, target, fast)
    if compiled:
        last: Any = amps[-1]
        found[f"toolkit compiled {last}"] = our_step(model, image, target, Decision(last, "default", ""))
        fast = Decision(last, "default", "", "fast")
        found[f"toolkit fast compiled {last}"] = our_step(model, image, target, fast)
    return found


def measure(
    model: str, size: int, batch: int, device: torch.device, turns: int, *, compiled: bool
) -> list[Figure]:
    """Return samples a second of every arm, ratios to MONAI's, and of the loader."""
    image = torch.rand(batch, 1, size, size, size, device=device)
    target = (torch.arange(batch, device=device) % 2).float()
    kind: Any = device.type
    steps = arms(model, image, target, compiled=compiled)
    works = {name: lambda turn, step=step: step() for name, step in steps.items()}
    # the first call compiles and picks algorithms
    taken = in_turns(works, Effort(turns, 0.0, warm=WARM), kind)
    found_rates = {name: rates(seconds, batch) for name, seconds in taken.items()}
    what = f"{model}, {size}^3, batch {batch}, {kind}, resident batch"
    found = [figure(f"step/{name}", each, "samples/s", what) for name, each in found_rates.items()]
    plain = found_rates["monai eager float32"]
    ours = {name: each for name, each in found_rates.items() if name.startswith("toolkit")}
    for name, each in ours.items():
        ratio = [a / b for a, b in zip(each, plain, strict=True)]
        found.append(figure(f"step.ratio/{name} / monai eager float32", ratio, "x", what))
    loader = loader_rates(kind, turns)
    found.append(figure("step/loader alone", loader, "samples/s", "64^3 of 96^3 crops, default augmentation"))
    if size == 64:
        best = max(ours.values(), key=np.median)
        ratio = [a / b for a, b in zip(loader, best, strict=True)]
        found.append(figure("step.ratio/loader / fastest step", ratio, "x", f"goal 10x; {what}"))
    return found


def loader_rates(kind: Any, turns: int) -> list[float]:
    """Return samples a second of the loader that this device gets, over `READ` batches a turn."""
    with tempfile.TemporaryDirectory() as folder:
        store = noise_store(Path(folder) / "store", 4 * LOADED, 64, 16)
        plan = plan_of(store, preset("default"), 64, LOADED, "float32" if kind == "cpu" else "bfloat16")
        with open_loader(plan, "auto", kind) as loader:
            batches = endless(loader)
            work = {"loader": lambda turn: deque(islice(batches, READ), maxlen=0)}
            return rates(in_turns(work, Effort(turns, 0.0), kind)["loader"], READ * LOADED)


def main() -> int:
    """Run the gate, then the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--model", choices=[*SIZES], default="densenet121")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--compiled", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    device = torch.device(resolve(args.device))
    worst = gate(args.model, torch.rand(2, 1, args.size, args.size, args.size, device=device))
    print(f"the same weights: logits differ by at most {worst:.1e} of the largest")
    if not worst <= BOUND:
        print("gate is red: no figures", file=sys.stderr)
        return 1
    compiled = device.type == "cuda" if args.compiled is None else args.compiled
    figures = measure(args.model, args.size, args.batch, device, args.turns, compiled=compiled)
    for found in figures:
        print(line(found))
    kind: Any = device.type
    append(figures, args.out or default_path(RESULTS, kind), kind)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

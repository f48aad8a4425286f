"""Where the training step spends its time: ``python -m benchmarks.profile_step [--device auto] [--model M]``.

The operations that cost most, what goes into changing memory layouts, and an alarm where a 3-D convolution
falls back to copies into columns (``vol2col``, ``slow_conv``), which costs many times the memory and time.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from toolkit.device import resolve
from toolkit.models.densenet import SIZES
from toolkit.models.registry import build
from toolkit.training.balance import Balancing
from toolkit.training.config import from_table
from toolkit.training.learner import Learner
from toolkit.training.precision import decide

LAYOUT = re.compile(
    r"nchwTo|ToNchw|nhwcTo|ToNhwc|ncdhw|transpose|aten::contiguous|reorder|convert_layout", re.I
)
FALLBACK = re.compile(r"vol2col|col2vol|slow_conv|im2col", re.I)
WARM, STEPS, SHOWN = 3, 5, 20
ALARM = 0.05  # torch takes columns for the smallest maps on a CPU, and rightly


@dataclass(frozen=True)
class Operation:
    """An operation or kernel: calls and milliseconds a step."""

    name: str
    calls: float
    ms: float


@dataclass(frozen=True)
class Profile:
    """What a step is made of; shares of its time, in [0, 1], go into changing layouts and into fallbacks."""

    operations: tuple[Operation, ...]
    total_ms: float
    layout_share: float
    fallback_share: float
    fallbacks: tuple[str, ...]


def profile(learner: Learner, image: torch.Tensor, target: torch.Tensor, steps: int = STEPS) -> Profile:
    """Profile some steps after a few to warm up."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if image.device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    for _ in range(WARM):
        learner.step(0, 0, image, target)
    with torch.profiler.profile(activities=kinds) as found:
        for _ in range(steps):
            learner.step(0, 0, image, target)
        if image.device.type == "cuda":
            torch.cuda.synchronize()
    return summarize(list(found.key_averages()), steps, on_device=image.device.type == "cuda")


def summarize(events: Sequence[Any], steps: int, *, on_device: bool) -> Profile:
    """Return a profile of averaged events; times are those of the operation itself."""
    field = "self_device_time_total" if on_device else "self_cpu_time_total"
    found = [Operation(e.key, e.count / steps, getattr(e, field) / 1000 / steps) for e in events]
    found = sorted((each for each in found if each.ms > 0), key=lambda each: -each.ms)
    total = sum(each.ms for each in found)
    layout = sum(each.ms for each in found if LAYOUT.search(each.name))
    back = [each for each in found if FALLBACK.search(each.name)]
    shares = (layout / (total or 1), sum(each.ms for each in back) / (total or 1))
    return Profile(tuple(found), total, *shares, tuple(each.name for each in back))


def main() -> int:
    """Profile and print; 1 where fallbacks cost more than `ALARM`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--model", choices=[*SIZES], default="densenet121")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--impl", choices=("plain", "fast"), default="plain")
    args = parser.parse_args()
    kind = resolve(args.device)
    device, config = torch.device(kind), from_table({"model": {"name": args.model}})
    decision = decide(config.compute, kind)
    print(decision.why)
    network = build(args.model, 1, fast=args.impl == "fast")
    learner = Learner(network, config, Balancing("none", 0.5, 0.5), decision, device, 1)
    image = torch.rand(args.batch, 1, args.size, args.size, args.size, device=device, dtype=decision.dtype)
    image = image.contiguous(memory_format=torch.channels_last_3d)
    found = profile(learner, image, (torch.arange(args.batch, device=device) % 2).float())
    for each in found.operations[:SHOWN]:
        share = 100 * each.ms / found.total_ms
        print(f"{each.ms:9.3f} ms {share:5.1f} % {each.calls:7.1f} calls  {each.name[:90]}")
    print(f"{found.total_ms:.2f} ms a step, {100 * found.layout_share:.1f} % of it changes layouts")
    if found.fallbacks:
        told = f"{100 * found.fallback_share:.1f} % in convolutions by columns: {', '.join(found.fallbacks)}"
        print(f"{'ALARM: ' if found.fallback_share > ALARM else ''}{told}", file=sys.stderr)
    return int(found.fallback_share > ALARM)


if __name__ == "__main__":
    raise SystemExit(main())

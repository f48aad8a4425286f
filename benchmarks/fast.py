"""The fast twin of the DenseNet beside its rivals: samples/s, peak memory, share of what memory allows.

``python -m benchmarks.fast [--device auto] [--model M] [--sizes 32 64 96] [--batches 8 32 128 256]``

Arms are those of `benchmarks.step`, and on a GPU MONAI's network compiled, and ours with its launches
recorded (``reduce-overhead``). What does not fit into memory is left out and told. The gate: gradients of the
fast network are as near to float64 as the plain one's, times two.
"""

import argparse
import copy
import gc
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks import RESULTS
from benchmarks.step import Step, our_step, plain_step
from toolkit.bench.record import Figure, append, default_path, figure, line
from toolkit.bench.stopwatch import rates
from toolkit.device import resolve
from toolkit.models.densenet import SIZES
from toolkit.models.registry import build
from toolkit.training.config import from_table
from toolkit.training.precision import Decision, decide

WARM, LEAST, FLOOR = 4, 2.0, 1e-5
"""Steps before a measurement; how often the plain error is allowed, beside a floor."""
COPIED = 1 << 30


def traffic(model: str, patch: int, item: int) -> float:
    """Return GB a sample that the fast step moves at least, numbers of `item` bytes; weights not counted.

    Reads and writes of maps, as `toolkit.models.fast_block` makes them. Forward a layer of C channels on its
    way to `width` and then `growth`: the product reads C and writes width, norm and ReLU read and write it,
    the 3x3x3 convolution reads it and writes growth, which is copied. Back: growth is closed (3) and read
    twice; of width, ReLU is made again (2), the convolution reads one and writes one, the norm reads two
    twice and writes one, the product reads one; C is read, and read and written in the sums. The norm behind
    a block reads C twice, writes an eighth, reads an eighth and writes C. The stem writes its map, and reads
    or writes it ten times more.
    """
    size = SIZES[model]
    blocks, growth, channels = tuple(size["blocks"]), int(size["growth"]), int(size["init_features"])  # type: ignore[arg-type]
    width, extent = 4 * growth, -(-patch // 2)
    total = 11.0 * channels * extent**3
    extent = -(-extent // 2)
    for number, layers in enumerate(blocks):
        moved = 5.0 * channels  # into the buffer, and its gradient out of it
        for _ in range(layers):
            moved += 4 * channels + 13 * width + 8 * growth
            channels += growth
        moved += 3.25 * channels
        total += moved * extent**3
        if number + 1 < len(blocks):
            extent, channels = extent // 2, channels // 2
    return total * item / 1e9


def gate(model: str, device: torch.device, amp: str) -> tuple[float, float]:
    """Return the relative errors of plain and fast gradients against float64 on the CPU."""
    torch.manual_seed(0)
    plain = build(model, 1).train()
    exact, image = copy.deepcopy(plain).double(), torch.rand(8, 1, 32, 32, 32)
    exact(image.double(), None).sum().backward()
    true = _gradients(exact)
    errors = []
    for fast in (False, True):
        network = build(model, 1, fast=fast)
        network.load_state_dict(plain.state_dict())
        network = network.train().to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        with torch.autocast(device.type, getattr(torch, amp), enabled=amp != "float32"):
            logit = network(image.to(device), None)
        logit.sum().backward()
        errors.append(float((_gradients(network) - true).norm() / true.norm()))
    return errors[0], errors[1]


def _gradients(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.double().cpu().flatten() for p in network.parameters() if p.grad is not None])


def makers(kind: str, amp: Any) -> Mapping[str, Callable[..., Step]]:
    """Return what makes the steps that are compared, by name."""
    found: dict[str, Callable[..., Step]] = {
        "monai eager float32": lambda *given: plain_step(*given, "float32"),
        f"toolkit eager {amp}": _ours(Decision(amp, "off", "")),
        f"toolkit fast eager {amp}": _ours(Decision(amp, "off", "", "fast")),
    }
    if amp != "float32":
        found[f"monai eager {amp}"] = lambda *given: plain_step(*given, amp)
    if kind == "cuda":
        found[f"monai compiled {amp}"] = lambda *given: plain_step(*given, amp, compiled=True)
        for mode in ("default", "reduce-overhead"):
            found[f"toolkit compiled {mode} {amp}"] = _ours(Decision(amp, mode, ""))  # type: ignore[arg-type]
            found[f"toolkit fast compiled {mode} {amp}"] = _ours(Decision(amp, mode, "", "fast"))  # type: ignore[arg-type]
    return found


def _ours(decision: Decision) -> Callable[..., Step]:
    return lambda *given: our_step(*given, decision)


def timed(make: Callable[[], Step], device: torch.device, turns: int) -> tuple[list[float], float]:
    """Return seconds of steps and GB of peak memory (0 on a CPU); arms are alone in memory."""
    gc.collect()
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    step, taken = make(), []
    for turn in range(WARM + turns):
        _wait(device)
        begun = time.perf_counter()
        step()
        _wait(device)
        if turn >= WARM:
            taken.append(time.perf_counter() - begun)
    peak = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else 0.0
    return taken, peak


def measure(
    model: str, size: int, batch: int, device: torch.device, amp: str, turns: int, copied: Figure
) -> list[Figure]:
    """Return the figures of one size and batch."""
    image = torch.rand(batch, 1, size, size, size, device=device)
    target = (torch.arange(batch, device=device) % 2).float()
    what, found = f"{model}, {size}^3, batch {batch}, {device.type}, resident batch", []
    for name, make in makers(device.type, amp).items():
        title = f"fast/{size}^3, batch={batch}, {name}"
        try:
            taken, peak = timed(lambda make=make: make(model, image, target), device, turns)  # type: ignore[misc]
        except RuntimeError as error:  # memory, or the compiler
            print(f"left out {title}: {str(error).splitlines()[0]:.100}", file=sys.stderr)
            continue
        each = rates(taken, batch)
        if " fast " in name:
            moved = traffic(model, size, 4 if amp == "float32" else 2)
            found.append(figure(title, each, "samples/s", what, of=copied, in_its_unit=moved))
        else:
            found.append(figure(title, each, "samples/s", what))
        if peak:
            found.append(figure(f"{title}, peak memory", [peak], "GB", what))
    return found


def copy_rate(device: torch.device, turns: int) -> Figure:
    """Return GB/s of copying a large array on the device, read and write counted."""
    source = torch.ones(COPIED if device.type == "cuda" else COPIED // 8, dtype=torch.uint8, device=device)
    there, taken = torch.empty_like(source), []
    for _ in range(turns + WARM):
        _wait(device)
        begun = time.perf_counter()
        there.copy_(source)
        _wait(device)
        taken.append(time.perf_counter() - begun)
    return figure("ceiling/copy", rates(taken[WARM:], 2 * source.numel() / 1e9), "GB/s", device.type)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> int:
    """Run the gate, then the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--model", choices=[*SIZES], default="densenet121")
    parser.add_argument("--sizes", type=int, nargs="+", default=None)
    parser.add_argument("--batches", type=int, nargs="+", default=None)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    kind: Any = resolve(args.device)
    device, amp = torch.device(kind), decide(from_table({}).compute, kind).amp
    plain, fast = gate(args.model, device, amp)
    print(f"{amp} gradients against float64: plain {plain:.1e}, fast {fast:.1e}")
    if not fast <= LEAST * plain + FLOOR:
        print("gate is red: no figures", file=sys.stderr)
        return 1
    large = kind == "cuda"
    figures = [copied := copy_rate(device, args.turns)]
    for size in args.sizes or ([32, 64, 96] if large else [32]):
        for batch in args.batches or ([8, 32, 128, 256] if large else [8]):
            found = measure(args.model, size, batch, device, amp, args.turns, copied)
            for each in found:
                print(line(each), flush=True)
            figures += found
    append(figures, args.out or default_path(RESULTS, kind), kind)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

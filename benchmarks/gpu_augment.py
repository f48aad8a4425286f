"""The loaders on a GPU: samples/s, bytes that must move as a share of the copy bandwidth, and DALI beside it.

``python -m benchmarks.gpu_augment [--out FILE]``. 64^3 patches of 96^3 crops in bfloat16, batches of 64, no
mask. The gate (GPU = CPU within a bound) comes first, and there is no figure without it.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.record import Figure, append, default_path, figure, line
from toolkit.loading.augment import AugmentConfig, preset
from toolkit.loading.batch import Batch, Loader
from toolkit.loading.dali import DaliLoader
from toolkit.loading.fused import FusedLoader
from toolkit.loading.plan import Plan
from toolkit.loading.resident import ResidentLoader
from toolkit.loading.sampler import SequentialSampler, members
from toolkit.store import Nodule, Store

SIZE, MARGIN, CROPS, BATCH, ROUNDS = 64, 16, 512, 64, 20
BOUND = 0.02  # of the window: bfloat16 keeps eight bits
# int16 in and bfloat16 out, each voxel once: what no kernel can avoid
BYTES_A_SAMPLE = SIZE**3 * (2 + 2)
GOALS = {"share": "goal 60 %", "dali": "goal 4x"}


def make_store(path: Path, crops: int = CROPS) -> Store:
    """Make a store of smooth noise."""
    rng, side = np.random.default_rng(0), SIZE + 2 * MARGIN
    base = rng.normal(-600, 300, (side + 16,) * 3).clip(-1024, 3071).astype(np.int16)
    starts = rng.integers(0, 16, (crops, 3))
    images = np.stack([base[z : z + side, y : y + side, x : x + side] for z, y, x in starts])
    nodules = [
        Nodule(f"n{k}", f"c{k}", f"p{k}", float(k % 2), 8.0, None, (0.0, 0.0, 0.0), 0.0, "none")
        for k in range(crops)
    ]
    return Store.create(path, nodules, images, np.zeros(images.shape, np.uint8), 1.0, margin=MARGIN)


def plan_of(store: Store, config: AugmentConfig, dtype: str = "bfloat16") -> Plan:
    """Return a plan that reads every crop once an epoch."""
    sampler = SequentialSampler(members(store.nodules, np.arange(len(store))), batch=BATCH)
    return Plan(store, sampler, config, SIZE, seed=1, dtype=dtype)  # type: ignore[arg-type]


def endless(loader: Loader) -> Iterator[Batch]:
    """Yield the batches of one epoch after another."""
    epoch = 0
    while True:
        yield from loader.epoch(epoch)
        epoch += 1


def rates(loader: Loader) -> list[float]:
    """Return samples a second of some rounds of batches, by the clock, the device idle at both ends."""
    import torch

    batches, found = endless(loader), []
    for _ in islice(batches, 4):
        pass
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        count = sum(len(batch.index) for batch in islice(batches, 16))
        torch.cuda.synchronize()
        found.append(count / (time.perf_counter() - start))
    return found


def gate(store: Store) -> float:
    """Return the largest difference of GPU and CPU over a batch, of the window."""
    plan = plan_of(store, preset("default"))
    with ResidentLoader(plan) as gpu, FusedLoader(plan) as cpu:
        ours, theirs = next(iter(gpu.epoch(0))), next(iter(cpu.epoch(0)))
        return float((ours.image.float().cpu() - theirs.image.float()).abs().max())


def copy_bandwidth() -> list[float]:
    """Return GB/s of copies from device to device, read and write counted."""
    import torch

    source = torch.ones(1 << 28, dtype=torch.uint8, device="cuda")
    there, found = torch.empty_like(source), []
    for _ in range(ROUNDS + 3):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        there.copy_(source)
        end.record()
        end.synchronize()
        found.append(2 * source.numel() / begin.elapsed_time(end) / 1e6)
    return found[3:]


def measure(store: Store) -> list[Figure]:
    """Measure the fused loader with and without noise, and DALI's, in turn."""
    quiet = replace(preset("default"), noise_sigma=(0.0, 0.0))
    copies = copy_bandwidth()
    figures = [figure("gpu.copy", copies, "GB/s", "device to device, read + write")]
    taken: dict[str, list[float]] = {}
    for name, config in (("plain", quiet), ("noise", preset("default"))):
        with ResidentLoader(plan_of(store, config)) as loader:
            taken[name] = rates(loader)
        figures.append(
            figure(f"gpu.augment.{name}", taken[name], "samples/s", "resident, bfloat16, by the clock")
        )
    with DaliLoader(plan_of(store, quiet, "float16"), device="cuda") as loader:
        taken["dali"] = rates(loader)
    figures.append(figure("gpu.augment.dali", taken["dali"], "samples/s", "float16, crops from the host"))
    ceiling = float(np.median(copies)) * 1e9
    share = [100 * rate * BYTES_A_SAMPLE / ceiling for rate in taken["plain"]]
    figures.append(figure("gpu.augment.share", share, "%", f"{GOALS['share']}; of the copy bandwidth"))
    ratio = [a / b for a, b in zip(taken["plain"], taken["dali"], strict=True)]
    figures.append(figure("gpu.augment.ratio/fused / dali", ratio, "x", GOALS["dali"]))
    return figures


def main() -> int:
    """Run the gate, then the measurements."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out or default_path(torch.cuda.get_device_name())
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder) / "store")
        worst = gate(store)
        print(f"GPU against CPU: at most {worst:.4f} of the window")
        if not worst <= BOUND:
            print("gate is red: no figures", file=sys.stderr)
            return 1
        figures = measure(store)
    for found in figures:
        print(line(found))
    append(figures, out)
    print(out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""The loaders on a GPU: samples/s, bytes that must move as a share of the copy bandwidth, and DALI beside it.

``python -m benchmarks.gpu_augment [--out FILE]``. 64^3 patches of 96^3 crops in bfloat16, batches of 64, no
mask. The gate (GPU = CPU within a bound) comes first, and there is no figure without it.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

from benchmarks import RESULTS
from toolkit.bench import roofline
from toolkit.bench.data import endless, noise_store, plan_of
from toolkit.bench.record import Figure, append, default_path, figure, line
from toolkit.bench.setting import QUICK_GPU, Bench
from toolkit.bench.stopwatch import Effort
from toolkit.loading.augment import preset
from toolkit.loading.batch import Loader
from toolkit.loading.dali import DaliLoader
from toolkit.loading.fused import FusedLoader
from toolkit.loading.resident import ResidentLoader
from toolkit.store import Store

SIZE, MARGIN, CROPS, BATCH, ROUNDS = 64, 16, 512, 64, 20
BOUND = 0.02  # of the window: bfloat16 keeps eight bits
# int16 in and bfloat16 out, each voxel once: what no kernel can avoid
BYTES_A_SAMPLE = SIZE**3 * (2 + 2)
GOALS = {"share": "goal 60 %", "dali": "goal 4x"}


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
    plan = plan_of(store, preset("default"), SIZE, BATCH, "bfloat16")
    with ResidentLoader(plan) as gpu, FusedLoader(plan) as cpu:
        ours, theirs = next(iter(gpu.epoch(0))), next(iter(cpu.epoch(0)))
        return float((ours.image.float().cpu() - theirs.image.float()).abs().max())


def measure(store: Store, ceiling: Figure) -> list[Figure]:
    """Measure the fused loader with and without noise, and DALI's, beside the copy bandwidth."""
    quiet = replace(preset("default"), noise_sigma=(0.0, 0.0))
    figures = [ceiling]
    taken: dict[str, list[float]] = {}
    for name, config in (("plain", quiet), ("noise", preset("default"))):
        with ResidentLoader(plan_of(store, config, SIZE, BATCH, "bfloat16")) as loader:
            taken[name] = rates(loader)
        figures.append(
            figure(f"gpu.augment.{name}", taken[name], "samples/s", "resident, bfloat16, by the clock")
        )
    with DaliLoader(plan_of(store, quiet, SIZE, BATCH, "float16"), device="cuda") as loader:
        taken["dali"] = rates(loader)
    figures.append(figure("gpu.augment.dali", taken["dali"], "samples/s", "float16, crops from the host"))
    share = [100 * rate * BYTES_A_SAMPLE / (1e9 * ceiling.value) for rate in taken["plain"]]
    figures.append(figure("gpu.augment.share", share, "%", f"{GOALS['share']}; of the copy bandwidth"))
    ratio = [a / b for a, b in zip(taken["plain"], taken["dali"], strict=True)]
    figures.append(figure("gpu.augment.ratio/fused / dali", ratio, "x", GOALS["dali"]))
    return figures


def main() -> int:
    """Run the gate, then the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out or default_path(RESULTS, "cuda")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench("cuda", Path(folder), QUICK_GPU, Effort(ROUNDS, 0.0, warm=3))
        store = noise_store(Path(folder) / "store", CROPS, SIZE, MARGIN)
        worst = gate(store)
        print(f"GPU against CPU: at most {worst:.4f} of the window")
        if not worst <= BOUND:
            print("gate is red: no figures", file=sys.stderr)
            return 1
        figures = measure(store, roofline.copy(bench))
    for found in figures:
        print(line(found))
    append(figures, out, "cuda")
    print(out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

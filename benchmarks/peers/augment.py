"""Augmentation: 64^3 patches of 96^3 crops, against DALI, torch, MONAI, TorchIO, Kornia and BatchAug.

``python -m benchmarks.peers.augment [--rounds 9] [--threads 2] [--device cuda] [--out FILE]``

Every contender gets the same int16 crops in memory and the same matrices, made before the clock starts, and
returns float32 patches. Equality is checked first, but for TorchIO, whose affine has parameters of its own.
On a CPU each side has two threads. On a GPU the crops lie in its memory, events are the clock, and the table
of parameters is sent on the clock; DALI is compared there by `benchmarks.gpu_augment`.
"""

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import RESULTS
from benchmarks.peers import augment_batched as batched
from benchmarks.peers import augment_peers as peers
from benchmarks.peers.gate import UnequalError
from kernels.augment import Rows, augment
from toolkit.bench import record
from toolkit.bench.machine import Kind
from toolkit.bench.record import Figure, default_path, figure
from toolkit.bench.stopwatch import Effort, in_turns, rates
from toolkit.loading.augment import AugmentConfig, preset
from toolkit.loading.draw import CropGeometry, draw
from toolkit.loading.table import AugmentTable

SIZE, SIDE, SPACING_MM, BATCH, CROPS = 64, 96, 0.7, 16, 64
EQUAL = 1e-3  # of the window; float32 positions and sums in another order
GOALS = {"dali": 5, "torch": 3, "monai": 8, "torchio": 8}

Run = Callable[["Work"], Any]


@dataclass(frozen=True, eq=False)
class Work:
    """One batch: crops int16 and masks uint8 (b, s, s, s), and the table of what happens to them.

    The crops are NumPy arrays, or torch tensors on a GPU.
    """

    images: Any
    masks: Any
    table: AugmentTable

    def part(self, k: int) -> "Work":
        """Return the batch of sample `k` alone."""
        values = {field.name: getattr(self.table, field.name) for field in fields(self.table)}
        rows = {name: v[k : k + 1] for name, v in values.items() if isinstance(v, np.ndarray)}
        return Work(self.images[k : k + 1], self.masks[k : k + 1], replace(self.table, **rows))

    def on_gpu(self) -> "Work":
        """Return the batch with its crops in the GPU's memory."""
        import torch

        images, masks = (torch.from_numpy(each).to("cuda") for each in (self.images, self.masks))
        return replace(self, images=images, masks=masks)


def main() -> None:
    """Parse, measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each contender, in turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[], help="groups: plain, mask, noise, elastic, gamma")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    figures: list[Figure] = []
    for name in args.only or ("plain", "mask", "gamma", "noise", "elastic"):
        for found in measure(name, args.threads, args.rounds, args.device):
            print(record.line(found), flush=True)
            figures.append(found)
    out = args.out or (default_path(RESULTS, "cuda") if args.device == "cuda" else None)
    if out:
        record.append(figures, out, args.device)


def config(name: str) -> AugmentConfig:
    """Return what a group does: geometry, window, gain and bias of the preset `default`, and one more."""
    base = replace(preset("default"), gamma=(1.0, 1.0), noise_sigma=(0.0, 0.0))
    return {
        "plain": base,
        "mask": replace(base, mask_mode="soft"),
        "gamma": replace(base, gamma=(0.8, 0.9), probability=replace(base.probability, gamma=1.0)),
        "noise": replace(base, noise_sigma=(0.02, 0.02), probability=replace(base.probability, noise=1.0)),
        "elastic": replace(base, elastic_spacing_mm=12.0, elastic_amplitude_mm=2.0),
    }[name]


def works(name: str, device: Kind = "cpu") -> list[Work]:
    """Return batches of smooth noise with a ball of a nodule in the middle of each crop."""
    from scipy import ndimage

    rng = np.random.default_rng(4)
    base = ndimage.gaussian_filter(rng.normal(0, 1, (SIDE + 32,) * 3), 1.5)
    base = (base / base.std() * 300 - 600).clip(-1024, 3071).astype(np.int16)
    grid = np.stack(np.meshgrid(*[np.arange(SIDE) - (SIDE - 1) / 2] * 3, indexing="ij"))
    ball = (np.square(grid).sum(axis=0) < 100).astype(np.uint8) * np.uint8(255)
    found = []
    for k in range(CROPS // BATCH):
        starts = rng.integers(0, 32, (BATCH, 3))
        cut = [base[z : z + SIDE, y : y + SIDE, x : x + SIDE] for z, y, x in starts]
        table = draw(
            config(name),
            CropGeometry(SIDE, SIZE, SPACING_MM),
            np.arange(BATCH),
            1,
            0,
            np.arange(BATCH) + k * BATCH,
        )
        found.append(Work(np.stack(cut), np.stack([ball] * BATCH), table))
    return found if device == "cpu" else [work.on_gpu() for work in found]


def fused(threads: int) -> Run:
    """Use our kernel as the fused loader does: samples from one thread pool, a buffer that is used again."""
    pool = ThreadPoolExecutor(threads)
    out = np.empty((BATCH, SIZE, SIZE, SIZE, 1), np.float32)

    def run(work: Work) -> Any:
        rows = Rows(work.table)
        list(pool.map(lambda k: rows.fill(k, work.images[k], work.masks[k], out[k]), range(BATCH)))
        return out

    return run


def fused_on_gpu(work: Work) -> Any:
    """Use our kernel on crops in the GPU's memory: the table is sent, and one launch makes the batch."""
    return augment(work.images, work.masks, work.table)


def contenders(name: str, threads: int, device: Kind = "cpu") -> dict[str, Run]:
    """Return who can do the work of a group, as far as installed."""
    makers: dict[str, Callable[[], Run]] = {
        "fused": lambda: fused(threads) if device == "cpu" else fused_on_gpu
    }
    if name in ("plain", "mask", "gamma", "noise"):
        makers["torch"] = lambda: batched.torch_grid_sample(threads, name)
        makers["kornia"] = lambda: batched.kornia(threads, name)
    # BatchAug's gamma is of each sample's own range, no window's; its elastic takes 28 s a batch on a CPU
    if name in ("plain", "mask", "noise") or (name == "elastic" and device == "cuda"):
        makers["batchaug"] = lambda: batched.batchaug(threads, name)
    if name in ("plain", "noise", "elastic"):
        makers["monai"] = lambda: peers.monai(threads, name)
    if device == "cpu" and name in ("plain", "mask", "gamma", "noise"):
        makers["dali"] = lambda: peers.dali(threads, name)
    if device == "cpu" and name in ("plain", "noise", "elastic"):
        makers["torchio"] = lambda: peers.torchio(threads, name)
    found = {}
    for peer, make in makers.items():
        try:
            found[peer] = make()
        except ImportError as error:
            print(f"left out {peer}: {error}", file=sys.stderr)
    return found


def check(name: str, runs: dict[str, Run], work: Work) -> None:
    """Raise `UnequalError` unless the patches are those of the fused kernel."""
    ours = _host(runs["fused"](work))
    for peer, run in runs.items():
        theirs = _host(run(work))
        if theirs.size != ours.size:
            raise UnequalError(f"{name}: {peer} made {theirs.size} voxels, {ours.size} were asked for")
        if peer in ("fused", "torchio") or name in ("noise", "elastic"):
            continue
        apart = float(np.abs(ours - theirs).max())
        if not apart <= EQUAL:
            raise UnequalError(f"{name}: {peer} differs by {apart:.5f}")
        print(f"{name}: {peer} is equal to {apart:.1e}", file=sys.stderr)


def _host(patches: Any) -> NDArray[np.float32]:
    """Return a copy of patches, flat, wherever they are."""
    there = patches.cpu() if hasattr(patches, "cpu") else patches
    return np.asarray(there).flatten()


def measure(name: str, threads: int, rounds: int, device: Kind = "cpu") -> list[Figure]:
    """Return samples a second of each contender, in turns, and the ratios of fused to the others."""
    runs, batches = contenders(name, threads, device), works(name, device)
    check(name, runs, batches[0])
    turns = {peer: lambda turn, run=run: run(batches[turn % len(batches)]) for peer, run in runs.items()}
    taken = {
        peer: rates(seconds, BATCH) for peer, seconds in in_turns(turns, Effort(rounds, 0.0), device).items()
    }
    with_what = f"{threads} threads" if device == "cpu" else "resident crops, by events"
    about = f"{SIZE}^3 of {SIDE}^3 crops, {with_what}, batches of {BATCH}; {name}"
    first = "augment" if device == "cpu" else "gpu.augment.peers"
    figures = [figure(f"{first}/{name}/{peer}", each, "samples/s", about) for peer, each in taken.items()]
    for peer in runs:
        if peer != "fused":
            ratio = [a / b for a, b in zip(taken["fused"], taken[peer], strict=True)]
            goal = f"goal {GOALS[peer]}x; " if name == "plain" and peer in GOALS and device == "cpu" else ""
            same = "not the same output; " if peer == "torchio" or name in ("noise", "elastic") else ""
            figures.append(figure(f"{first}/{name}/ratio/fused / {peer}", ratio, "x", goal + same + about))
    return figures


if __name__ == "__main__":
    main()

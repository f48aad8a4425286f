"""Augmentation on the CPU, two threads: 64^3 patches of 96^3 crops, against DALI, torch, MONAI and TorchIO.

``python -m benchmarks.peers.augment [--rounds 9] [--threads 2] [--out FILE]``

Every contender gets the same int16 crops in memory and the same matrices, made before the clock starts, and
returns float32 patches. Equality is checked first, but for TorchIO, whose affine has parameters of its own.
"""

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import augment_peers as peers
from benchmarks.peers.gate import UnequalError
from kernels.augment import Rows
from toolkit.bench import record
from toolkit.bench.record import Figure, figure
from toolkit.loading.augment import AugmentConfig, preset
from toolkit.loading.draw import CropGeometry, draw
from toolkit.loading.table import AugmentTable

SIZE, SIDE, SPACING_MM, BATCH, CROPS = 64, 96, 0.7, 16, 64
EQUAL = 1e-3  # of the window; float32 positions and sums in another order
GOALS = {"dali": 5, "torch": 3, "monai": 8, "torchio": 8}

Run = Callable[["Work"], Any]


@dataclass(frozen=True, eq=False)
class Work:
    """One batch: crops int16 and masks uint8 (b, s, s, s), and the table of what happens to them."""

    images: NDArray[np.int16]
    masks: NDArray[np.uint8]
    table: AugmentTable


def main() -> None:
    """Parse, measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each contender, in turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[], help="groups: plain, mask, noise, elastic, gamma")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    figures: list[Figure] = []
    for name in args.only or ("plain", "mask", "gamma", "noise", "elastic"):
        for found in measure(name, args.threads, args.rounds):
            print(record.line(found), flush=True)
            figures.append(found)
    if args.out:
        record.append(figures, args.out)


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


def works(name: str) -> list[Work]:
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
    return found


def fused(threads: int) -> Run:
    """Use our kernel as the fused loader does: samples from one thread pool, a buffer that is used again."""
    pool = ThreadPoolExecutor(threads)
    out = np.empty((BATCH, SIZE, SIZE, SIZE, 1), np.float32)

    def run(work: Work) -> Any:
        rows = Rows(work.table)
        list(pool.map(lambda k: rows.fill(k, work.images[k], work.masks[k], out[k]), range(BATCH)))
        return out

    return run


def contenders(name: str, threads: int) -> dict[str, Run]:
    """Return who can do the work of a group, as far as installed."""
    makers: dict[str, Callable[[], Run]] = {"fused": lambda: fused(threads)}
    if name in ("plain", "mask", "gamma", "noise"):
        makers |= {
            "dali": lambda: peers.dali(threads, name),
            "torch": lambda: peers.torch_grid_sample(threads, name),
        }
    if name in ("plain", "noise"):
        makers |= {
            "monai": lambda: peers.monai(threads, name),
            "torchio": lambda: peers.torchio(threads, name),
        }
    if name == "elastic":
        makers |= {
            "torchio": lambda: peers.torchio(threads, name),
            "monai": lambda: peers.monai(threads, name),
        }
    found = {}
    for peer, make in makers.items():
        try:
            found[peer] = make()
        except ImportError as error:
            print(f"left out {peer}: {error}", file=sys.stderr)
    return found


def check(name: str, runs: dict[str, Run], work: Work) -> None:
    """Raise `UnequalError` unless the patches are those of the fused kernel."""
    ours = np.array(runs["fused"](work)).reshape(-1)
    for peer, run in runs.items():
        theirs = np.asarray(run(work)).reshape(-1)
        if theirs.size != ours.size:
            raise UnequalError(f"{name}: {peer} made {theirs.size} voxels, {ours.size} were asked for")
        if peer in ("fused", "torchio") or name in ("noise", "elastic"):
            continue
        apart = float(np.abs(ours - theirs).max())
        if not apart <= EQUAL:
            raise UnequalError(f"{name}: {peer} differs by {apart:.5f}")
        print(f"{name}: {peer} is equal to {apart:.1e}", file=sys.stderr)


def measure(name: str, threads: int, rounds: int) -> list[Figure]:
    """Return samples a second of each contender, in turns, and the ratios of fused to the others."""
    runs, batches = contenders(name, threads), works(name)
    check(name, runs, batches[0])
    taken: dict[str, list[float]] = {peer: [] for peer in runs}
    for turn in range(rounds):
        for peer, run in runs.items():
            start = time.perf_counter()
            run(batches[turn % len(batches)])
            taken[peer].append(BATCH / (time.perf_counter() - start))
    about = f"{SIZE}^3 of {SIDE}^3 crops, {threads} threads, batches of {BATCH}; {name}"
    figures = [figure(f"augment/{name}/{peer}", each, "samples/s", about) for peer, each in taken.items()]
    for peer in runs:
        if peer != "fused":
            ratio = [a / b for a, b in zip(taken["fused"], taken[peer], strict=True)]
            goal = f"goal {GOALS[peer]}x; " if name == "plain" else ""
            same = "not the same output; " if peer == "torchio" or name in ("noise", "elastic") else ""
            figures.append(figure(f"augment/{name}/ratio/fused / {peer}", ratio, "x", goal + same + about))
    return figures


if __name__ == "__main__":
    main()

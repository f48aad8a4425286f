"""From files to trained-on samples: the recipe that LUNA25 published beside ours, on the same scans.

``python -m benchmarks.peers.luna25_recipe [--scans 32] [--device auto] [--out FILE]``

Three sides take turns: `scans` reads a whole scan for each sample, `blocks` maps blocks that were cut once,
`toolkit` runs ``toolkit preprocess`` once and then its own loader and step. Rates leave out what runs once,
which is timed in every turn and printed; the rates over 1 and 10 epochs have it. The gate comes first: the
patches are equal where both filters are trilinear, and the same weights give the same logits.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import RESULTS, step
from benchmarks.peers import copies
from benchmarks.peers import luna25_baseline as recipe
from benchmarks.peers.gate import UnequalError
from benchmarks.peers.luna25_data import Archive, phantom_image, real_image, write_archive
from benchmarks.peers.luna25_sides import (
    SIDES,
    Settings,
    Step,
    batches_of,
    our_step,
    prepare,
    preprocessed,
    sources,
    their_step,
)
from toolkit.bench import record
from toolkit.bench.record import Figure, default_path, figure
from toolkit.device import resolve
from toolkit.loading.augment import AugmentConfig
from toolkit.loading.fused import FusedLoader
from toolkit.loading.plan import Plan
from toolkit.loading.sampler import SequentialSampler, members
from toolkit.models.densenet import SIZES
from toolkit.store import Store

WIDTH_HU = recipe.WINDOW_HU[1] - recipe.WINDOW_HU[0]
EQUAL_HU = 0.52  # half a HU, to which ours are rounded, and float32 sums in another order
Rates = dict[str, dict[str, list[float]]]


def main() -> None:
    """Parse, measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    defaults = Settings()
    parser.add_argument("--scan", type=Path, help="folder of one LIDC series (default: LIDC-IDRI-0001)")
    parser.add_argument("--phantom", action="store_true", help="a phantom instead of a scan")
    parser.add_argument("--scans", type=int, default=32, help="copies, each a nodule; a batch at least")
    parser.add_argument("--model", choices=[*SIZES], default=defaults.model)
    parser.add_argument("--size", type=int, default=defaults.size)
    parser.add_argument("--batch", type=int, default=defaults.batch, help="32 as published; divisible by 2")
    parser.add_argument("--batches", type=int, default=defaults.batches, help="of each side in a turn")
    parser.add_argument("--workers", type=int, default=defaults.workers, help="processes; 8 as published")
    parser.add_argument("--turns", type=int, default=defaults.turns)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--cache", type=Path, default=copies.default_cache())
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    given = {name: getattr(args, name) for name in ("model", "size", "batch", "batches", "workers", "turns")}
    settings = Settings(**given, device=resolve(args.device))
    args.cache.mkdir(parents=True, exist_ok=True)
    if args.phantom:
        image, center = phantom_image(0)
    else:
        image, center = real_image(args.scan or copies.default_scan(args.cache))
    with tempfile.TemporaryDirectory(prefix="luna25-", dir=args.cache) as work:
        archive = write_archive(image, center, args.scans, Path(work) / "archive")
        copies.read_once(archive.folder)
        figures = measure(archive, Path(work), settings)
    for found in figures:
        print(record.line(found))
    out = args.out or (default_path(RESULTS, "cuda") if settings.device == "cuda" else None)
    if out:
        record.append(figures, out, settings.device)


def measure(archive: Archive, work: Path, settings: Settings) -> list[Figure]:
    """Check equality, then measure all sides in turn; raises `UnequalError` before any time."""
    fine_mm = float(np.linalg.norm(recipe.read(sources(archive)[0])[1][:3, :3], axis=0).min())
    # compiles the kernels, too, so that no measured run has to
    fine = preprocessed(archive, work / "fine", settings, fine_mm, 0)
    figures = gate(archive, fine, fine_mm, settings)
    taken: dict[str, dict[str, list[float]]] = {side: {} for side in SIDES}
    steps = {side: our_step(settings) if side == "toolkit" else their_step(settings) for side in SIDES}
    for turn in range(settings.turns):
        for side in SIDES:
            folder = work / f"{side}-{turn}"
            for what, value in one_turn(side, archive, folder, settings, steps[side]).items():
                taken[side].setdefault(what, []).append(value)
                print(f"turn {turn + 1} {side:<8}{what:<8}{value:10.3f}", file=sys.stderr, flush=True)
            for path in work.glob(f"{side}-{turn}*"):  # the store and its crosswalk
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    return figures + summary(taken, len(archive.nodules), settings)


def one_turn(
    side: str, archive: Archive, folder: Path, settings: Settings, train: Step
) -> Mapping[str, float]:
    """Measure one side once: seconds that run once, then samples/s of the step, of the loader, of both.

    The batches in flight are taken before the clock starts, so that none was made off it.
    """
    begun = time.perf_counter()
    prepared = prepare(side, archive, folder, settings)
    once = time.perf_counter() - begun
    cube = (settings.batch, 1, *(settings.size,) * 3)
    image = torch.rand(cube, device=settings.device)
    label = (torch.arange(settings.batch, device=settings.device) % 2).float()
    alone = rate(lambda n: [train(image, label) for _ in range(n)], 1, settings)
    with closing(batches_of(side, prepared, settings)) as batches:
        in_flight = 2 * settings.workers + 1
        loaded = rate(lambda n: [None for _ in islice(batches, n)], in_flight, settings)
        both = rate(lambda n: [train(*each) for each in islice(batches, n)], in_flight, settings)
    found = {"once": once, "step": alone, "loader": loaded, "train": both}
    if side == "toolkit":
        apart = difference_hu(prepared, sources(archive)[0], settings.voxel_mm, settings.size)
        found["apart"] = float(apart.mean())
    return found


def rate(work: Callable[[int], object], warm: int, settings: Settings) -> float:
    """Return samples/s of `batches` batches after `warm` others, the device idle at both ends."""
    seconds = 0.0
    for count in (warm, settings.batches):
        begun = time.perf_counter()
        work(count)
        if settings.device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - begun
    return settings.batches * settings.batch / seconds


def gate(archive: Archive, store: Store, voxel_mm: float, settings: Settings) -> list[Figure]:
    """Return how far patches are apart; raises `UnequalError` beyond rounding, and where logits differ.

    The store's voxels are the scan's finest spacing, so that no axis is filtered; nothing is turned or moved.
    """
    worst = step.gate(settings.model, torch.rand(2, 1, *(settings.size,) * 3))
    if not worst <= step.BOUND:
        raise UnequalError(f"logits of the same weights differ by {worst:.1e} of the largest")
    whole = sources(archive)[0]
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        for name, source in (
            ("scans", whole),
            ("blocks", recipe.cut_block(whole, str(Path(folder) / "block.npy"))),
        ):
            apart = difference_hu(store, source, voxel_mm, settings.size)
            if not apart.max() <= EQUAL_HU:
                raise UnequalError(f"{name}: patches differ by {apart.max():.2f} HU at {voxel_mm:.3f} mm")
            about = f"at the finest spacing, {voxel_mm:.3f} mm"
            figures.append(figure(f"luna25/difference/{name}/largest", [float(apart.max())], "HU", about))
    print(f"equal: patches at {voxel_mm:.3f} mm, and logits to {worst:.1e}", file=sys.stderr)
    return figures


def difference_hu(store: Store, source: recipe.Source, voxel_mm: float, size: int) -> NDArray[np.float64]:
    """Return by how many HU, window and all, the plain patches of a store and of the recipe differ."""
    theirs = recipe.patch(source, size, voxel_mm, None)[0]
    return WIDTH_HU * np.abs(plain_patch(store, size).astype(np.float64) - theirs)


def plain_patch(store: Store, size: int) -> NDArray[np.float32]:
    """Return the store's first crop as the loader gives it when nothing is drawn, windowed."""
    one = SequentialSampler(members(store.nodules, np.arange(1)), batch=1)
    with FusedLoader(Plan(store, one, AugmentConfig(window_hu=recipe.WINDOW_HU), size)) as loader:
        return next(iter(loader.epoch(0))).image.numpy().copy().reshape((size,) * 3)


def summary(taken: Rates, nodules: int, settings: Settings) -> list[Figure]:
    """Return what was measured, whole epochs with what runs once, and ratios within each turn."""
    about = (
        f"{nodules} scans, warm page cache, {settings.model}, {settings.size}^3, batch {settings.batch}, "
        f"{settings.workers} processes or threads, {settings.device}"
    )
    filtered = "mean at the recipe's voxels: ours is filtered on axes where they are coarser than the scan's"
    figures = [figure("luna25/difference/toolkit/mean", taken["toolkit"]["apart"][:1], "HU", filtered)]
    for side, found in taken.items():
        for epochs in (1, recipe.EPOCHS):
            seen = epochs * nodules
            pairs = zip(found["once"], found["train"], strict=True)
            found[f"{epochs}-epochs"] = [seen / (once + seen / each) for once, each in pairs]
        if side != "scans":
            cost = [1e3 * each / nodules for each in found["once"]]
            note = f"once, before the first epoch, start-up included; {about}"
            figures.append(figure(f"luna25/{side}/once", cost, "ms/nodule", note))
        for what in ("step", "loader", "train", "1-epochs", f"{recipe.EPOCHS}-epochs"):
            figures.append(
                figure(f"luna25/{side}/{what}", found[what], "samples/s", f"{_WHAT[what]}; {about}")
            )
    for side in ("scans", "blocks"):
        for what in _WHAT:
            ratio = [a / b for a, b in zip(taken["toolkit"][what], taken[side][what], strict=True)]
            name = f"luna25/ratio/{what}/toolkit / {side}"
            figures.append(figure(name, ratio, "x", f"{_WHAT[what]}; {about}"))
    return figures


_WHAT = {
    "step": "one batch again and again",
    "loader": "batches that nobody trains on",
    "train": "from files to trained on, without what runs once",
    "1-epochs": "one epoch from files, with what runs once",
    f"{recipe.EPOCHS}-epochs": f"{recipe.EPOCHS} epochs from files, with what runs once",
}


if __name__ == "__main__":
    main()

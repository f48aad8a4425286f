"""The kernel alone, one thread: crop, resample and mask a brick, against SimpleITK and others.

``python -m benchmarks.peers.kernel [--scan FOLDER] [--rounds 60] [--out FILE]``
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.peers import contenders as c
from benchmarks.peers import copies
from benchmarks.peers.gate import UnequalError
from benchmarks.peers.grids import Sample, samples
from toolkit.bench import record
from toolkit.bench.record import Figure, figure

FINE_MM, COARSE_MM, OBLIQUE_DEGREES = 0.6, 1.0, 12.0
ROUNDING_HU = 0.52  # half a unit, and float32 sums of numbers up to 3071 in another order
ROUNDING_MASK = 0.52
GOAL = "goal 6x at equal output"
GRID_ULP = 2.0**-23
"""Of a brick's side: positions are rounded as float32 in [-1, 1] and on their way back to voxels."""

_SAMPLED = {
    "torch-grid_sample-image": c.torch_grid_sample,
    "volresample-grid_sample-image": c.volresample_grid_sample,
}
_OTHER_GRID = {"monai-Spacing": c.monai_spacing, "volresample-resample-brick-image": c.volresample_brick}
_ROUNDED = ("scipy-affine_transform-image", "scipy-map_coordinates-image")


def main() -> None:
    """Parse, measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scan", type=Path, help="folder of one DICOM series (default: LIDC-IDRI-0001)")
    parser.add_argument("--noise", action="store_true", help="bricks of noise instead of a scan")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--bricks", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=60, help="measurements of each contender, in turn")
    parser.add_argument("--cache", type=Path, default=copies.default_cache())
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    scan = None if args.noise else args.scan or copies.default_scan(args.cache)
    figures = measure(scan, args.size, args.bricks, args.rounds)
    for found in figures:
        print(record.line(found))
    if args.out:
        record.append(figures, args.out)


def measure(scan: Path | None, size: int, bricks: int, rounds: int) -> list[Figure]:
    """Check equality of all grids, then measure; raises `UnequalError` before any time is taken."""
    c.one_thread()
    fine = samples(scan, FINE_MM, 0.0, size, bricks)
    coarse = samples(scan, COARSE_MM, 0.0, size, bricks)
    oblique = samples(scan, FINE_MM, OBLIQUE_DEGREES, size, bricks)
    for name, group in (("fine", fine), ("oblique", oblique)):
        for sample in group:
            check(name, sample)
    for name, group, peers in (("fine", fine, _fine()), ("oblique", oblique, _oblique())):
        check_peers(name, group, peers)
    print(f"equal: {bricks} bricks each, axial and oblique, image and mask", file=sys.stderr)
    source = "noise" if scan is None else "bricks of a chest CT"
    about = f"{size}^3 target, {bricks} {source} in turn, one thread"
    equal, other = f"{about}; equal output", f"{about}; anti-aliased by us, so not the same output"
    return [
        *_group(f"{FINE_MM}mm", fine, _fine(), rounds, equal),
        *_group(f"{COARSE_MM}mm", coarse, _coarse(), rounds, other),
        *_group(f"{FINE_MM}mm-oblique", oblique, _oblique(), rounds, equal),
    ]


def check(name: str, sample: Sample) -> None:
    """Raise `UnequalError` unless image and mask are SimpleITK's, rounded."""
    import SimpleITK as sitk

    image, occupancy = c.toolkit_both(sample)
    pairs = (
        ("image", image[0], sample.sitk_hu, c.AIR, ROUNDING_HU),
        ("mask", occupancy[0], sample.sitk_mask, 0, ROUNDING_MASK),
    )
    for what, ours, source, air, allowed in pairs:
        theirs = sitk.GetArrayFromImage(c.sitk_resample(sample, source, air, sitk.sitkFloat32))
        apart = float(np.abs(ours - theirs).max())
        if apart > allowed:
            raise UnequalError(f"{name}: {what} differs by {apart:.3f}, {allowed} is rounding")
    if not np.array_equal(image, c.toolkit_image(sample)) or not occupancy.any():
        raise UnequalError(f"{name}: the image depends on the mask, or there is no mask")


def check_peers(name: str, group: Sequence[Sample], peers: Mapping[str, c.Contender]) -> None:
    """Raise `UnequalError` unless those that are given our very grid make our image, within rounding."""
    for peer, run in peers.items():
        for sample in group if peer in _SAMPLED or peer in _ROUNDED else ():
            ours = c.toolkit_image(sample)[0].astype(np.float64)
            apart = float(np.abs(ours - np.asarray(run(sample))).max())
            allowed = 1.0 if peer in _ROUNDED else ROUNDING_HU + position_error_hu(sample)
            if not apart <= allowed:
                raise UnequalError(f"{name}: {peer} differs by {apart:.3f} HU, {allowed:.3f} is rounding")


def position_error_hu(sample: Sample) -> float:
    """Return what rounded positions may change: their error times the steepest step between neighbours."""
    steps = [np.abs(np.diff(sample.hu.astype(np.int32), axis=axis)).max() for axis in range(3)]
    return float(sum(n * GRID_ULP * step for n, step in zip(sample.hu.shape, steps, strict=True)))


def _fine() -> dict[str, c.Contender]:
    peers = {
        "toolkit-image": c.toolkit_image,
        "sitk-image": c.sitk_image,
        "toolkit-image+mask": c.toolkit_both,
        "sitk-image+mask": c.sitk_both,
        "toolkit-pack+image+mask": c.toolkit_pack_both,
        "scipy-affine_transform-image": c.scipy_affine,
        "scipy-map_coordinates-image": c.scipy_coordinates(),
        "scipy-zoom-brick-image": c.scipy_zoom,
    }
    return peers | c.available(_SAMPLED | _OTHER_GRID)


def _coarse() -> dict[str, c.Contender]:
    return {
        "toolkit-image": c.toolkit_image,
        "sitk-image": c.sitk_image,
        "sitk-smoothed-image": c.sitk_smoothed,
        "toolkit-image+mask": c.toolkit_both,
        "sitk-image+mask": c.sitk_both,
    }


def _oblique() -> dict[str, c.Contender]:
    same = {name: run for name, run in _coarse().items() if "smoothed" not in name}
    return same | {"scipy-affine_transform-image": c.scipy_affine} | c.available(_SAMPLED)


def _group(
    name: str, group: Sequence[Sample], peers: Mapping[str, c.Contender], rounds: int, about: str
) -> list[Figure]:
    """Return the times of all contenders on one grid, and the toolkit's ratios to them."""
    taken = _rounds(group, peers, rounds)
    figures = [figure(f"kernel/{name}/{peer}", each, "ms", about) for peer, each in taken.items()]
    for peer, each in taken.items():
        if peer.startswith("toolkit"):
            continue
        ours = "toolkit-image+mask" if peer.endswith("+mask") else "toolkit-image"
        ratio = [b / a for a, b in zip(taken[ours], each, strict=True)]
        goal = f"{GOAL}; " if peer in ("sitk-image", "sitk-image+mask") and "equal output" in about else ""
        figures.append(figure(f"kernel/{name}/ratio/{peer} / {ours}", ratio, "x", goal + about))
    return figures


def _rounds(group: Sequence[Sample], peers: Mapping[str, c.Contender], rounds: int) -> dict[str, list[float]]:
    """Return milliseconds: in every round each contender does the same brick once, another next time."""
    taken: dict[str, list[float]] = {name: [] for name in peers}
    for run in peers.values():
        for sample in group:
            run(sample)
    for turn in range(rounds):
        sample = group[turn % len(group)]
        for name, run in peers.items():
            start = time.perf_counter()
            run(sample)
            taken[name].append(1e3 * (time.perf_counter() - start))
    return taken


if __name__ == "__main__":
    main()

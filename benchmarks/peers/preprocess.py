"""From DICOM files to nodule crops: the toolkit, SimpleITK and MONAI on the same scans, in one run.

``python -m benchmarks.peers.preprocess --scan FOLDER [--series 20 80] [--out FILE]``
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from benchmarks.peers import command, copies, gate, readers
from toolkit.bench import record
from toolkit.bench.record import Figure, figure

FIRST_MM, SECOND_MM = 1.0, 1.05  # two settings with crops of 98 voxels, the second a little larger in mm
EQUAL_MM = 0.6  # finer than the source on all axes: both filters are trilinear interpolation
SAME_PLACE_HU = 5.0  # the grid of MONAI's crop lies up to half a voxel off
MONAI_SIDES = {"monai-itk": "itk", "monai-pydicom": "pydicom"}  # which package reads
SIDES = ("toolkit-first", "sitk-series", "toolkit-second", "sitk-slices")
GOALS = {
    "toolkit-first / sitk-series": 3.0,
    "toolkit-second / sitk-series": 8.0,
    "toolkit-first / monai": 30.0,
    "toolkit-second / monai": 30.0,
}

Seconds = dict[str, dict[int, list[float]]]


def main() -> None:
    """Parse, measure, print, record."""
    args = _arguments()
    scan = args.scan or copies.default_scan(args.cache)
    home = args.cache / "copies"
    folders = dict(zip(sorted(args.series), copies.make_copies(scan, home, args.series), strict=True))
    try:
        read = copies.read_once(folders[max(folders)])
        say(f"{max(folders)} copies, {read / 1e9:.2f} GB read once: the page cache is warm")
        with tempfile.TemporaryDirectory(prefix="peers-", dir=args.cache) as work:
            figures = measure(folders, Path(work), args.workers, args.repeat, args.monai)
    finally:
        if not args.keep:
            shutil.rmtree(home, ignore_errors=True)
    for found in figures:
        print(record.line(found))
    if args.out:
        record.append(figures, args.out)


def measure(
    folders: Mapping[int, Path], work: Path, workers: int, repeat: int, monai_cases: int
) -> list[Figure]:
    """Check equality, then measure all sides in turn; raises `gate.UnequalError` before any time."""
    few, many = min(folders), max(folders)
    figures = equality(folders[few], work, workers)
    targets = gate.targets(folders[many], FIRST_MM)
    inside = [t for t in targets if Path(t.folder).is_relative_to(folders[few])]
    chosen = {few: inside, many: targets}
    taken: Seconds = {side: {few: [], many: []} for side in SIDES}
    slow: dict[str, list[float]] = {}
    for kind, reader in MONAI_SIDES.items():
        missing = [name for name in ("monai", reader) if not find_spec(name)]
        if missing:
            say(f"left out {kind}: {' and '.join(missing)} not installed")
        else:
            slow[kind] = []
    for turn in range(repeat):
        for count in (few, many):
            for side, seconds in _one_turn(folders[count], chosen[count], work, workers).items():
                taken[side][count].append(seconds)
                say(f"turn {turn + 1} {count:3d} cases {side:<16}{seconds:8.2f} s")
        if monai_cases and slow:
            for kind, each in _monai_turn(inside[:monai_cases], workers, slow).items():
                slow[kind].append(each)
                say(f"turn {turn + 1} {monai_cases:3d} cases {kind:<16}{1e3 * each:8.1f} ms a case")
    cost = costs(taken, few, many)
    figures += rates(taken, cost, few, many, workers)
    figures += monai(slow, cost, monai_cases)
    figures += memory(folders[many], work, workers)
    return figures


def _one_turn(archive: Path, targets: Sequence[readers.Target], work: Path, workers: int) -> dict[str, float]:
    """Measure each side once, toolkit and SimpleITK in turn."""
    index, first, second = (work / name for name in ("index", "first", "second"))
    taken = {
        "toolkit-first": command.preprocess(archive, first, index, FIRST_MM, workers)[0],
        "sitk-series": readers.measure("sitk-series", targets, workers)[0],
        "toolkit-second": command.preprocess(archive, second, index, SECOND_MM, workers)[0],
        "sitk-slices": readers.measure("sitk-slices", targets, workers)[0],
    }
    clear(work)
    return taken


def clear(work: Path) -> None:
    """Remove stores, crosswalks and indices, so that the next turn starts without them."""
    for path in work.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def equality(archive: Path, work: Path, workers: int) -> list[Figure]:
    """Compare crops of one case where the filters agree, and say how they differ where they do not.

    Also compiles the kernels, so that no measured run has to.
    """
    one = work / "one"
    folder = min(path for path in archive.rglob("copy-*") if path.is_dir())
    shutil.copytree(folder, one)
    figures = []
    for spacing in (EQUAL_MM, FIRST_MM):
        command.preprocess(one, work / f"at-{spacing}", work / "index", spacing, workers)
        (target,) = gate.targets(one, spacing)
        found = gate.differences(work / f"at-{spacing}", target)
        if spacing == EQUAL_MM:
            gate.check(found)
        note = "equality gate" if spacing == EQUAL_MM else "target coarser in plane: ours is anti-aliased"
        for name, value in found.items():
            unit = "share" if name.startswith("share") else name.rpartition("_")[2]
            figures.append(figure(f"preprocess/difference-{spacing}mm/{name}", [value], unit, note))
    clear(work)
    say(f"equal: {figures[0].value:.6f} of voxels within 1 HU at {EQUAL_MM} mm")
    return figures


def costs(taken: Seconds, few: int, many: int) -> dict[str, list[float]]:
    """Return each side's marginal seconds a case, turn by turn."""
    return {
        side: [(b - a) / (many - few) for a, b in zip(seconds[few], seconds[many], strict=True)]
        for side, seconds in taken.items()
    }


def rates(taken: Seconds, cost: Mapping[str, list[float]], few: int, many: int, workers: int) -> list[Figure]:
    """Return the marginal rate of each side, its start-up, and ratios within the same turn."""
    about = f"warm page cache, {workers} processes, marginal between {few} and {many} cases of one nodule"
    figures = []
    for side, seconds in taken.items():
        for count, each in seconds.items():
            figures.append(figure(f"preprocess/{side}/seconds-{count}-cases", each, "s", "start-up included"))
    for side, each in cost.items():
        if min(each) <= 0:
            say(f"{side}: more cases took less time; the machine is too busy for a rate, none is reported")
            continue
        figures.append(figure(f"preprocess/{side}/rate", [1 / c for c in each], "cases/s", about))
        figures.append(figure(f"preprocess/{side}/cost", [1e3 * c for c in each], "ms/case", about))
        start = [a - few * c for a, c in zip(taken[side][few], each, strict=True)]
        note = "seconds at the smaller count less its marginal cost; kernels compiled before"
        figures.append(figure(f"preprocess/{side}/start-up", start, "s", note))
    for ours in ("toolkit-first", "toolkit-second"):
        for theirs in ("sitk-series", "sitk-slices"):
            figures += _ratio(ours, theirs, cost[ours], cost[theirs], "")
    return figures


def _ratio(
    ours: str, theirs: str, our_cost: Sequence[float], their_cost: Sequence[float], note: str
) -> list[Figure]:
    """Return how many times faster a side is, turn by turn; nothing where a cost is no number."""
    if min(*our_cost, *their_cost) <= 0:
        return []
    name = f"{ours} / {theirs}"
    goal = f"goal {GOALS[name]:g}x" if name in GOALS else "no goal"
    each = [t / o for o, t in zip(our_cost, their_cost, strict=True)]
    return [figure(f"preprocess/ratio/{name}", each, "x", f"{goal}{note}")]


def _monai_turn(targets: Sequence[readers.Target], workers: int, kinds: Iterable[str]) -> dict[str, float]:
    """Return MONAI's seconds a case, less a run that has one case for each worker, by reader."""
    _, mean_hu = readers.measure("sitk-series", targets[:1], 1)
    found = {}
    for kind in kinds:
        short, _ = readers.measure(kind, targets[:workers], workers)
        full, found_hu = readers.measure(kind, [*targets, *targets[:workers]], workers)
        if abs(found_hu - mean_hu) > SAME_PLACE_HU:
            raise gate.UnequalError(f"{kind}: crop of {found_hu:.1f} HU, SimpleITK's of {mean_hu:.1f}")
        found[kind] = (full - short) / len(targets)
    return found


def monai(slow: Mapping[str, list[float]], cost: Mapping[str, list[float]], cases: int) -> list[Figure]:
    """Return MONAI's cost and the ratios to it, against its faster reader."""
    if not slow or not all(slow.values()):
        return []
    figures = [
        figure(
            f"preprocess/{kind}/cost", [1e3 * c for c in each], "ms/case", f"{cases} cases a turn; {_MONAI}"
        )
        for kind, each in slow.items()
    ]
    best = min(figures, key=lambda found: found.value).name.split("/")[1]
    for side in ("toolkit-first", "toolkit-second"):
        figures += _ratio(side, "monai", cost[side], slow[best], f"; against {best}, the faster reader")
    return figures


def memory(archive: Path, work: Path, workers: int) -> list[Figure]:
    """Return the peak resident memory of a worker and of the parent, from a run that is not timed."""
    peaks = command.peak_rss_mib(archive, work / "memory", work / "index", FIRST_MM, workers)
    clear(work)
    note = "goal: a worker below 1024; sampled every 20 ms"
    return [figure(f"preprocess/toolkit-first/peak-rss-{n}", [v], "MiB", note) for n, v in peaks.items()]


def say(text: str) -> None:
    """Talk on stderr."""
    print(text, file=sys.stderr, flush=True)


_MONAI = "LoadImage, EnsureChannelFirst, Spacing 1 mm bilinear, SpatialCrop; one thread a process"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add: Callable[..., object] = parser.add_argument
    add("--scan", type=Path, help="folder of one DICOM series with its LIDC XML (default: LIDC-IDRI-0001)")
    add("--series", type=int, nargs=2, default=(20, 80), metavar="N", help="numbers of cases")
    add("--repeat", type=int, default=3, help="measurements of each side, in turn")
    add("--monai", type=int, default=8, metavar="N", help="cases a turn for MONAI; 0 leaves it out")
    add("--workers", type=int, default=2, help="processes of each side")
    add("--cache", type=Path, default=copies.default_cache(), help="where copies and stores lie meanwhile")
    add("--keep", action="store_true", help="keep the copies for another run")
    add("--out", type=Path, help="append figures to this file (results/ is for quiet machines)")
    return parser.parse_args()


if __name__ == "__main__":
    main()

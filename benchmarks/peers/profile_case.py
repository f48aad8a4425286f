"""Where the time of a case goes: every stage of ``toolkit preprocess`` in one process, stage by stage.

``python -m benchmarks.peers.profile_case ARCHIVE [--spacing 1.0] [--repeat 3] [--out FILE]``

The stages are those of `toolkit.preprocess.run`, called in its order. W: a worker does it, so it is
shared by the processes. P: the parent does it, alone, for all cases.
"""

import argparse
import pickle
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kernels
from toolkit.archive.case import Case
from toolkit.archive.catalog import catalog, scan_new_folder
from toolkit.archive.dicom_series import SeriesRules
from toolkit.archive.index_cache import IndexCache
from toolkit.archive.regions import find
from toolkit.archive.scan import FolderTask, list_files, recall_folder, walk
from toolkit.bench import record
from toolkit.preprocess import cached_findings
from toolkit.preprocess.collect import Collector
from toolkit.preprocess.extract import (
    Extracted,
    Task,
    extract_case,
    source_box,
    target_grid,
    target_to_source,
)
from toolkit.preprocess.identity import IdKey
from toolkit.preprocess.plan import Settings, case_key, default_margin, extend_plan
from toolkit.store.crops import CropFiles
from toolkit.store.format import digest
from toolkit.store.ledger import write_csv
from toolkit.store.writer import write_settings

Stages = dict[str, list[float]]
PROTOCOL = 5


class Clock:
    """Milliseconds a case by stage."""

    def __init__(self, cases: int) -> None:
        self.cases, self.stages = cases, defaultdict[str, list[float]](list)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time one stage for all cases."""
        start = time.perf_counter()
        yield
        self.stages[stage].append(1e3 * (time.perf_counter() - start) / self.cases)


def main() -> None:
    """Parse, measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--spacing", type=float, default=1.0)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    settings = Settings(spacing_mm=args.spacing, margin=default_margin(64, args.spacing))
    figures = [
        record.figure(f"profile/{stage}", samples, "ms/case", "one process, warm page cache")
        for stage, samples in profile(args.archive, settings, args.repeat).items()
    ]
    for found in figures:
        print(record.line(found))
    if args.out:
        record.append(figures, args.out)


def profile(archive: Path, settings: Settings, repeat: int) -> Stages:
    """Return milliseconds a case of every stage, of a first and of a second run."""
    folders = [folder for folder, _ in walk(archive, [])]
    cases = catalog(archive, None, settings.rules, IndexCache(None)).cases
    clock = Clock(len(cases))
    extract_case(Task(cases[0], settings))  # compiles, imports
    for _ in range(repeat):
        with tempfile.TemporaryDirectory() as work:
            _index(archive, folders, Path(work) / "index", clock)
            findings = _find(cases, settings, clock)
            results = _extract(cases, findings, settings, clock)
            _pipe(cases, findings, results, settings, clock)
            _commit(Path(work), cases, findings, results, settings, clock)
    return clock.stages


def _index(archive: Path, folders: Sequence[str], index: Path, clock: Clock) -> None:
    """Time the index: headers, what crosses the pipe, and the catalogue with and without them."""
    with clock("first/W scan headers"):
        scanned = [scan_new_folder(FolderTask(folder)) for folder in folders]
    with clock("first/W+P pickle scans"):
        for found in scanned:
            pickle.loads(pickle.dumps(found, PROTOCOL))
    cache = IndexCache(index)
    with clock("first/P catalogue, scans given"):
        catalog(archive, None, SeriesRules(), cache, lambda _: scanned)
    cache.close()
    with clock("second/P catalogue, all"):
        catalog(archive, None, SeriesRules(), cache := IndexCache(index))
    with clock("second/P of it: read index"):
        known = [cache.packed("folder", folder) or b"" for folder in folders]
    with clock("second/P of it: stat files"):
        for folder, packed in zip(folders, known, strict=True):
            recall_folder(FolderTask(folder, packed), list_files(folder)[1])
    cache.close()


def _find(cases: Sequence[Case], settings: Settings, clock: Clock) -> list[tuple[Any, ...]]:
    """Time reading and merging the LIDC outlines, and what the index saves of it."""
    with clock("first/W outlines and consensus"):
        found = [find(case, case.source, settings.min_diameter_mm) for case in cases if case.source]
    cache = IndexCache(None)
    with clock("first/P keep findings"):
        for case, (findings, notes) in zip(cases, found, strict=True):
            cached_findings.keep(cache, case, settings, cached_findings.pack(findings, notes))
    with clock("second/P load findings"):
        for case in cases:
            cached_findings.load(cache, case, settings)
    return [tuple(findings) for findings, _ in found]


def _extract(
    cases: Sequence[Case], findings: Sequence[Any], settings: Settings, clock: Clock
) -> list[Extracted]:
    """Time a worker's part after the findings, and its pieces."""
    both = list(zip(cases, findings, strict=True))
    with clock("both/W extract, all"):
        results = [extract_case(Task(case, settings, found)) for case, found in both]
    boxes = []
    with clock("both/W of it: boxes"):
        for case, found in both:
            matrices = [
                target_to_source(
                    target_grid(f.center_lps_mm, settings.spacing_mm, settings.side), case.source.geometry
                )
                for f in found
            ]
            boxes.append([(m, source_box(m, settings.side, case.source.geometry)) for m in matrices])
    with clock("both/W of it: read pixels"):
        read = [
            case.source.read_boxes([box for _, box in own]) for case, own in zip(cases, boxes, strict=True)
        ]
    with clock("both/W of it: digest and air"):
        for hu in (hu for own in read for hu in own):
            digest(hu), (hu == -1024).sum()
    bricks = [
        [kernels.Brick(hu, None, _moved(m, box)) for hu, (m, box) in zip(own, place, strict=True)]
        for own, place in zip(read, boxes, strict=True)
    ]
    with clock("both/W of it: pack"):
        packed = [kernels.pack(own, settings.side) for own in bricks]
    with clock("both/W of it: kernel, image only"):
        for own in packed:
            kernels.extract(own, settings.side)
    return results


def _moved(matrix: Any, box: Any) -> Any:
    moved = matrix.copy()
    moved[:, 3] -= box.start_zyx
    return moved


def _pipe(
    cases: Sequence[Case],
    findings: Sequence[Any],
    results: Sequence[Extracted],
    settings: Settings,
    clock: Clock,
) -> None:
    """Time what crosses the pipes between parent and workers."""
    tasks = [Task(case, settings, found) for case, found in zip(cases, findings, strict=True)]
    with clock("both/P pickle tasks"):
        texts = [pickle.dumps((extract_case, task), PROTOCOL) for task in tasks]
    with clock("both/W unpickle tasks"):
        for text in texts:
            pickle.loads(text)
    with clock("both/W pickle results"):
        texts = [pickle.dumps(result, PROTOCOL) for result in results]
    with clock("both/P unpickle results"):
        for text in texts:
            pickle.loads(text)


def _commit(
    work: Path,
    cases: Sequence[Case],
    findings: Sequence[Any],
    results: Sequence[Extracted],
    settings: Settings,
    clock: Clock,
) -> None:
    """Time keys, records, digests and the disk."""
    store, id_key = work / "store", IdKey(b"benchmark")
    with clock("both/P keys and settings"):
        keys = [case_key(case, settings, id_key) for case in cases]
        write_settings(store, settings.resolved())
    hashed = [id_key.hash("case", case.case_id) for case in cases]
    plan = extend_plan([], hashed)
    with (
        clock("both/P collect and commit, all"),
        Collector(store, settings, id_key, False, plan) as collector,
    ):
        for case_id, case, key, result in zip(hashed, cases, keys, results, strict=True):
            collector.add(case_id, case, key, result)
    with clock("both/P of it: digests"):
        for result in results:
            digest(result.images), digest(result.masks)
    with clock("both/P of it: write and sync"):
        _write(work / "other", results, settings)
    with clock("both/P nodules.csv"):
        write_csv(store)


def _write(store: Path, results: Sequence[Extracted], settings: Settings) -> None:
    """Write crops as the collector does, without digests and records."""
    with CropFiles(store, "0", settings.side) as crops:
        for result in results:
            crops.append(result.images, result.masks)
        crops.publish()


if __name__ == "__main__":
    main()

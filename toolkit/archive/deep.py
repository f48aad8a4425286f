"""Every voxel and every mask of a case, looked at: what headers cannot tell. One slice at a time."""

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from toolkit.archive.case import Case, opened
from toolkit.archive.dicom_fields import SliceFile
from toolkit.archive.dicom_pixels import HuRule, hu_rule, read_rows, stored_length
from toolkit.archive.dicom_series import SeriesFiles
from toolkit.archive.hazards import Counts, count_boxes, count_values, judge
from toolkit.archive.region_rule import RegionRule
from toolkit.archive.regions import find
from toolkit.archive.slice_checks import check_slice
from toolkit.archive.stored import iter_slabs
from toolkit.archive.volume import FileVolume, below_air, to_hu
from toolkit.errors import InputError, Problem


@dataclass(frozen=True)
class Judged:
    """A case after all of it was read.

    Attributes
    ----------
    case
        Opened, with the notes and the problem that its voxels and masks added.
    files
        Each image file once, with what keeps it from being decoded, or None.
    nodules
        How many its masks and points hold; None where they could not be looked at.
    bytes_read
        Bytes of voxels that were decoded.
    """

    case: Case
    files: tuple[tuple[str, Problem | None], ...] = ()
    nodules: int | None = None
    bytes_read: int = 0
    seconds: float = 0.0


def judge_case(task: tuple[Case, float, RegionRule]) -> Judged:
    """Decode all of a case's voxels, and find its nodules as ``preprocess`` would.

    Slices of a series that is refused for its geometry are decoded all the same. The task is a case,
    the minimum diameter in mm, and which regions are nodules.
    """
    start = time.perf_counter()
    case, min_diameter_mm, rule = task
    slices = case.unopened.files if isinstance(case.unopened, SeriesFiles) else ()
    case = opened(case)
    source = case.source
    counts, read = Counts(), 0
    files: dict[str, Problem | None] = {}
    if slices:
        counts, files, read = _read_slices(slices)
    elif isinstance(source, FileVolume):
        counts, files, read = _read_volume(source)
    failed = next((problem for problem in files.values() if problem is not None), None)
    case = replace(case, notes=(*case.notes, *judge(counts)), problem=case.problem or failed)
    nodules = None
    if case.problem is None and source is not None:
        try:
            found, notes = find(case, source, min_diameter_mm, rule)
            nodules, case = len(found), replace(case, notes=(*case.notes, *notes))
        except InputError as error:
            case = replace(case, problem=error.problem)
    seconds = time.perf_counter() - start
    return Judged(case, tuple(files.items()), nodules, read, seconds)


def _read_slices(slices: Iterable[SliceFile]) -> tuple[Counts, dict[str, Problem | None], int]:
    """Decode slices one by one; return counts, the outcome of each file and the bytes decoded."""
    times: dict[HuRule, NDArray[np.int64]] = defaultdict(lambda: np.zeros(1 << 16, np.int64))
    files: dict[str, Problem | None] = {}
    read = 0
    for file in slices:
        files.setdefault(file.path, None)
        try:
            check_slice(file)
            rows = int(file.header.rows or 0)
            stored = read_rows(file.path, file.size, file.mtime_ns, file.header, 0, rows)
            rule = hu_rule(file.header, file.path)
        except InputError as error:
            files[file.path] = files[file.path] or error.problem
            continue
        read += stored_length(file.header)
        times[rule] += np.bincount(stored.ravel(), minlength=1 << 16)
    total = Counts()
    for rule, found in times.items():
        found = found[: len(rule.table)]
        below = 0 if rule.below is None else int(found[rule.below].sum())
        total += count_values(rule.table, found, below)
    return total, files, read


def _read_volume(source: FileVolume) -> tuple[Counts, dict[str, Problem | None], int]:
    """Read a volume slab by slab; as `_read_slices`."""
    stored, path = source.header.stored, source.header.stored.path
    total, read = Counts(), 0
    try:
        for _, slab in iter_slabs(stored, 0, stored.shape_zyx[0]):
            total += count_boxes([to_hu(slab, stored)], below_air(slab, stored))
            read += slab.nbytes
    except InputError as error:
        return Counts(), {path: error.problem}, read
    return total, {path: None}, read

"""The cases that a manifest names."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.archive.case import Case, MaskFile, MaskKind, Point
from toolkit.archive.cases import digest_of, mask_digest, series_case, volume_case
from toolkit.archive.dicom_series import SeriesRules
from toolkit.archive.manifest import Row
from toolkit.archive.names import volume_suffix
from toolkit.archive.scan import FileEntry, broken, mask_head, problem, walk
from toolkit.archive.series import Slices, all_series
from toolkit.errors import InputError, Problem


def folders_of(rows: Mapping[str, Sequence[Row]]) -> list[Path]:
    """Return the folders that hold the images and masks of a manifest."""
    folders: dict[Path, None] = {}
    for found in rows.values():
        for row in found:
            if row.image.is_dir():
                folders.update(dict.fromkeys(walk(row.image, [])))
            for path in (row.image, row.mask):
                if path is not None and path.is_file():
                    folders[path.parent] = None
    return sorted(folders)


def manifest_case(
    rows: Sequence[Row],
    folders: Mapping[Path, Sequence[FileEntry]],
    roots: tuple[Path, ...],
    rules: SeriesRules,
) -> Case:
    """Return the case that rows of one case id describe; its `problem` says why it cannot be used."""
    first = rows[0]
    bare = Case(first.case_id, first.patient_id, str(first.image), None, digest=digest_of([first.case_id]))
    points = tuple(
        Point(row.nodule_id, row.center_lps_mm, row.diameter_mm, row.label)
        for row in rows
        if row.center_lps_mm is not None and row.diameter_mm is not None
    )
    try:
        for path in {p for row in rows for p in (row.image, row.mask) if p is not None}:
            _check_path(path, roots)
        masks = _masks(rows, folders)
        case = _image_case(first, masks, folders, rules)
    except InputError as error:
        return _with(bare, problem=error.problem)
    told = [f"{p.center_lps_mm} {p.diameter_mm} {p.label} {p.name}" for p in points]
    told += [f"{sorted(mask.names.items())} {sorted(mask.labels.items())}" for mask, _ in masks]
    return _with(
        case,
        case_id=first.case_id,
        patient_id=first.patient_id,
        masks=tuple(mask for mask, _ in masks),
        points=points,
        split=first.split,
        digest=digest_of([case.digest, *told]),
    )


def _with(case: Case, **changes: Any) -> Case:
    return Case(**{**vars(case), **changes})


def _check_path(path: Path, roots: tuple[Path, ...]) -> None:
    if not path.exists():
        raise InputError(Problem("E-FILE-001", "file of the manifest is missing", files=(str(path),)))
    if not any(path.resolve().is_relative_to(root) for root in roots):
        action = "Case skipped; move the file, or give a common folder as the archive"
        raise InputError(Problem("E-FILE-004", "file outside the archive", action=action, files=(str(path),)))


def _entry(path: Path, folders: Mapping[Path, Sequence[FileEntry]]) -> FileEntry:
    """Return what a file that a manifest names is."""
    for entry in folders.get(path.parent, ()):
        if entry.name == path.name:
            return entry
    what, action = (
        "not a file that is read",
        "Case skipped; a folder is no mask, and hidden files are not read",
    )
    raise InputError(Problem("E-FILE-003", what, action=action, files=(str(path),)))


def _masks(rows: Sequence[Row], folders: Mapping[Path, Sequence[FileEntry]]) -> list[tuple[MaskFile, str]]:
    """Return the masks of a case with the digests of their content.

    One line for a mask speaks of all its nodules; several lines name them by label value.
    """
    by_path: dict[Path, list[Row]] = defaultdict(list)
    for row in rows:
        if row.mask is not None:
            by_path[row.mask].append(row)
    masks = []
    for path, lines in by_path.items():
        entry = _entry(path, folders)
        kind = _mask_kind(path, entry)
        keys = [0] if len(lines) == 1 else _label_values(lines)
        names = {key: row.nodule_id for key, row in zip(keys, lines, strict=True) if row.nodule_id}
        labels = {key: row.label for key, row in zip(keys, lines, strict=True) if row.label is not None}
        regions = mask_head(entry.facts).regions if kind in ("seg", "rtstruct") else ()
        masks.append((MaskFile(str(path), kind, names, labels, regions), mask_digest(path, entry)))
    return masks


def _mask_kind(path: Path, entry: FileEntry) -> MaskKind:
    """Return what a file that a manifest names as a mask is: DICOM by content, the others by name."""
    if entry.kind == "seg" or entry.kind == "rtstruct":
        return "seg" if entry.kind == "seg" else "rtstruct"
    if path.suffix.lower() == ".xml":
        return "lidc"
    if volume_suffix(path.name):
        return "labels"
    if entry.kind in ("bad", "broken"):
        raise InputError(problem(entry.facts) if entry.kind == "bad" else broken(entry.facts)[1])
    what, expected = "mask format that is not supported", "a volume, LIDC XML, segmentation or structure set"
    raise InputError(Problem("E-VOL-002", what, path.suffix[:12], expected, files=(str(path),)))


def _label_values(lines: Sequence[Row]) -> list[int]:
    """Return the label value that each of several lines for one mask speaks of."""
    values: list[int] = []
    for row in lines:
        value = int(row.nodule_id) if row.nodule_id.isdecimal() else 0
        if value < 1 or value in values:
            raise InputError(
                Problem(
                    "E-CSV-003",
                    "several lines for one mask",
                    f"nodule_id {row.nodule_id[:20]!r} in line {row.line}",
                    "the label value of the nodule, a whole number above 0, each once",
                    "Case skipped",
                )
            )
        values.append(value)
    return values


def _image_case(
    row: Row,
    masks: Sequence[tuple[MaskFile, str]],
    folders: Mapping[Path, Sequence[FileEntry]],
    rules: SeriesRules,
) -> Case:
    """Return the case of a row's image: a volume file, or a DICOM series in a folder."""
    if row.image.is_file() and volume_suffix(row.image.name):
        entry = _entry(row.image, folders)
        return volume_case(row.case_id, row.patient_id, row.image, entry, masks)
    slices = Slices()
    inside = row.image if row.image.is_dir() else row.image.parent
    wanted = row.series_uid
    for folder, entries in folders.items():
        for entry in entries if folder.is_relative_to(inside) else ():
            if entry.kind in ("dicom", "frames", "broken"):
                slices.add(str(folder / entry.name), entry)
    series = {one.name: one for one in all_series(slices, rules)[0]}
    if row.image.is_file() and not wanted:
        wanted = next((s.name for s in series.values() if str(row.image) in {f.path for f in s.files}), "")
    if not wanted and row.case_id in series:
        wanted = row.case_id
    if not wanted and len(series) == 1:
        wanted = next(iter(series))
    if wanted not in series:
        measured = f"{len(series)} CT series" + (", none of them named" if series else "")
        action = "Case skipped; name one in the column series_uid" if series else "Case skipped"
        problem = Problem("E-CSV-003", "no such series", measured, "one", action, (str(row.image),))
        raise InputError(problem)
    own = [(mask, digest) for mask, digest in masks if mask.kind != "labels"]
    case = series_case(series[wanted], own, rules)
    if case.problem is not None:
        raise InputError(case.problem)
    others = [digest for mask, digest in masks if mask.kind == "labels"]
    return _with(case, digest=digest_of([case.digest, *others]))

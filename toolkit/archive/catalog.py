"""The way in: an archive, with or without a manifest, as cases."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit.archive.case import Case, MaskFile, Point, opened
from toolkit.archive.dicom_series import SeriesFiles, SeriesRules
from toolkit.archive.discover import (
    Discovery,
    digest_of,
    discover,
    mask_digest,
    series_case,
    volume_case,
)
from toolkit.archive.index_cache import IndexCache
from toolkit.archive.manifest import Row, read_manifest
from toolkit.archive.names import volume_suffix
from toolkit.archive.scan import FileEntry, scan_folder, walk
from toolkit.archive.series import Slices, all_series
from toolkit.errors import InputError, NothingFoundError, Problem, UsageError

Scanned = tuple[str, list[FileEntry], bool]
Scan = Callable[[Iterable[str]], Iterable[Scanned]]


def scan_new_folder(folder: str) -> Scanned:
    """Scan one folder that is not in the index; a worker's task."""
    return (folder, *scan_folder(folder, ()))


def scan_here(folders: Iterable[str]) -> Iterable[Scanned]:
    """Scan folders one after another in this process."""
    return map(scan_new_folder, folders)


def catalog(
    root: Path,
    manifest: Path | None,
    rules: SeriesRules,
    cache: IndexCache,
    scan: Scan = scan_here,
    *,
    open_cases: bool = True,
    series_uids: Sequence[str] = (),
) -> Discovery:
    """Find the cases of an archive, reading no header that the index holds unchanged.

    Parameters
    ----------
    root
        Folder of the archive.
    manifest
        A ``cases.csv`` that names the cases, instead of the usual conventions.
    scan
        Scans folders that the index does not know, in any order.
    open_cases
        Whether to judge each scan here; otherwise whoever uses a case calls `opened`.
    series_uids
        DICOM series to keep, and nothing else; all where it is empty.

    Raises
    ------
    UsageError
        The archive is no folder, the manifest is wrong, or a named series is not there.
    NothingFoundError
        There is neither a case nor a refused file.
    """
    if not root.is_dir():
        raise UsageError(Problem("E-FILE-001", "archive is no folder", files=(str(root),)))
    refused: list[Problem] = []
    if manifest is not None:
        rows = read_manifest(manifest)
        roots = (root.resolve(), manifest.resolve().parent)
        folders = _followed(_scan_all(_folders_of(rows), cache, scan), roots, refused)
        cases = [_manifest_case(found, folders, roots, rules) for found in rows.values()]
        found = Discovery(tuple(sorted(cases, key=lambda case: case.case_id)), tuple(refused))
    else:
        folders = _followed(_scan_all(walk(root, refused), cache, scan), (root.resolve(),), refused)
        found = discover(root, folders, rules)
        found = Discovery(found.cases, (*refused, *found.refused), found.skipped)
    if not found.cases and not found.refused:
        action = "Nothing done; `toolkit index` shows what an archive holds"
        raise NothingFoundError(Problem("E-CASE-004", "no case found", action=action, files=(str(root),)))
    if series_uids:
        found = Discovery(_chosen(found.cases, series_uids))
    if open_cases:
        found = replace(found, cases=tuple(map(opened, found.cases)))
    return found


def _chosen(cases: Iterable[Case], series_uids: Sequence[str]) -> tuple[Case, ...]:
    """Return the cases of the named series, or of the named parts of one that was split."""
    kept, seen = [], set()
    for case in cases:
        if not isinstance(case.unopened, SeriesFiles):
            continue
        names = {case.unopened.files[0].header.series_uid, case.case_id}.intersection(series_uids)
        if names:
            kept.append(case)
            seen |= names
    missing = set(series_uids) - seen
    if missing:
        measured, expected = f"{len(missing)} of {len(set(series_uids))} series not found", "all"
        action = "Nothing done; `toolkit index` lists the series of an archive"
        raise UsageError(Problem("E-CASE-005", "no such series (--series-uid)", measured, expected, action))
    return tuple(kept)


def _scan_all(folders: Iterable[Path], cache: IndexCache, scan: Scan) -> dict[Path, list[FileEntry]]:
    """Return the entries of every folder, from the index where it knows the folder."""
    entries: dict[Path, list[FileEntry]] = {}
    new: list[str] = []
    for folder in folders:
        known = cache.get("folder", str(folder))
        entries[folder] = []
        if known is None:
            new.append(str(folder))
            continue
        entries[folder], changed = scan_folder(str(folder), known)
        if changed:
            cache.put("folder", str(folder), entries[folder])
    for name, found, _ in scan(new):
        entries[Path(name)] = found
        cache.put("folder", name, found)
    cache.commit()
    return entries


def _followed(
    folders: Mapping[Path, Sequence[FileEntry]], roots: tuple[Path, ...], refused: list[Problem]
) -> dict[Path, list[FileEntry]]:
    """Replace links by what they lead to; those that leave the archive are added to `refused`."""
    entries: dict[Path, list[FileEntry]] = {}
    for folder, found in folders.items():
        entries[folder] = []
        for entry in found:
            if entry.kind == "link":
                target, kind, facts = entry.facts
                if not any(Path(target).is_relative_to(root) for root in roots):
                    what, path = "link to a file outside the archive not followed", str(folder / entry.name)
                    refused.append(Problem("E-FILE-004", what, files=(path,)))
                    continue
                entry = entry._replace(kind=kind, facts=facts)
            entries[folder].append(entry)
    return entries


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


def _folders_of(rows: Mapping[str, Sequence[Row]]) -> list[Path]:
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


def _manifest_case(
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
        if path.suffix.lower() not in (".xml",) and not volume_suffix(path.name):
            what = "mask format that is not supported"
            raise InputError(Problem("E-VOL-002", what, path.suffix[:12], files=(str(path),)))
        keys = [0] if len(lines) == 1 else _label_values(lines)
        names = {key: row.nodule_id for key, row in zip(keys, lines, strict=True) if row.nodule_id}
        labels = {key: row.label for key, row in zip(keys, lines, strict=True) if row.label is not None}
        kind = "lidc" if path.suffix.lower() == ".xml" else "labels"
        digest = mask_digest(path, _entry(path, folders))
        masks.append((MaskFile(str(path), kind, names, labels), digest))  # type: ignore[arg-type]
    return masks


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
                slices.add(folder / entry.name, entry)
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
    readings = [(mask.path, digest) for mask, digest in masks if mask.kind == "lidc"]
    case = series_case(series[wanted], readings, rules)
    if case.problem is not None:
        raise InputError(case.problem)
    others = [digest for mask, digest in masks if mask.kind == "labels"]
    return _with(case, digest=digest_of([case.digest, *others]))

"""The cases that a manifest names."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit.archive.case import Case, MaskFile, MaskKind, Point
from toolkit.archive.cases import digest_of, mask_digest, series_case, volume_case
from toolkit.archive.dicom_series import SeriesRules
from toolkit.archive.entries import FileEntry, ScannedFolder, SliceTable, pack_folder, unpack_folder
from toolkit.archive.manifest import Row
from toolkit.archive.names import volume_suffix
from toolkit.archive.scan import broken, content_digest, mask_head, problem, walk
from toolkit.archive.series import Series, all_series
from toolkit.archive.slices import Slices
from toolkit.errors import InputError, Problem

NOTHING = ScannedFolder((), SliceTable(), pack_folder([]))


def folders_of(rows: Mapping[str, Sequence[Row]], roots: tuple[Path, ...]) -> list[str]:
    """Return the folders that hold the images and masks of a manifest; of what lies outside `roots`, none."""
    folders: set[str] = set()
    named = {path: None for found in rows.values() for row in found for path in (row.image, row.mask) if path}
    for path in named:  # once, however many lines name it
        if not _lies_in(path, roots):
            continue
        if path.is_dir():
            folders.update(folder for folder, _ in walk(path, []))
        elif path.is_file():
            folders.add(str(path.parent))
    return sorted(folders)


class Tree:
    """The scanned folders of a manifest: files and series are found without going through all of them."""

    def __init__(self, folders: Iterable[tuple[str, ScannedFolder]]) -> None:
        self._folders = {Path(folder): found._replace(slices=SliceTable()) for folder, found in folders}
        self._order = sorted(self._folders)
        self._names: dict[Path, dict[str, FileEntry]] = {}
        self._last: tuple[tuple[Path, SeriesRules] | None, dict[str, Series]] = (None, {})

    def entry(self, path: Path) -> FileEntry:
        """Return what a file that a manifest names is; raises `InputError` E-FILE-003."""
        folder = path.parent
        if folder not in self._names:
            entries = self._folders.get(folder, NOTHING).entries
            self._names[folder] = {entry.name: entry for entry in entries}
        if path.name in self._names[folder]:
            return self._names[folder][path.name]
        names, sizes, times, *_ = table = self._whole(folder).slices
        if path.name in names:
            k = names.index(path.name)
            return FileEntry(path.name, sizes[k], times[k], "dicom", list(table.headers())[k])
        what, action = (
            "not a file that is read",
            "Case skipped; a folder is no mask, and hidden files are not read",
        )
        raise InputError(Problem("E-FILE-003", what, action=action, files=(str(path),)))

    def series(self, path: Path, rules: SeriesRules) -> dict[str, Series]:
        """Return the CT series of a folder, or of the folder of a file, by name; the last ones are kept."""
        inside = path if path.is_dir() else path.parent
        if self._last[0] != (inside, rules):
            slices = Slices()
            for place in range(bisect_left(self._order, inside), len(self._order)):
                folder = self._order[place]
                if not folder.is_relative_to(inside):
                    break  # paths sort by their parts: what lies in a folder follows it
                slices.add_folder(str(folder), self._whole(folder))
            self._last = (inside, rules), {one.name: one for one in all_series(slices, rules)[0]}
        return self._last[1]

    def _whole(self, folder: Path) -> ScannedFolder:
        """Return a folder with its slices, which are held packed."""
        found = self._folders.get(folder, NOTHING)
        return found._replace(slices=unpack_folder(found.packed).slices)


def manifest_case(
    rows: Sequence[Row],
    tree: Tree,
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
        masks = _masks(rows, tree)
        case = _image_case(first, masks, tree, rules)
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
    if not _lies_in(path, roots):
        action = "Case skipped; move the file, or give a common folder as the archive"
        raise InputError(Problem("E-FILE-004", "file outside the archive", action=action, files=(str(path),)))


def _lies_in(path: Path, roots: tuple[Path, ...]) -> bool:
    """Tell whether a path lies in one of some folders, links followed; one that is a loop lies nowhere."""
    try:
        return any(path.resolve().is_relative_to(root) for root in roots)
    except (OSError, ValueError, RuntimeError):
        return False


def _masks(rows: Sequence[Row], tree: Tree) -> list[tuple[MaskFile, str]]:
    """Return the masks of a case with the digests of their content.

    One line for a mask speaks of all its nodules; several lines name them by label value.
    """
    by_path: dict[Path, list[Row]] = defaultdict(list)
    for row in rows:
        if row.mask is not None:
            by_path[row.mask].append(row)
    masks = []
    for path, lines in by_path.items():
        keys = [0] if len(lines) == 1 else _label_values(lines)
        names = {key: row.nodule_id for key, row in zip(keys, lines, strict=True) if row.nodule_id}
        labels = {key: row.label for key, row in zip(keys, lines, strict=True) if row.label is not None}
        mask, digest = _mask(path, lines[0].mask_series_uid, tree)
        masks.append((replace(mask, names=names, labels=labels), digest))
    return masks


def _mask(path: Path, uid: str, tree: Tree) -> tuple[MaskFile, str]:
    """Return a mask that a manifest names, and the digest of its content."""
    entry = None if path.is_dir() else tree.entry(path)
    if entry is not None and entry.kind not in ("dicom", "frames"):
        kind = _mask_kind(path, entry)
        regions = mask_head(entry.facts).regions if kind in ("seg", "rtstruct") else ()
        return MaskFile(str(path), kind, regions=regions), mask_digest(path, entry)
    series = tree.series(path, SeriesRules())
    wanted = _wanted(path, uid, series)
    if wanted not in series:
        raise _no_such_series(path, len(series), "mask_series_uid")
    files = series[wanted].files
    content = {file.path: content_digest(Path(file.path)) for file in files}
    return MaskFile(str(path), "series", slices=files), digest_of(sorted(content.values()))


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
            what, measured = "several lines for one mask", f"a nodule_id that is none in line {row.line}"
            expected = "the label value of the nodule, a whole number above 0, each once"
            told = (str(row.mask), f"nodule_id {row.nodule_id[:20]!r}")  # a name, so for the terminal alone
            raise InputError(Problem("E-CSV-003", what, measured, expected, "Case skipped", told))
        values.append(value)
    return values


def _image_case(
    row: Row,
    masks: Sequence[tuple[MaskFile, str]],
    tree: Tree,
    rules: SeriesRules,
) -> Case:
    """Return the case of a row's image: a volume file, or a DICOM series in a folder."""
    if row.image.is_file() and volume_suffix(row.image.name):
        entry = tree.entry(row.image)
        return volume_case(row.case_id, row.patient_id, row.image, entry, masks)
    series = tree.series(row.image, rules)
    wanted = _wanted(row.image, row.series_uid, series)
    if not wanted and row.case_id in series:
        wanted = row.case_id
    if wanted not in series:
        raise _no_such_series(row.image, len(series), "series_uid")
    if any(mask.slices == series[wanted].files for mask, _ in masks):
        what, action = "the mask is the scan itself", "Case skipped"
        raise InputError(Problem("E-MASK-003", what, action=action, files=(str(row.image),)))
    own = [(mask, digest) for mask, digest in masks if mask.kind not in ("labels", "series")]
    case = series_case(series[wanted], own, rules)
    if case.problem is not None:
        raise InputError(case.problem)
    others = [digest for mask, digest in masks if mask.kind in ("labels", "series")]
    return _with(case, digest=digest_of([case.digest, *others]))


def _wanted(path: Path, uid: str, series: Mapping[str, Series]) -> str:
    """Return the name of the series that a manifest means: by UID, by one of its files, or the only one."""
    if path.is_file() and not uid:
        uid = next((name for name, one in series.items() if str(path) in {f.path for f in one.files}), "")
    return uid if uid or len(series) != 1 else next(iter(series))


def _no_such_series(path: Path, count: int, column: str) -> InputError:
    measured = f"{count} CT series" + (", none of them named" if count else "")
    action = f"Case skipped; name one in the column {column}" if count else "Case skipped"
    return InputError(Problem("E-CSV-003", "no such series", measured, "one", action, (str(path),)))

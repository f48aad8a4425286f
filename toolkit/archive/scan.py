"""One folder of an archive: what each file is, read once and remembered by size and mtime."""

import os
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

from toolkit.archive.dicom_fields import SliceHeader
from toolkit.archive.dicom_general import pydicom_header
from toolkit.archive.dicom_header import damaged_slice, probe_header
from toolkit.archive.entries import FileEntry, ScannedFolder, packed, shared, unpack_folder
from toolkit.archive.mask_object import KINDS, MaskHead, read_head
from toolkit.archive.multi_frame import expand, is_multi_frame
from toolkit.archive.names import DICOM_SUFFIXES, is_mask_name, volume_suffix
from toolkit.archive.region_rule import NamedRegion
from toolkit.errors import InputError, Problem

Listed = tuple[str, list[os.DirEntry[str]]]


def walk(root: Path, refused: list[Problem]) -> Iterator[Listed]:
    """Yield the folders of an archive in a fixed order, each with what else lies in it.

    What is not followed is added to `refused`.
    """
    waiting = [str(root)]
    while waiting:
        folder = waiting.pop()
        try:
            inner, files = _listed(folder)
        except OSError as error:
            reason = error.strerror or ""
            refused.append(Problem("E-FILE-005", "folder cannot be read", reason, files=(folder,)))
            continue
        linked = [entry.path for entry in inner if entry.is_symlink()]
        refused += [Problem("E-FILE-004", "link to a folder not followed", files=(p,)) for p in linked]
        waiting += [entry.path for entry in reversed(inner) if not entry.is_symlink()]
        yield folder, files


def list_files(folder: str) -> Listed:
    """Return a folder with what lies in it and is no folder."""
    return folder, _listed(folder)[1]


def _listed(folder: str) -> tuple[list[os.DirEntry[str]], list[os.DirEntry[str]]]:
    """Return the folders in a folder, and what else is in it, by name and but for what is hidden."""
    inner: list[os.DirEntry[str]] = []
    files: list[os.DirEntry[str]] = []
    with os.scandir(folder) as listing:
        for entry in sorted(listing, key=attrgetter("name")):
            if not entry.name.startswith("."):
                (inner if _is_folder(entry) else files).append(entry)
    return inner, files


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


class FolderTask(NamedTuple):
    """A folder to be scanned, what the index keeps of it, and the folders that links may lead into."""

    folder: str
    known: bytes = b""
    roots: tuple[Path, ...] = ()


def recall_folder(task: FolderTask, files: Iterable[os.DirEntry[str]]) -> ScannedFolder | None:
    """Return what the index keeps of a folder, if it holds of every file there; none is opened."""
    try:
        known = unpack_folder(task.known)
    except ValueError:
        return None
    try:
        return known if _holds(known, files, task.roots) else None
    except OSError:  # a file that was there a moment ago
        return None


def _holds(known: ScannedFolder, files: Iterable[os.DirEntry[str]], roots: Iterable[Path]) -> bool:
    others = {entry.name: entry for entry in known.entries}
    slices: list[tuple[str, int, int]] = []
    for file in files:
        if not _is_file(file):
            continue
        if file.name not in others:
            if file.is_symlink():
                return False
            state = file.stat()
            slices.append((file.name, state.st_size, state.st_mtime_ns))
        elif not _unchanged(others.pop(file.name), file, roots):
            return False
    return not others and slices == list(zip(*known.slices[:3], strict=True))


def scan_folder(task: FolderTask) -> list[FileEntry]:
    """Say what each file of a folder is, reading only those that are not known unchanged; by name."""
    before = _entries(task.known)
    entries: list[FileEntry] = []
    last: SliceHeader | None = None  # of the slice before
    for file in list_files(task.folder)[1]:
        if not _is_file(file):
            continue
        entry = before.get(file.name)
        if entry is None or not _unchanged(entry, file, task.roots):
            entry = _read(file, task.roots)
        if entry.kind == "dicom":
            last = shared(entry.facts, last)
            entry = entry._replace(facts=last)
        entries.append(entry)
    return entries


def _entries(known: bytes) -> dict[str, FileEntry]:
    """Return by name what the index keeps of the files of a folder."""
    try:
        entries, table, _ = unpack_folder(known)
    except ValueError:
        return {}
    slices = zip(*table[:3], table.headers(), strict=True)
    found = (FileEntry(name, size, time, "dicom", header) for name, size, time, header in slices)
    return {entry.name: entry for entry in (*entries, *found)}


def _is_file(file: os.DirEntry[str]) -> bool:
    return Path(file.path).is_file() if file.is_symlink() else file.is_file()


def _read(file: os.DirEntry[str], roots: Iterable[Path]) -> FileEntry:
    """Return what a file is; one that a link leads to is read if it lies in one of the roots."""
    state, target = file.stat(), _target(file)
    kind, facts = ("outside", None) if _is_outside(target, roots) else _identify(Path(file.path))
    if target:
        kind, facts = "link", [target, kind, facts]
    return FileEntry(file.name, state.st_size, state.st_mtime_ns, kind, facts)


def _target(file: os.DirEntry[str]) -> str:
    return os.path.realpath(file.path) if file.is_symlink() else ""


def _is_outside(target: str, roots: Iterable[Path]) -> bool:
    return bool(target) and not any(Path(target).is_relative_to(root) for root in roots)


def _unchanged(old: FileEntry, file: os.DirEntry[str], roots: Iterable[Path]) -> bool:
    """Tell whether what is known of a file still holds."""
    kind, facts, target = old.kind, old.facts, _target(file)
    if kind == "link":
        found, kind, facts = facts
        if found != target or (kind == "outside") != _is_outside(target, roots):
            return False
    elif target:
        return False
    if kind == "broken" and problem(facts[1]).transient:
        return False
    if kind == "bad" and (problem(facts).transient or volume_suffix(old.name)):
        return False  # the cause may lie in another file, or in the system
    if kind == "volume" and facts.get("data_state") != _data_state(facts["stored"]["path"], old.name):
        return False
    state = file.stat()
    return (old.size, old.mtime_ns) == (state.st_size, state.st_mtime_ns)


def _data_state(data_path: str, name: str) -> list[int] | None:
    """Return size and time of a data file beside its header; None where one file holds both."""
    if Path(data_path).name == name:
        return None
    try:
        state = Path(data_path).stat()
    except OSError:
        return []
    return [state.st_size, state.st_mtime_ns]


def _identify(path: Path) -> tuple[str, Any]:
    """Return kind and facts of a file; whatever cannot be trusted becomes ``bad`` with its problem."""
    from toolkit.archive.lidc_head import sniff_lidc
    from toolkit.archive.luna16 import read_luna16, sniff_luna16
    from toolkit.archive.volume import open_header

    name = path.name.lower()
    try:
        if volume_suffix(name):
            facts = open_header(str(path)).to_json()
            facts["data_state"] = _data_state(facts["stored"]["path"], path.name)
            return "volume", {**facts, "content": mask_content(path, facts) if is_mask_name(path) else ""}
        if name.endswith(".csv"):
            table = sniff_luna16(path)
            return (table, read_luna16(path, table)) if table else ("other", None)
        if name.endswith(".xml"):
            series_uid = sniff_lidc(path)
            return ("lidc", [series_uid, content_digest(path)]) if series_uid else ("other", None)
        header = probe_header(path)
        if header is None and name.endswith(DICOM_SUFFIXES):
            header = pydicom_header(path)
        if header is not None and is_multi_frame(header):
            return "frames", packed(expand(path, header))
        if header is not None:
            kind = KINDS.get(header.sop_class)
            return ("dicom", header) if kind is None else _mask_object(path, kind)
    except InputError as error:
        return _unreadable(path, error.problem)
    except OSError as error:
        problem = Problem(
            "E-FILE-005", "file cannot be read", error.strerror or "", files=(str(path),), transient=True
        )
        return _unreadable(path, problem)
    except MemoryError:
        what, action = "file needs more memory than a worker may take", "--worker-memory GiB grants more"
        return _unreadable(path, Problem("E-CASE-006", what, "", "", action, (str(path),), transient=True))
    return "other", None


def _mask_object(path: Path, kind: Literal["seg", "rtstruct"]) -> tuple[str, Any]:
    """Return kind and facts of a DICOM mask object; a damaged one is no slice of a series."""
    try:
        return kind, [*read_head(kind, str(path)), content_digest(path)]
    except InputError as error:
        return "bad", list(vars(error.problem).values())


def _unreadable(path: Path, problem: Problem) -> tuple[str, Any]:
    """Return ``broken`` for a file that may be a slice of a series, ``bad`` for any other."""
    facts = list(vars(problem).values())
    if volume_suffix(path.name) or path.name.lower().endswith((".xml", ".csv")):
        return "bad", facts
    claim = damaged_slice(path)
    return ("bad", facts) if claim is None else ("broken", [claim, facts])


def broken(facts: Any) -> tuple[str, Problem]:
    """Return the series that a damaged file names, if it says so, and what is wrong with it."""
    return facts[0], problem(facts[1])


def mask_content(path: Path, facts: Mapping[str, Any]) -> str:
    """Return the digest of all bytes of a mask, those of a data file beside its header included."""
    digest = content_digest(path)
    return digest if facts["data_state"] is None else digest + content_digest(Path(facts["stored"]["path"]))


def content_digest(path: Path) -> str:
    """Return the hex digest of a whole file."""
    digest = blake2b(digest_size=16)
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def mask_head(facts: Any) -> MaskHead:
    """Rebuild what `scan_folder` stored of a DICOM mask object."""
    series_uids, sop_uids, regions, _ = facts
    return MaskHead(tuple(series_uids), tuple(sop_uids), tuple(NamedRegion(*region) for region in regions))


def problem(facts: Any) -> Problem:
    """Rebuild the problem that `scan_folder` stored."""
    code, what, measured, expected, action, files, transient = facts
    return Problem(code, what, measured, expected, action, tuple(files), transient)

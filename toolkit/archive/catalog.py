"""The way in: an archive, with or without a manifest, as cases."""

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from toolkit.archive.case import Case, opened
from toolkit.archive.cases import digest_of, series_uid
from toolkit.archive.dicom_series import DicomSeries, SeriesFiles, SeriesRules
from toolkit.archive.discover import Discovery, discover
from toolkit.archive.entries import ScannedFolder, pack_folder, unpack_folder
from toolkit.archive.index_cache import IndexCache
from toolkit.archive.labels import NAME, LabelTable, read_labels
from toolkit.archive.manifest import read_manifest
from toolkit.archive.named import Tree, folders_of, manifest_case
from toolkit.archive.packed import PackedSlices
from toolkit.archive.scan import FolderTask, Listed, list_files, recall_folder, scan_folder, walk
from toolkit.errors import NothingFoundError, Problem, UsageError

Scanned = tuple[str, bytes]
Scan = Callable[[Iterable[FolderTask]], Iterable[Scanned]]


def scan_new_folder(task: FolderTask) -> Scanned:
    """Scan one folder that the index does not hold, or not as it is now; a worker's task."""
    return task.folder, pack_folder(scan_folder(task))


def scan_here(tasks: Iterable[FolderTask]) -> Iterable[Scanned]:
    """Scan folders one after another in this process."""
    return map(scan_new_folder, tasks)


def catalog(
    root: Path,
    manifest: Path | None,
    rules: SeriesRules,
    cache: IndexCache,
    scan: Scan = scan_here,
    *,
    labels: Path | None = None,
    series_uids: Sequence[str] = (),
    open_cases: bool = True,
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
    labels
        A table of labels, joined on case, nodule or position; see `default_labels`.
    series_uids
        DICOM series to keep, and nothing else; all where it is empty.
    open_cases
        Whether to judge each scan here; otherwise whoever uses a case calls `opened`.

    Raises
    ------
    UsageError
        The archive is no folder, manifest or labels are wrong, or a named series is not there.
    NothingFoundError
        There is neither a case nor a refused file.
    """
    if not root.is_dir():
        raise UsageError(Problem("E-FILE-001", "archive is no folder", files=(str(root),)))
    with _no_collection():
        table = read_labels(labels) if labels is not None else None
        found = _found(root, manifest, rules, cache, scan)
        if table is not None:
            found = _labelled(found, table)
    if not found.cases and not found.refused:
        action = "Nothing done; `toolkit index` shows what an archive holds"
        raise NothingFoundError(Problem("E-CASE-004", "no case found", action=action, files=(str(root),)))
    if series_uids:
        found = Discovery(_chosen(found.cases, series_uids))
    if open_cases:
        found = replace(found, cases=tuple(map(_opened, found.cases)))
    return found


def _found(root: Path, manifest: Path | None, rules: SeriesRules, cache: IndexCache, scan: Scan) -> Discovery:
    refused: list[Problem] = []
    if manifest is not None:
        rows = read_manifest(manifest)
        roots = (root.resolve(), manifest.resolve().parent)
        listed = _listed(folders_of(rows, roots), refused)
        tree = Tree(_followed(_scanned(listed, roots, cache, scan), refused))
        cases = [manifest_case(found, tree, roots, rules) for found in rows.values()]
        return Discovery(tuple(sorted(cases, key=lambda case: case.case_id)), _by_file(refused))
    folders = _followed(_scanned(walk(root, refused), (root.resolve(),), cache, scan), refused)
    found = discover(root, folders, rules)
    return Discovery(found.cases, _by_file((*refused, *found.refused)), found.ignored)


def _by_file(refused: Iterable[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(refused, key=lambda problem: problem.files))


def _opened(case: Case) -> Case:
    """Return a case with its scan judged, its slices packed again."""
    case = opened(case)
    if isinstance(case.source, DicomSeries):
        return replace(case, source=replace(case.source, files=PackedSlices(case.source.files)))
    return case


def _chosen(cases: Iterable[Case], series_uids: Sequence[str]) -> tuple[Case, ...]:
    """Return the cases of the named series, or of the named parts of one that was split."""
    kept, seen = [], set()
    for case in cases:
        if not isinstance(case.unopened, SeriesFiles):
            continue
        names = {series_uid(case), case.case_id}.intersection(series_uids)
        if names:
            kept.append(case)
            seen |= names
    missing = set(series_uids) - seen
    if missing:
        measured, expected = f"{len(missing)} of {len(set(series_uids))} series not found", "all"
        action = "Nothing done; `toolkit index` lists the series of an archive"
        raise UsageError(Problem("E-CASE-005", "no such series (--series-uid)", measured, expected, action))
    return tuple(kept)


def default_labels(root: Path, manifest: Path | None) -> Path | None:
    """Return the ``labels.csv`` of an archive, if it has one; a manifest has labels of its own."""
    path = root / NAME
    return path if manifest is None and path.is_file() else None


def _labelled(found: Discovery, table: LabelTable) -> Discovery:
    """Give every case the lines of the table that speak of it; lines for nobody are counted."""
    used: set[int] = set()
    cases = []
    for case in found.cases:
        told = table.of(case, series_uid(case))
        used.update(label.line for label in told)
        digest = digest_of([case.digest, *map(str, told)]) if told else case.digest
        cases.append(replace(case, told=told, digest=digest))
    ignored = {
        what: tuple(path for path in paths if Path(path) != Path(table.path))
        for what, paths in found.ignored.items()
    }
    lost = sum(label.line not in used for told in table.lines.values() for label in told)
    if lost:
        ignored[f"labels of absent cases ({lost} lines)"] = (table.path,)
    return replace(found, cases=tuple(cases), ignored={what: p for what, p in ignored.items() if p})


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector from walking through headers, which are many and hold no cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # straight to the oldest generation: not walked through three times
        gc.unfreeze()
        if enabled:
            gc.enable()


def _listed(folders: Iterable[str], refused: list[Problem]) -> Iterator[Listed]:
    """Yield folders with their files; those that cannot be listed are added to `refused`."""
    for folder in folders:
        try:
            yield list_files(folder)
        except OSError as error:
            reason = error.strerror or ""
            refused.append(Problem("E-FILE-005", "folder cannot be read", reason, files=(folder,)))


def _scanned(
    folders: Iterable[Listed], roots: tuple[Path, ...], cache: IndexCache, scan: Scan
) -> Iterator[tuple[str, ScannedFolder]]:
    """Yield every folder with its files: first those that the index knows as they are, then the others."""
    new: list[FolderTask] = []
    for folder, files in folders:
        task = FolderTask(folder, cache.packed("folder", folder) or b"", roots)
        known = recall_folder(task, files)
        if known is None:
            new.append(task)
        else:
            yield folder, known
    for folder, packed in scan(new):
        cache.put_packed("folder", folder, packed)
        yield folder, unpack_folder(packed)
    cache.commit()


def _followed(
    folders: Iterable[tuple[str, ScannedFolder]], refused: list[Problem]
) -> Iterator[tuple[str, ScannedFolder]]:
    """Replace links by what they lead to; those that leave the archive are added to `refused`."""
    for folder, found in folders:
        entries = []
        for entry in found.entries:
            if entry.kind == "link":
                _, kind, facts = entry.facts
                if kind == "outside":
                    what, path = "link to a file outside the archive not followed", Path(folder, entry.name)
                    refused.append(Problem("E-FILE-004", what, files=(str(path),)))
                    continue
                entry = entry._replace(kind=kind, facts=facts)
            entries.append(entry)
        yield folder, found._replace(entries=entries)

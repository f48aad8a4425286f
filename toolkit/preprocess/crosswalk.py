"""The way back from hashes to identifiers: a private file beside the store, never in it."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from toolkit.archive.case import Case
from toolkit.preprocess.identity import IdKey
from toolkit.store.files import write_atomic

HEADER = ("kind", "hash", "identifier", "image")


def crosswalk_path(store: Path) -> Path:
    """Return where a store's crosswalk lies: beside its folder."""
    store = store.resolve()
    return store.with_name(f"{store.name}.crosswalk.csv")


def write_crosswalk(store: Path, cases: Iterable[Case], id_key: IdKey) -> None:
    """Write which hash is whom (mode 0600), and keep what earlier runs wrote of others.

    A line whose hash is not that of its identifier was damaged, and is left out.
    """
    path = crosswalk_path(store)
    rows: dict[tuple[str, str], Sequence[str]] = {}
    for case in cases:
        found = [("case", case.case_id, case.image), ("patient", case.patient_id, "")]
        names = [name for mask in case.masks for name in mask.names.values()] + [p.name for p in case.points]
        found += [("nodule", name, "") for name in names if name]
        for kind, identifier, image in found:
            name = id_key.hash(kind, identifier)
            rows[kind, name] = (kind, name, identifier, image)
    for row in _rows(path):
        if len(row) == len(HEADER) and (row[0], row[1]) not in rows and _is_whole(row, id_key):
            rows[row[0], row[1]] = row
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HEADER, *rows.values()])
    write_atomic(path, text.getvalue().encode(errors="surrogateescape"), 0o600)


def _is_whole(row: Sequence[str], id_key: IdKey) -> bool:
    try:
        return row[1] == id_key.hash(row[0], row[2])
    except UnicodeEncodeError:  # bytes that were never written as text
        return False


def _rows(path: Path) -> Iterator[list[str]]:
    """Yield the lines of an earlier run, down to one that is no line of a table."""
    if path.exists():
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file, suppress(csv.Error):
            yield from csv.reader(file)


def read_crosswalk(store: Path) -> dict[tuple[str, str], tuple[str, str]]:
    """Return (kind, hash) to (identifier, image) of a store; raises `FileNotFoundError`."""
    with crosswalk_path(store).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.reader(file))[1:]
    return {(kind, name): (identifier, image) for kind, name, identifier, image in rows}

"""The ledger: what became of each case of a shard. A shard is committed when its ledger exists."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import StoreError
from toolkit.store.believed import check_entry
from toolkit.store.files import linked, write_atomic
from toolkit.store.format import (
    CSV_COLUMNS,
    IMAGE_TYPE,
    MASK_TYPE,
    Nodule,
    array_bytes,
    csv_line,
    damaged,
    images_path,
    ledger_path,
    masks_path,
    nodule_from_json,
    unseal_lines,
)


@dataclass(frozen=True)
class Entry:
    """One line of a ledger.

    Attributes
    ----------
    case_id, patient_id
        Keyed hashes.
    key
        Digest of header bytes, file sizes, resolved config and stage version.
    status
        ``done``, ``empty`` (a readable scan without nodules) or ``refused``.
    code, message
        Why it was refused; no file names.
    transient
        True where a rerun may succeed with the same files.
    nodules
        One mapping a nodule: the fields of `Nodule`, ``row`` in the shard, digests ``image`` and
        ``mask`` of the crop and ``pixels`` of the source voxels that were used.
    facts
        Notes and what was measured on the scan.
    """

    case_id: str
    patient_id: str
    key: str
    status: str
    code: str = ""
    message: str = ""
    transient: bool = False
    nodules: tuple[Mapping[str, Any], ...] = ()
    facts: Mapping[str, Any] | None = None


def read_ledger(store: Path, shard: str) -> list[Entry]:
    """Read a shard's ledger; raises `StoreError` E-STORE-003 where it is damaged, E-STORE-008 on a link."""
    path = ledger_path(store, shard)
    if path.is_symlink():
        raise linked(path)
    return [_entry(value, path) for value in unseal_lines(path)]


def _entry(value: Mapping[str, Any], path: Path) -> Entry:
    """Return a line of a ledger as what it says; raises as `read_ledger` does."""
    check_entry(value, path)
    try:
        return Entry(**{**value, "nodules": tuple(value["nodules"])})
    except TypeError as error:
        raise damaged(path, "a line with a field that is missing or unknown") from error


def committed(store: Path) -> list[str]:
    """Return the names of all committed shards, in order."""
    names = (path.stem for path in (store / "ledger").glob("*.jsonl"))
    return sorted(names, key=lambda name: (len(name), name))  # from shard 100,000 on names are longer


def nodules_of(entries: Sequence[Entry]) -> Iterator[Nodule]:
    """Yield the nodules of a ledger in the order of their rows."""
    for entry in entries:
        for value in entry.nodules:
            yield nodule_from_json(value)


def is_complete(store: Path, shard: str, keys: Sequence[tuple[str, str]], side: int) -> bool:
    """Tell whether a shard is committed with exactly these (case_id, key), nothing left to retry.

    A damaged ledger counts as none; the sizes of images and masks are looked at, not their bytes
    (that is `verify`).
    """
    try:
        entries = read_ledger(store, shard)
    except (FileNotFoundError, StoreError):
        return False
    return holds(store, shard, entries, keys, side)


def holds(
    store: Path, shard: str, entries: Sequence[Entry], keys: Sequence[tuple[str, str]], side: int
) -> bool:
    """Tell the same of a ledger that has been read."""
    if [(entry.case_id, entry.key) for entry in entries] != list(keys) or any(e.transient for e in entries):
        return False
    rows = sum(len(entry.nodules) for entry in entries)
    try:
        return not rows or all(
            path.stat().st_size == array_bytes(dtype, rows, side)
            for path, dtype in (
                (images_path(store, shard), IMAGE_TYPE),
                (masks_path(store, shard), MASK_TYPE),
            )
        )
    except FileNotFoundError:
        return False


class NodulesCsv:
    """The text of ``nodules.csv``, to which one shard is added after another."""

    def __init__(self) -> None:
        self.shards: list[str] = []
        self._text = io.StringIO()
        self._table = csv.writer(self._text, lineterminator="\n")
        self._table.writerow(CSV_COLUMNS)
        self._count = 0

    def add(self, shard: str, entries: Sequence[Entry]) -> None:
        """Add the nodules of a shard."""
        nodules = [nodule for entry in entries for nodule in entry.nodules]
        first = self._count
        self._table.writerows(csv_line(first + row, nodule, shard, row) for row, nodule in enumerate(nodules))
        self._count += len(nodules)
        self.shards.append(shard)

    def content(self) -> bytes:
        """Return the file's bytes."""
        return self._text.getvalue().encode()


def write_csv(store: Path, known: NodulesCsv | None = None) -> None:
    """Write ``nodules.csv`` anew from the union of all ledgers; `known` may have read just these already."""
    while True:
        shards = committed(store)
        content = known.content() if known and known.shards == shards else render_csv(store, shards)
        write_atomic(store / "nodules.csv", content)
        if committed(store) == shards:  # no other process has committed meanwhile
            return


def render_csv(store: Path, shards: Sequence[str]) -> bytes:
    """Return the text of ``nodules.csv`` for some shards."""
    table = NodulesCsv()
    for shard in shards:
        table.add(shard, read_ledger(store, shard))
    return table.content()

"""Writing a store: one writer a shard, images and masks first, the ledger last."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import Problem, StoreError
from toolkit.store.believed import check_settings
from toolkit.store.crops import CropFiles
from toolkit.store.files import TEMPORARY, disk_errors, linked, make_folder, sync_folder, write_atomic
from toolkit.store.format import (
    FORMAT_VERSION,
    Nodule,
    canonical_json,
    digest,
    ledger_path,
    nodule_json,
    sealed,
    sealed_lines,
    unseal,
)
from toolkit.store.ledger import Entry

OWN = ("store.json", "plan.jsonl", "nodules.csv", "shards", "ledger", "log")


class ShardWriter:
    """Writes the cases of one shard in order; nothing is seen before `commit`.

    Use as a context manager: leaving it without `commit` drops the temporary files.
    """

    def __init__(self, store: Path, shard: str, side: int, crops: CropFiles | None = None) -> None:
        self._store, self._shard = store, shard
        self._crops = CropFiles(store, shard, side) if crops is None else crops
        self._rows = 0
        self._lines: list[dict[str, Any]] = []
        with disk_errors():
            make_folder(store / "ledger")

    def append(
        self, entry: Entry, nodules: Sequence[Nodule], images: NDArray[np.int16], masks: NDArray[np.uint8]
    ) -> None:
        """Add a case: `images` int16 and `masks` uint8 (n, s, s, s), one for each of its nodules.

        Digests of the crops that `entry` brings from where they were made are written as they are.
        """
        if len(images) != len(nodules):
            raise ValueError(f"{len(images)} crops of {len(nodules)} nodules")
        self._crops.append(images, masks)
        digests = entry.nodules or tuple(
            {"image": digest(image), "mask": digest(mask)} for image, mask in zip(images, masks, strict=True)
        )
        self.note(replace(entry, nodules=digests), nodules)

    def note(self, entry: Entry, nodules: Sequence[Nodule]) -> None:
        """Add a case whose crops lie in the files already; `entry` brings their digests."""
        values = [
            {**nodule_json(nodule), **digests, "row": self._rows + row}
            for row, (nodule, digests) in enumerate(zip(nodules, entry.nodules, strict=True))
        ]
        self._rows += len(nodules)
        self._lines.append({**asdict(entry), "nodules": values, "facts": entry.facts or {}})

    def commit(self) -> None:
        """Publish images, masks and ledger, in this order."""
        if self._rows != self._crops.rows:
            raise ValueError(f"{self._crops.rows} crops of {self._rows} nodules")
        ledger = ledger_path(self._store, self._shard)
        with disk_errors():
            if ledger.exists():  # an old ledger must never describe new crops
                ledger.unlink()
                sync_folder(ledger.parent)
            self._crops.publish()
            write_atomic(ledger, sealed_lines(self._lines))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._crops.__exit__(kind, error, trace)


def sync_committed(store: Path) -> None:
    """Make durable what an earlier run committed: it may have ended before its last name was on disk."""
    with disk_errors():
        for folder in (store / "shards", store / "ledger"):
            if folder.is_dir():
                sync_folder(folder)


def write_settings(store: Path, settings: Mapping[str, Any], *, dry_run: bool = False) -> None:
    """Write ``store.json``, or check that an existing one holds the same settings.

    Raises `StoreError` E-STORE-002 naming every setting that differs, E-STORE-007 for another id key,
    E-STORE-001 where the folder holds something else.
    """
    value = {"format": FORMAT_VERSION, **settings}
    value["config_digest"] = digest(canonical_json(value))
    path = store / "store.json"
    # looked at before store.json, which another process may be writing, first of all its files
    filled = store.exists() and (not store.is_dir() or any(e.suffix != TEMPORARY for e in store.iterdir()))
    if path.exists():
        _check_same(store, value)
        return
    if filled:
        action = "Nothing written; name a new or empty folder"
        raise StoreError(Problem("E-STORE-001", "folder is not a store", action=action, files=(str(store),)))
    if not dry_run:
        write_atomic(path, sealed(value))


def _check_same(store: Path, value: Mapping[str, Any]) -> None:
    """Refuse to mix settings, or ids of two keys, in one store."""
    old = read_settings(store)
    changed = [name for name in sorted({*old, *value}) if old.get(name) != value.get(name)]
    changed = [name for name in changed if name != "config_digest"]
    if changed == ["ids"]:
        action = "Nothing written; give the same --id-key, or name another store"
        raise StoreError(Problem("E-STORE-007", "store has another id key", "", "", action, (str(store),)))
    if changed:
        pairs = "; ".join(f"{name} {old.get(name)!r} there, {value.get(name)!r} asked" for name in changed)
        action = "Nothing written; name another store for other settings"
        raise StoreError(Problem("E-STORE-002", "store has other settings", pairs, "", action, (str(store),)))


def read_settings(store: Path) -> dict[str, Any]:
    """Read ``store.json``.

    Raises `StoreError` E-STORE-001 where there is none, E-STORE-003 where it is damaged, E-STORE-008 where a
    file or folder of the store is a link, through which others would be read or overwritten.
    """
    path = store / "store.json"
    for name in OWN:
        if (store / name).is_symlink():
            raise linked(store / name)
    try:
        value = unseal(path.read_bytes(), path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreError(Problem("E-STORE-001", "no nodule store here", files=(str(store),))) from error
    if value.get("format") != FORMAT_VERSION:
        measured, expected = f"format {value.get('format')}", f"format {FORMAT_VERSION}"
        raise StoreError(
            Problem("E-STORE-001", "store of another format", measured, expected, files=(str(store),))
        )
    check_settings(value, path)
    return value

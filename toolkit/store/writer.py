"""Writing a store: one writer a shard, images and masks first, the ledger last."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import Problem, StoreError
from toolkit.store.believed import check_settings
from toolkit.store.files import (
    TEMPORARY,
    disk_errors,
    drop,
    open_temporary,
    publish,
    sync_folder,
    write_atomic,
)
from toolkit.store.format import (
    FORMAT_VERSION,
    IMAGE_TYPE,
    MASK_TYPE,
    Nodule,
    array_header,
    canonical_json,
    digest,
    images_path,
    ledger_path,
    masks_path,
    nodule_json,
    sealed,
    sealed_lines,
    unseal,
)
from toolkit.store.ledger import Entry


class ShardWriter:
    """Writes the cases of one shard in order; nothing is seen before `commit`.

    Use as a context manager: leaving it without `commit` drops the temporary files.
    """

    def __init__(self, store: Path, shard: str, side: int) -> None:
        self._store, self._shard, self._side = store, shard, side
        self._rows = 0
        self._lines: list[dict[str, Any]] = []
        with disk_errors():
            for folder in ("shards", "ledger"):
                (store / folder).mkdir(parents=True, exist_ok=True)
            self._images = open_temporary(images_path(store, shard))
            self._masks = open_temporary(masks_path(store, shard))
            self._images.write(array_header(IMAGE_TYPE, 0, side))
            self._masks.write(array_header(MASK_TYPE, 0, side))

    def append(
        self, entry: Entry, nodules: Sequence[Nodule], images: NDArray[np.int16], masks: NDArray[np.uint8]
    ) -> None:
        """Add a case: `images` int16 and `masks` uint8 (n, s, s, s), one for each of its nodules.

        Digests of the crops that `entry` brings from where they were made are written as they are.
        """
        shape = (len(nodules), *(self._side,) * 3)
        if (
            images.shape != shape
            or masks.shape != shape
            or images.dtype != np.int16
            or masks.dtype != np.uint8
        ):
            raise ValueError(f"crops must be int16 and uint8 {shape}, got {images.dtype} {images.shape}")
        values = []
        for row, nodule in enumerate(nodules):
            more = entry.nodules[row] if entry.nodules else {}
            crop = {} if "image" in more else {"image": digest(images[row]), "mask": digest(masks[row])}
            values.append({**nodule_json(nodule), **more, **crop, "row": self._rows + row})
        with disk_errors():
            self._images.write(np.ascontiguousarray(images, IMAGE_TYPE).data)
            self._masks.write(np.ascontiguousarray(masks, MASK_TYPE).data)
        self._rows += len(nodules)
        self._lines.append({**asdict(entry), "nodules": values, "facts": entry.facts or {}})

    def commit(self) -> None:
        """Publish images, masks and ledger, in this order."""
        ledger = ledger_path(self._store, self._shard)
        with disk_errors():
            if ledger.exists():  # an old ledger must never describe new crops
                ledger.unlink()
                sync_folder(ledger.parent)
            for file, path, dtype in (
                (self._images, images_path(self._store, self._shard), IMAGE_TYPE),
                (self._masks, masks_path(self._store, self._shard), MASK_TYPE),
            ):
                if self._rows:
                    _rewrite_head(file, array_header(dtype, self._rows, self._side))
                    publish(file, path)
                else:
                    path.unlink(missing_ok=True)
                    drop(file)
            write_atomic(ledger, sealed_lines(self._lines))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (self._images, self._masks):
            if not file.closed:
                drop(file)


def _rewrite_head(file: Any, header: bytes) -> None:
    """Write the final header over the first one; the file was opened for appending."""
    file.flush()
    descriptor = os.open(file.name, os.O_WRONLY)
    try:
        os.pwrite(descriptor, header, 0)
    finally:
        os.close(descriptor)


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
    """Read ``store.json``; raises `StoreError` E-STORE-001 where there is none, E-STORE-003 where damaged."""
    path = store / "store.json"
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

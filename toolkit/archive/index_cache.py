"""What was read of an archive, kept in the user's cache folder: headers by folder, masks by content.

The cache only saves time. It holds identifiers (folder paths, patient ids), so folder and file are private
to the user; it is never part of a store.
"""

import contextlib
import json
import os
import sqlite3
import zlib
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

SCHEMA = 5
WAITING_BYTES = 4 << 20
"""What is kept back at most: the headers of some 20,000 slices, which a killed run would read again."""


def default_folder() -> Path:
    """Return the folder in which the index lies unless ``--index-cache`` names another."""
    return Path(user_cache_path("toolkit")) / "index"


DAMAGED = (sqlite3.DatabaseError, UnicodeDecodeError)  # the latter where SQLite's message quotes the damage


class IndexCache:
    """A table of JSON values by (kind, key). A damaged file is replaced, an unwritable one ignored."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._connection = _connect(folder)
        self._waiting: dict[tuple[str, str], bytes] = {}
        self._waiting_bytes = 0

    def get(self, kind: str, key: str) -> Any:
        """Return the value, or None where there is none that can be read."""
        packed = self.packed(kind, key)
        try:
            return None if packed is None else json.loads(zlib.decompress(packed))
        except (zlib.error, ValueError, TypeError):  # read anew, and replaced by `commit`
            return None

    def packed(self, kind: str, key: str) -> bytes | None:
        """Return a value as it lies there, for whoever packed it."""
        place = kind, _text(key)
        if place in self._waiting:
            return self._waiting[place]
        try:
            question = "SELECT value FROM entry WHERE kind = ? AND key = ?"
            row = self._connection.execute(question, place).fetchone()
        except DAMAGED:
            return None
        return row[0] if row and isinstance(row[0], bytes) else None

    def put(self, kind: str, key: str, value: Any) -> None:
        """Keep a value; it is on disk after `commit`, or once so much waits that memory would fill up.

        No other process is locked out in between.
        """
        self.put_packed(kind, key, zlib.compress(json.dumps(value).encode(), 1))

    def put_packed(self, kind: str, key: str, packed: bytes) -> None:
        """Keep a value that is packed already; as `put`."""
        self._waiting[kind, _text(key)] = packed
        self._waiting_bytes += len(packed)
        if self._waiting_bytes > WAITING_BYTES:
            self.commit()

    def commit(self) -> None:
        """Write what was put."""
        try:
            self._write()
        except sqlite3.OperationalError:  # a full or read-only disk costs the next run some time, no more
            pass
        except DAMAGED:
            self._connection.close()
            _remove(self._folder)
            self._connection = _connect(self._folder)
            with contextlib.suppress(*DAMAGED):
                self._write()
        self._waiting.clear()
        self._waiting_bytes = 0

    def _write(self) -> None:
        rows = [(*place, blob) for place, blob in self._waiting.items()]
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO entry VALUES (?, ?, ?)", rows)

    def close(self) -> None:
        """Write what was put and close the file."""
        self.commit()
        self._connection.close()


def _text(key: str) -> str:
    """Return a key that SQLite takes: a folder's name need not be UTF-8."""
    return key.encode(errors="backslashreplace").decode()


def _file(folder: Path) -> Path:
    return folder / f"index-{SCHEMA}.sqlite"


def _remove(folder: Path | None) -> None:
    if folder is not None:
        for path in (_file(folder), _file(folder).with_suffix(".sqlite-journal")):
            with contextlib.suppress(OSError):
                path.unlink()


def _connect(folder: Path | None) -> sqlite3.Connection:
    """Open the file; in memory where there is none or none can be had."""
    if folder is None:
        return _prepare(sqlite3.connect(":memory:"))
    for _ in range(2):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_private(_file(folder))
            connection = sqlite3.connect(_file(folder), timeout=60)
        except (OSError, sqlite3.OperationalError):
            break
        try:
            return _prepare(connection)
        except sqlite3.OperationalError:
            connection.close()
            break
        except DAMAGED:
            connection.close()
            _remove(folder)
    return _prepare(sqlite3.connect(":memory:"))


def _make_private(path: Path) -> None:
    """Make a file that its user alone can read, where SQLite would follow the umask; or make it so."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _prepare(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS entry "
        "(kind TEXT, key TEXT, value BLOB, PRIMARY KEY (kind, key)) WITHOUT ROWID"
    )
    return connection

"""What was read of an archive, kept in the user's cache folder: headers by folder, masks by content.

The cache only saves time. It holds identifiers (folder paths, patient ids), so its folder is private
to the user; it is never part of a store.
"""

import json
import sqlite3
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

SCHEMA = 1


def default_folder() -> Path:
    """Return the folder in which the index lies unless ``--index-cache`` names another."""
    return Path(user_cache_path("toolkit")) / "index"


class IndexCache:
    """A table of JSON values by (kind, key). An unusable file is replaced, an unwritable one ignored."""

    def __init__(self, folder: Path | None) -> None:
        self._connection = _connect(folder)

    def get(self, kind: str, key: str) -> Any:
        """Return the value, or None where there is none."""
        row = self._connection.execute(
            "SELECT value FROM entry WHERE kind = ? AND key = ?", (kind, key)
        ).fetchone()
        return json.loads(zlib.decompress(row[0])) if row else None

    def put(self, kind: str, key: str, value: Any) -> None:
        """Keep a value; it is on disk after `commit`."""
        blob = zlib.compress(json.dumps(value).encode(), 1)
        with suppress(sqlite3.OperationalError):  # as in `commit`
            self._connection.execute("INSERT OR REPLACE INTO entry VALUES (?, ?, ?)", (kind, key, blob))

    def commit(self) -> None:
        """Write what was put."""
        try:
            self._connection.commit()
        except sqlite3.OperationalError:  # a full or read-only disk costs the next run some time, no more
            self._connection.rollback()

    def close(self) -> None:
        """Write what was put and close the file."""
        self.commit()
        self._connection.close()


def _connect(folder: Path | None) -> sqlite3.Connection:
    if folder is None:
        return _prepare(sqlite3.connect(":memory:"))
    path = folder / f"index-{SCHEMA}.sqlite"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _prepare(sqlite3.connect(path, timeout=60))
    except sqlite3.OperationalError:
        return _prepare(sqlite3.connect(":memory:"))
    except sqlite3.DatabaseError:
        path.unlink()
        return _prepare(sqlite3.connect(path, timeout=60))
    except OSError:
        return _prepare(sqlite3.connect(":memory:"))


def _prepare(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS entry "
        "(kind TEXT, key TEXT, value BLOB, PRIMARY KEY (kind, key)) WITHOUT ROWID"
    )
    return connection

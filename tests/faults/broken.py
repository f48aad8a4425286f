"""The product with one safeguard taken out: what the harness must notice."""

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import toolkit.store.files as files
import toolkit.store.writer as writer


def _no_file_sync() -> None:
    """Bytes of files are not synced, only folders."""
    real = os.fsync
    os.fsync = lambda fd: real(fd) if stat.S_ISDIR(os.fstat(fd).st_mode) else None


def _no_folder_sync() -> None:
    """Names are not synced."""
    for room in (files, writer):
        room.sync_folder = lambda folder: None  # type: ignore[attr-defined]


def _no_rename() -> None:
    """Files are written under their final names."""

    def publish(file: Any, final: Path) -> None:
        file.flush()
        final.write_bytes(Path(file.name).read_bytes())
        os.fsync(file.fileno())
        files.drop(file)

    for room in (files, writer):
        room.publish = publish  # type: ignore[attr-defined]


def _errors_pass() -> None:
    """A write that fails is taken for one that worked."""
    real = os.fsync

    def sync(fd: int) -> None:
        with contextlib.suppress(OSError):
            real(fd)

    os.fsync = sync


BROKEN: dict[str, Callable[[], None]] = {
    "no-file-sync": _no_file_sync,
    "no-folder-sync": _no_folder_sync,
    "no-rename": _no_rename,
    "failed-sync-ignored": _errors_pass,
}

"""Writing files so that no name ever holds a part of one."""

import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from toolkit.errors import Problem, ResourceError, StoreError

TEMPORARY = ".tmp"


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn a failed write into `ResourceError` E-DISK-001: what was committed stays."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        cure = "make room" if full else "look at the disk"
        action = f"What was committed is safe; {cure} and run the same command again to resume"
        what, where = "writing failed", (str(error.filename),) if error.filename else ()
        problem = Problem("E-DISK-001", what, error.strerror or str(error), "", action, where, transient=True)
        raise ResourceError(problem) from error


def temporary_path(final: Path, mark: str = "") -> Path:
    """Return the temporary name of a file; a mark makes one of its own where locks do not reach."""
    return final.with_name(final.name + (f".{mark}" if mark else "") + TEMPORARY)


def open_temporary(final: Path, *, wait: bool = False, mark: str = "") -> BinaryIO:
    """Open the one temporary file of `final` (and of a mark), empty and locked for this process.

    A file that a killed run left is reused. Where another process is writing it, waits for it if
    told so, else raises `StoreError` E-STORE-004.
    """
    path = temporary_path(final, mark)
    while True:
        file = open(path, "ab+", opener=no_link)  # noqa: SIM115  # Path.open has no opener; returned
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            action = "Stopped; let it finish, or give each process its own --shard i/N"
            problem = Problem(
                "E-STORE-004", "another process writes this file", action=action, files=(str(final),)
            )
            raise StoreError(problem) from error
        try:
            same = os.fstat(file.fileno()).st_ino == path.stat().st_ino
        except FileNotFoundError:
            same = False
        if same:
            file.truncate(0)
            return file
        file.close()  # the other process renamed it between open and lock


def no_link(path: str, flags: int) -> int:
    """Open a file of ours; where somebody put a link in its place, what it leads to is left alone."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise linked(Path(path)) from error
        raise


def linked(path: Path) -> StoreError:
    """Return the error that names a link where a file or folder of ours belongs."""
    action = "Stopped; put the file itself there (a link to the whole folder is followed)"
    return StoreError(Problem("E-STORE-008", "a link inside the folder", "", "", action, (str(path),)))


def publish(file: BinaryIO, final: Path) -> None:
    """Give an open temporary file its final name; its bytes are on disk before, its name after."""
    file.flush()
    os.fsync(file.fileno())
    Path(file.name).replace(final)
    file.close()
    sync_folder(final.parent)


def write_atomic(final: Path, data: bytes, mode: int | None = None) -> None:
    """Write a small file in one step that is seen whole or not at all; writers take turns.

    `mode` are its permissions; the user's usual ones when None.
    """
    with disk_errors():
        make_folder(final.parent)
        with open_temporary(final, wait=True) as file:
            try:
                if mode is not None:
                    os.fchmod(file.fileno(), mode)
                file.write(data)
                publish(file, final)
            except OSError:
                drop(file)
                raise


def drop(file: BinaryIO) -> None:
    """Remove an open temporary file that is not to be published; one that cannot be removed is used again."""
    with suppress(OSError):
        Path(file.name).unlink(missing_ok=True)
    with suppress(OSError):  # closing writes what was waiting, which a full disk refuses
        file.close()


def make_folder(path: Path) -> None:
    """Make a folder with all above it, and their names durable: a file is no safer than its folder's name.

    Of a folder that is there already nobody knows whether its name is on disk: a killed run may have made it.
    """
    path = path.absolute()
    missing = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync_folder(each.parent)
    if not missing:
        with suppress(PermissionError):  # of a folder that others gave us
            sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file of a folder that has no name yet; its bytes are on disk afterwards."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """Lend an empty folder beside `final`, and give it that name once all is written.

    What lay there is replaced in one step where the system can exchange two names (Linux); elsewhere there
    is a moment without either. After an error `final` is as it was. One writer at a time.
    """
    temporary = final.with_name(final.name + TEMPORARY)
    with disk_errors():
        shutil.rmtree(temporary, ignore_errors=True)  # of a killed run
        make_folder(final.parent)
        temporary.mkdir()
        try:
            yield temporary
            sync_folder(temporary)
            if not final.exists():
                temporary.rename(final)
            elif not _exchange(temporary, final):
                old = final.with_name(final.name + ".old")
                shutil.rmtree(old, ignore_errors=True)
                final.rename(old)
                temporary.rename(final)
                sync_folder(final.parent)  # before what it replaces goes
                shutil.rmtree(old)
            sync_folder(final.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system or its file system cannot (renameat2(2))."""
    at_folder, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    try:
        rename = ctypes.CDLL(None).renameat2
    except AttributeError:
        return False
    return bool(rename(at_folder, os.fsencode(one), at_folder, os.fsencode(other), exchange) == 0)

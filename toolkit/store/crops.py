"""The crops of one shard while they are written: two growing files under temporary names."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from toolkit.store.files import (
    TEMPORARY,
    disk_errors,
    drop,
    make_folder,
    no_link,
    open_temporary,
    publish,
    temporary_path,
)
from toolkit.store.format import (
    IMAGE_TYPE,
    MASK_TYPE,
    array_bytes,
    array_header,
    images_path,
    masks_path,
)


class CropFiles:
    """Images and masks of a shard; nothing is seen before `publish`.

    Use as a context manager: leaving it without `publish` or `leave` drops the files. A `mark` gives them
    names of their own: no other process writes there, whether or not locks reach it.
    """

    def __init__(self, store: Path, shard: str, side: int, mark: str = "") -> None:
        self._side, self.rows = side, 0
        with disk_errors():
            make_folder(store / "shards")
            self._files = [
                (open_temporary(path, mark=mark), path, dtype) for path, dtype in _arrays(store, shard)
            ]
            for file, _, dtype in self._files:
                file.write(array_header(dtype, 0, side))

    @classmethod
    def reopen(cls, store: Path, shard: str, side: int, mark: str, rows: int) -> Self:
        """Take over the files that a process left; raises `OSError`, or `ValueError` where one is cut."""
        crops = cls.__new__(cls)
        crops._side, crops.rows, crops._files = side, rows, []
        for path, dtype in _arrays(store, shard):
            left = temporary_path(path, mark)
            file = open(left, "rb+", opener=no_link)  # noqa: SIM115  # Path.open has no opener; closed by whoever
            crops._files.append((file, path, dtype))
            size, expected = left.stat().st_size, array_bytes(dtype, rows, side)
            if size != expected:
                raise ValueError(f"{size} bytes, {expected} expected")
        return crops

    def append(self, images: NDArray[np.int16], masks: NDArray[np.uint8]) -> None:
        """Add crops: int16 and uint8 (n, s, s, s)."""
        shape = (len(images), *(self._side,) * 3)
        if (
            images.shape != shape
            or masks.shape != shape
            or images.dtype != np.int16
            or masks.dtype != np.uint8
        ):
            raise ValueError(f"crops must be int16 and uint8 {shape}, got {images.dtype} {images.shape}")
        with disk_errors():
            for (file, _, dtype), array in zip(self._files, (images, masks), strict=True):
                file.write(np.ascontiguousarray(array, dtype).data)
        self.rows += len(images)

    def publish(self) -> None:
        """Give the files their final names, images first; a shard without crops has neither."""
        for file, path, dtype in self._files:
            if self.rows:
                _rewrite_head(file, array_header(dtype, self.rows, self._side))
                publish(file, path)
            else:
                path.unlink(missing_ok=True)
                drop(file)

    def leave(self) -> None:
        """Leave the files, all their bytes on disk, under their temporary names for another process."""
        with disk_errors():
            for file, _, _ in self._files:
                file.flush()
                os.fsync(file.fileno())
                file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file, _, _ in self._files:
            if not file.closed:
                drop(file)


def sweep(store: Path, shards: set[str]) -> None:
    """Remove what killed processes left of these shards; a file that a process here is writing stays."""
    for path in (store / "shards").glob(f"*{TEMPORARY}"):
        if path.name.split(".")[0] not in shards:
            continue
        with suppress(FileNotFoundError, BlockingIOError), path.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _arrays(store: Path, shard: str) -> list[tuple[Path, str]]:
    return [(images_path(store, shard), IMAGE_TYPE), (masks_path(store, shard), MASK_TYPE)]


def _rewrite_head(file: Any, header: bytes) -> None:
    """Write the final header over the first one; the file was opened for appending."""
    file.flush()
    descriptor = os.open(file.name, os.O_WRONLY)
    try:
        done = 0
        while done < len(header):  # the system may take less than it is given
            done += os.pwrite(descriptor, header[done:], done)
    finally:
        os.close(descriptor)

"""The arrays of a store, mapped when they are asked for.

A map costs a file descriptor and one of the process' maps: 1,024 and 65,530 in a usual Linux. A store of
200,000 scans has 50,000 arrays, so only those that were used last stay mapped.
"""

import os
import resource
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.store.files import no_link
from toolkit.store.format import (
    IMAGE_TYPE,
    MASK_TYPE,
    array_bytes,
    array_header,
    damaged,
    images_path,
    masks_path,
)

MOST_MAPPED = 4096
"""Arrays of one kind, where the system would allow more."""
State = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Shard:
    """One committed shard: crops `first` to ``first + count`` - 1 of a store.

    `state` says which files these were when the store was opened.
    """

    store: Path
    name: str
    first: int
    count: int
    side: int
    state: tuple[State, State]

    @property
    def images(self) -> NDArray[np.int16]:
        """int16 (count, s, s, s) HU zyx, mapped read-only for as long as the caller keeps it."""
        return self._map(images_path(self.store, self.name), IMAGE_TYPE, self.state[0])

    @property
    def masks(self) -> NDArray[np.uint8]:
        """uint8 (count, s, s, s), share of the voxel that is nodule, mapped as `images`."""
        return self._map(masks_path(self.store, self.name), MASK_TYPE, self.state[1])

    def _map(self, path: Path, dtype: str, state: State) -> NDArray[Any]:
        if look(path, dtype, self.count, self.side) != state:
            raise damaged(path, "another file than when the store was opened", "open the store again")
        offset = len(array_header(dtype, self.count, self.side))
        return np.memmap(path, np.dtype(dtype), "r", offset, (self.count, *(self.side,) * 3))


def look(path: Path, dtype: str, count: int, side: int) -> State:
    """Return inode and time of a shard array after checking that it is what the ledger says.

    Raises `StoreError` E-STORE-003 where it is missing or of another type or size, E-STORE-008 on a link.
    """
    header = array_header(dtype, count, side)
    try:
        descriptor = no_link(str(path), os.O_RDONLY)
    except FileNotFoundError as error:
        raise damaged(path, "missing") from error
    try:
        state, found = os.fstat(descriptor), os.pread(descriptor, len(header), 0)
    finally:
        os.close(descriptor)
    if found != header:
        raise damaged(path, "an array header that the ledger contradicts")
    expected = array_bytes(dtype, count, side)
    if state.st_size != expected:
        raise damaged(path, f"{state.st_size} bytes", f"{expected} bytes")
    return state.st_ino, state.st_mtime_ns


def kept(map_one: Callable[[int], NDArray[Any]]) -> Callable[[int], NDArray[Any]]:
    """Return a function that keeps the arrays that it gave last, within a quarter of the descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_MAPPED if soft == resource.RLIM_INFINITY else min(MOST_MAPPED, max(16, soft // 8))
    return lru_cache(maxsize=most)(map_one)

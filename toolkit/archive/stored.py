"""Where the voxels of a volume file are, and how to read only the needed part of them.

Nothing here knows a file format: a reader says where the bytes are (`StoredArray`), and this module
maps or inflates them. Index order is zyx = (slowest, ..., fastest) = (k, j, i) of the file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.archive.files import file_size, inflate, readable, refusal
from toolkit.archive.geometry import Box
from toolkit.errors import InputError

Encoding = Literal["raw", "gzip", "zlib"]
Index = tuple[int, int, int]

MAX_DEFLATE_RATIO = 1100  # deflate itself cannot pass 1032
SLAB_BYTES = 4 << 20


@dataclass(frozen=True)
class StoredArray:
    """Where the bytes of an array lie.

    Attributes
    ----------
    path
        The file that holds the data (not always the header's).
    dtype
        NumPy type string with byte order, such as ``<i2``.
    shape_fortran
        (i, j, k), the first axis the fastest.
    offset
        Byte of the file where the data, or the compressed stream, begins.
    encoding
        ``raw``, ``gzip`` or ``zlib``.
    skip
        Bytes before the array inside the compressed stream; 0 for raw.
    slope, intercept
        Stored value to true value: ``stored * slope + intercept``.
    """

    path: str
    dtype: str
    shape_fortran: Index
    offset: int
    encoding: Encoding = "raw"
    skip: int = 0
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def shape_zyx(self) -> Index:
        """Shape in NumPy order."""
        i, j, k = self.shape_fortran
        return k, j, i

    @property
    def plane_bytes(self) -> int:
        """Bytes of one plane of the slowest axis."""
        return self.shape_fortran[0] * self.shape_fortran[1] * np.dtype(self.dtype).itemsize

    @property
    def bytes_declared(self) -> int:
        """Bytes of the whole array."""
        return self.plane_bytes * self.shape_fortran[2]


def check_room(stored: StoredArray) -> None:
    """Refuse an array that cannot lie in its file, before anything is allocated.

    Raises
    ------
    InputError
        E-FILE-002 where the file is shorter than declared, E-VOL-003 where it declares more than
        deflate can pack.
    """
    size = file_size(stored.path)
    need, have = stored.skip + stored.bytes_declared, size - stored.offset
    if stored.encoding == "raw":
        if have < need:
            raise _cut_short(stored, size)
    elif have <= 0:
        raise refusal("E-FILE-002", "the compressed data is missing", f"{size} bytes", path=stored.path)
    elif need > MAX_DEFLATE_RATIO * have:
        raise refusal(
            "E-VOL-003",
            "the header declares more than the compressed data can hold",
            f"{need} bytes out of {have}",
            f"a ratio of at most {MAX_DEFLATE_RATIO}",
            path=stored.path,
        )


def _cut_short(stored: StoredArray, size: int) -> InputError:
    need = stored.offset + stored.bytes_declared
    return refusal("E-FILE-002", "the file is cut short", f"{size} bytes", f"{need} bytes", path=stored.path)


def read_boxes(stored: StoredArray, native_boxes: Sequence[Box]) -> list[NDArray[np.generic]]:
    """Read boxes of a stored array, touching no more of the file than they need.

    Parameters
    ----------
    stored
        Where the data is.
    native_boxes
        Boxes inside the array, index order (k, j, i). They may overlap or be empty.

    Returns
    -------
    list of ndarray
        Stored values (no slope), one array a box, in the stored type. Raw data is memory-mapped;
        compressed data is inflated once, no further than the last plane that a box needs.

    Raises
    ------
    InputError
        E-FILE-002 (cut short), E-FILE-003 (corrupt), E-FILE-001 and E-FILE-005 (gone, unreadable).
    """
    found = [np.empty(box.shape_zyx, np.dtype(stored.dtype)) for box in native_boxes]
    wanted = [(box, out) for box, out in zip(native_boxes, found, strict=True) if not box.empty]
    if not wanted:
        return found
    if stored.encoding == "raw":
        data = _mapped(stored)
        for box, out in wanted:
            out[...] = data[box.slices]
        return found
    first = min(box.start_zyx[0] for box, _ in wanted)
    last = max(box.stop_zyx[0] for box, _ in wanted)
    for start, slab in iter_slabs(stored, first, last):
        for box, out in wanted:
            a, b = max(start, box.start_zyx[0]), min(start + len(slab), box.stop_zyx[0])
            if a < b:
                _, rows, columns = box.slices
                out[a - box.start_zyx[0] : b - box.start_zyx[0]] = slab[a - start : b - start, rows, columns]
    return found


def iter_slabs(
    stored: StoredArray, first: int, last: int, slab_bytes: int = SLAB_BYTES
) -> Iterator[tuple[int, NDArray[np.generic]]]:
    """Yield ``(k, planes k ... of the array)`` from `first` to `last` in one pass with bounded memory.

    A slab holds whole planes, about `slab_bytes` of them, and is valid until the next one is asked
    for. Errors as in `read_boxes`.
    """
    planes = max(1, slab_bytes // stored.plane_bytes)
    if stored.encoding == "raw":
        data = _mapped(stored)
        for k in range(first, last, planes):
            yield k, data[k : min(k + planes, last)]
        return
    need = stored.skip + stored.bytes_declared
    stream = inflate(stored.path, stored.encoding, stored.offset, need)
    rest = _copy(stream, memoryview(b""), stored.skip + first * stored.plane_bytes, None)
    buffer = bytearray(min(planes, last - first) * stored.plane_bytes)
    whole = np.frombuffer(buffer, np.dtype(stored.dtype)).reshape(-1, *stored.shape_zyx[1:])
    for k in range(first, last, planes):
        count = min(planes, last - k)
        rest = _copy(stream, rest, count * stored.plane_bytes, memoryview(buffer))
        yield k, whole[:count]
    if last == stored.shape_zyx[0]:
        next(stream, None)  # reaches the end of the stream and with it the checksum


def _copy(stream: Iterator[bytes], rest: memoryview, count: int, target: memoryview | None) -> memoryview:
    """Move `count` bytes of a stream to the start of `target` (or nowhere); return what is left over."""
    done = 0
    while done < count:
        rest = rest if rest else memoryview(next(stream))  # a short stream raises E-FILE-002 here
        take = min(count - done, len(rest))
        if target is not None:
            target[done : done + take] = rest[:take]
        rest = rest[take:]
        done += take
    return rest


def _mapped(stored: StoredArray) -> NDArray[np.generic]:
    """Return a read-only memory map of a raw array."""
    with readable(stored.path) as file:
        size = file.seek(0, 2)
        if size < stored.offset + stored.bytes_declared:
            raise _cut_short(stored, size)
        return np.memmap(file, np.dtype(stored.dtype), "r", stored.offset, stored.shape_zyx)

"""What the index keeps of a folder: its slices by column, and an entry for every other file.

The headers of a series differ in four or five of their 36 fields. What all slices of a folder have in common
is kept and read once, and the whole is held packed: some 70 bytes a slice.
"""

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from marshal import dumps
from typing import Any, NamedTuple

from toolkit.archive.dicom_fields import SliceHeader

_TUPLES = tuple(SliceHeader._fields.index(name) for name in ("position", "orientation", "spacing"))


class FileEntry(NamedTuple):
    """What one file is.

    `kind` and `facts`: ``dicom`` a `SliceHeader`; ``frames`` those of the frames of a
    multi-frame CT, `packed`; ``volume`` the JSON of a
    `VolumeHeader`, and the digest of its content where it is a mask; ``lidc`` a series UID and the
    digest of the file; ``seg`` and ``rtstruct`` the fields of a `MaskHead` and the digest of the file;
    ``annotations`` and ``candidates`` the rows of a table of LUNA16; ``bad`` the fields of a `Problem`;
    ``broken`` the same of what may be a slice, after the series UID that it names; ``link`` the file
    that a link leads to, its kind and its facts, a kind of ``outside`` where it leaves the archive and was
    not read; ``other`` nothing.
    """

    name: str
    size: int
    mtime_ns: int
    kind: str
    facts: Any


class SliceTable(NamedTuple):
    """Slices by column; those of a folder by name.

    `fields` are those of `SliceHeader`: of each one value a slice, or a single one that all have.
    """

    names: Sequence[str] = ()
    sizes: Sequence[int] = ()
    mtimes_ns: Sequence[int] = ()
    fields: Sequence[Sequence[Any]] = ()

    def column(self, field: str) -> Sequence[Any]:
        """Return a field of all slices."""
        values = self.fields[SliceHeader._fields.index(field)]
        return values if len(values) == len(self.names) else [values[0]] * len(self.names)

    def alike(self, *fields: str) -> bool:
        """Tell whether all slices have the same in some fields."""
        return all(len(self.fields[SliceHeader._fields.index(field)]) == 1 for field in fields)

    def headers(self) -> Iterator[SliceHeader]:
        """Yield the header of every slice."""
        count = len(self.names)
        full = [values if len(values) == count else repeat(values[0], count) for values in self.fields]
        return map(SliceHeader._make, zip(*full, strict=True))


class ScannedFolder(NamedTuple):
    """The files of a folder: its slices, an entry for each of the others, and both as the index has them."""

    entries: Sequence[FileEntry]
    slices: SliceTable
    packed: bytes


def table_of(files: Sequence[tuple[str, int, int, SliceHeader]]) -> SliceTable:
    """Return slices, each by name, size, time and header, as columns."""
    if not files:
        return SliceTable()
    names, sizes, times, headers = zip(*files, strict=True)
    fields = [[column[0]] if _is_one(column) else column for column in zip(*headers, strict=True)]
    return SliceTable(names, sizes, times, fields)


def _is_one(values: Sequence[Any]) -> bool:
    """Tell whether values are all the same, to the bit; 0.0 and -0.0, which are equal, are not."""
    if isinstance(values[0], float | tuple):
        return len({*map(id, values)}) == 1  # `shared` makes them one object
    return values.count(values[0]) == len(values)


def pack_folder(entries: Iterable[FileEntry]) -> bytes:
    """Return the files of a folder as the index keeps them; `unpack_folder` turns them back."""
    files = list(entries)
    slices = [(e.name, e.size, e.mtime_ns, e.facts) for e in files if e.kind == "dicom"]
    others = [e for e in files if e.kind != "dicom"]
    return zlib.compress(json.dumps([others, *table_of(slices)]).encode(), 1)


def unpack_folder(packed: bytes) -> ScannedFolder:
    """Return the files of a folder; raises ValueError where `packed` is damaged."""
    try:
        rows, names, sizes, times, fields = json.loads(zlib.decompress(packed))
        for k in _TUPLES if fields else ():
            fields[k] = [tuple(value) for value in fields[k]]
        entries = [FileEntry(*row) for row in rows]
    except (zlib.error, TypeError, IndexError) as error:
        raise ValueError("damaged") from error
    return ScannedFolder(entries, SliceTable(names, sizes, times, fields), packed)


def shared(header: SliceHeader, like: SliceHeader | None) -> SliceHeader:
    """Return a header that does not hold a second time what is bit for bit as in that of another slice."""
    if like is None:
        return header
    values = list(like)
    for k, value in _changes(header, like):
        values[k] = value
    return SliceHeader._make(values)


def _changes(header: SliceHeader, like: SliceHeader) -> list[list[Any]]:
    """Return the fields of a header that differ from those of another, with their numbers."""
    return [
        [k, value]
        for k, (value, usual) in enumerate(zip(header, like, strict=True))
        if value is not usual and (value != usual or dumps(value, 2) != dumps(usual, 2))  # -0.0 == 0.0
    ]


def packed(headers: Sequence[SliceHeader]) -> list[Any]:
    """Return the headers of the frames of a file as one header and what differs from it in each frame."""
    first = headers[0]
    return [first, [_changes(header, first) for header in headers]]


def frame_headers(facts: Any) -> list[SliceHeader]:
    """Rebuild the headers that `packed` made small."""
    first, differing = list(facts[0]), facts[1]
    headers = []
    for changes in differing:
        values = list(first)
        for k, value in changes:
            values[k] = value
        headers.append(slice_header(values))
    return headers


def slice_header(facts: Any) -> SliceHeader:
    """Rebuild the header of a slice from JSON."""
    if isinstance(facts, SliceHeader):
        return facts
    values = list(facts)
    for field in _TUPLES:
        values[field] = tuple(values[field])
    return SliceHeader(*values)

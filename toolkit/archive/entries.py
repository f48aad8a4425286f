"""What the index keeps of a folder: an entry a file, and of a slice only what is not as in the one before.

The headers of a series differ in four or five of their 37 fields. The others are kept, read and held in
memory once for all slices of a folder.
"""

import json
import zlib
from collections.abc import Iterator, Sequence
from marshal import dumps
from typing import Any, NamedTuple

from toolkit.archive.dicom_fields import SliceHeader

TUPLES = tuple(SliceHeader._fields.index(name) for name in ("position", "orientation", "spacing"))
_LIKE = "like"


class FileEntry(NamedTuple):
    """What one file is.

    `kind` and `facts`: ``dicom`` the fields of a `SliceHeader`; ``frames`` those of the frames of a
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


def kept(entries: Sequence[FileEntry]) -> list[Any]:
    """Return the entries of a folder as rows of plain JSON types, which `recalled` turns back."""
    rows: list[Any] = []
    last: SliceHeader | None = None
    for entry in entries:
        if entry.kind != "dicom":
            rows.append(entry)
            continue
        rows.append(entry if last is None else entry._replace(kind=_LIKE, facts=_changes(entry.facts, last)))
        last = entry.facts
    return rows


def recalled(rows: Sequence[Sequence[Any]]) -> Iterator[FileEntry]:
    """Yield the entries of a folder whose slices share all that they have in common."""
    values: list[Any] = []
    for row in rows:
        entry = FileEntry(*row)
        if entry.kind == "dicom":
            values = list(slice_header(entry.facts))
        elif entry.kind == _LIKE:
            for k, value in entry.facts:
                values[k] = tuple(value) if k in TUPLES else value
        else:
            yield entry
            continue
        yield FileEntry(entry.name, entry.size, entry.mtime_ns, "dicom", SliceHeader._make(values))


def packed_entries(entries: Sequence[FileEntry]) -> bytes:
    """Return the entries of a folder in some 60 bytes a slice."""
    return zlib.compress(json.dumps(kept(entries)).encode(), 1)


def unpacked_entries(data: bytes) -> Iterator[FileEntry]:
    """Yield the entries that `packed_entries` made small."""
    return recalled(json.loads(zlib.decompress(data)))


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
    """Rebuild the header that `scan_folder` stored."""
    if isinstance(facts, SliceHeader):
        return facts
    values = list(facts)
    for field in TUPLES:
        values[field] = tuple(values[field])
    return SliceHeader(*values)

"""Slices of a series as bytes: of an archive of a hundred thousand scans there are tens of millions."""

import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import overload

from toolkit.archive.dicom_fields import SliceFile, SliceHeader
from toolkit.archive.entries import TUPLES


class PackedSlices(Sequence[SliceFile]):
    """Slices in some 60 bytes each, not a kilobyte; unpacked whenever they are looked at, 2 us a slice."""

    __slots__ = ("_count", "_parts")

    def __init__(self, files: Sequence[SliceFile] = ()) -> None:
        self._count = len(files)
        self._parts: tuple[bytes, ...] = (_packed(files),) if files else ()

    @classmethod
    def joined(cls, parts: Iterable["PackedSlices"]) -> "PackedSlices":
        """Return the slices of several, one after another, without unpacking them."""
        found, several = cls(), tuple(parts)
        found._count = sum(part._count for part in several)
        found._parts = tuple(data for part in several for data in part._parts)
        return found

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[SliceFile]:
        for part in self._parts:
            yield from _unpacked(part)

    @overload
    def __getitem__(self, place: int) -> SliceFile: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[SliceFile, ...]: ...
    def __getitem__(self, place: int | slice) -> SliceFile | tuple[SliceFile, ...]:
        """Return one slice or some; all are unpacked for that, so whoever wants many iterates."""
        return tuple(self)[place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PackedSlices) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return self._count  # the same slices may be packed in other parts


def _packed(files: Sequence[SliceFile]) -> bytes:
    """Return slices by column, what all have in common once."""
    paths, sizes, times, headers = zip(*files, strict=True)
    prefix = os.path.commonprefix(paths)  # noqa: RUF071  # of characters: it is put back as it was
    rests = [path[len(prefix) :] for path in paths]
    columns = [[c[0]] if len({*map(id, c)}) == 1 else c for c in zip(*headers, strict=True)]
    return zlib.compress(json.dumps([prefix, rests, sizes, times, columns]).encode(), 1)


def _unpacked(part: bytes) -> Iterator[SliceFile]:
    prefix, rests, sizes, times, columns = json.loads(zlib.decompress(part))
    for k in TUPLES:
        columns[k] = [tuple(value) for value in columns[k]]
    full = [repeat(c[0], len(rests)) if len(c) == 1 else c for c in columns]
    headers = map(SliceHeader._make, zip(*full, strict=True))
    paths = [prefix + rest for rest in rests]
    return map(SliceFile._make, zip(paths, sizes, times, headers, strict=True))

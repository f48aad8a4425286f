"""The slices of a series as bytes: an archive of a hundred thousand scans has tens of millions."""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import overload

from toolkit.archive.dicom_fields import SliceFile, SliceHeader
from toolkit.archive.entries import FileEntry, SliceTable, pack_folder, unpack_folder


class PackedSlices(Sequence[SliceFile]):
    """Slices in some 70 bytes each, not a kilobyte; unpacked whenever they are looked at, 3 us a slice."""

    __slots__ = ("_count", "_parts")

    def __init__(self, files: Iterable[SliceFile] = ()) -> None:
        parts, self._count = [], 0
        for folder, here in groupby(files, key=lambda file: os.path.dirname(file.path)):  # noqa: PTH120
            entries = [
                FileEntry(os.path.basename(f.path), f.size, f.mtime_ns, "dicom", f.header)  # noqa: PTH119
                for f in here
            ]
            parts.append((folder, pack_folder(entries)))
            self._count += len(entries)
        self._parts = tuple(parts)

    @classmethod
    def of_folder(cls, folder: str, packed: bytes, count: int) -> "PackedSlices":
        """Return all slices of a folder as they lie packed in the index."""
        found = cls()
        found._count, found._parts = count, ((folder, packed),)
        return found

    @classmethod
    def joined(cls, several: Sequence["PackedSlices"]) -> "PackedSlices":
        """Return the slices of several, one after another, without unpacking them."""
        if len(several) == 1:
            return several[0]
        found = cls()
        found._count = sum(part._count for part in several)
        found._parts = tuple(data for part in several for data in part._parts)
        return found

    def folders(self) -> list[str]:
        """Return the folders in which they lie, each once."""
        return list(dict.fromkeys(folder for folder, _ in self._parts))

    def table(self) -> SliceTable:
        """Return all of them by column, with paths for names."""
        tables = []
        for folder, packed in self._parts:
            table = unpack_folder(packed).slices
            tables.append(table._replace(names=[os.path.join(folder, name) for name in table.names]))  # noqa: PTH118
        if len(tables) == 1:
            return tables[0]
        names = [name for t in tables for name in t.names]
        sizes = [size for t in tables for size in t.sizes]
        times = [time for t in tables for time in t.mtimes_ns]
        fields = [[v for t in tables for v in t.column(field)] for field in SliceHeader._fields]
        return SliceTable(names, sizes, times, fields if names else ())

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[SliceFile]:
        table = self.table()
        rows = zip(table.names, table.sizes, table.mtimes_ns, table.headers(), strict=True)
        return map(SliceFile._make, rows)

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

"""Pixels of one DICOM slice: only the rows that are needed where they lie uncompressed."""

import math
import os
import warnings
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from toolkit.archive.codecs import DECODED, LOSSY, CodecError, Layout, decode_frame
from toolkit.archive.deflated import inflate_raw
from toolkit.archive.dicom_fields import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    WHOLE_HEADER,
    SliceHeader,
    file_meta,
)
from toolkit.archive.files import Bounded
from toolkit.archive.hu import below_table, hu_table, reinterpret
from toolkit.errors import InputError, Problem

# no transfer syntax is no file meta group: pydicom finds out which of the uncompressed ones it is
_READ = DECODED | {EXPLICIT_LITTLE, IMPLICIT_LITTLE, DEFLATED, BIG_ENDIAN, ""}


@dataclass(frozen=True)
class HuRule:
    """The arguments of `hu_table` for one slice; small, so that a series stays cheap to send."""

    slope: float
    intercept: float
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    padding: tuple[int, int] | None

    @property
    def cell(self) -> tuple[int, int, int, bool]:
        """How a stored value lies in its pattern: bits allocated, bits stored, high bit, signed."""
        return self.bits_allocated, self.bits_stored, self.high_bit, self.signed

    @property
    def table(self) -> NDArray[np.int16]:
        """HU of every stored pattern, int16 (2 ** bits_allocated,)."""
        return hu_table(self.slope, self.intercept, *self.cell, self.padding)

    @property
    def below(self) -> NDArray[np.bool_] | None:
        """Patterns below -1024 HU, (2 ** bits_allocated,); None without any, and where padding is named."""
        if self.padding is not None:
            return None
        return below_table(self.slope, self.intercept, *self.cell)


def stored_length(header: SliceHeader) -> int:
    """Return the bytes that one uncompressed frame takes."""
    return int(header.rows or 0) * int(header.columns or 0) * int(header.bits_allocated or 0) // 8


def hu_rule(header: SliceHeader, path: str) -> HuRule:
    """Return how a slice's stored values become HU.

    Raises `InputError` E-HU-001 without a rescale, E-HU-002 where the unit is another one.
    """
    slope, intercept = header.slope, header.intercept
    if slope is None or intercept is None or not math.isfinite(slope + intercept) or slope == 0:
        raise InputError(
            Problem(
                "E-HU-001",
                "no usable RescaleSlope and RescaleIntercept",
                f"{slope} and {intercept}",
                "two finite numbers, the slope not 0",
                "Series skipped",
                (path,),
            )
        )
    if header.rescale_type.upper() not in ("", "HU", "US"):
        raise InputError(
            Problem("E-HU-002", "RescaleType", header.rescale_type[:16], "HU", "Series skipped", (path,))
        )
    allocated, signed = int(header.bits_allocated or 16), bool(header.signed)
    stored = min(int(header.bits_stored or allocated), allocated)
    high = header.high_bit if header.high_bit is not None else stored - 1
    high = min(max(int(high), stored - 1), allocated - 1)
    padding = None
    if header.padding is not None:
        other = header.padding if header.padding_limit is None else header.padding_limit
        padding = (reinterpret(header.padding, 16, signed), reinterpret(other, 16, signed))
    return HuRule(slope, intercept, allocated, stored, high, signed, padding)


def decodable(header: SliceHeader) -> bool:
    """Tell whether pixels of the slice's transfer syntax can be decoded."""
    return header.transfer_syntax in _READ


def is_lossy(header: SliceHeader) -> bool:
    """Tell whether the pixels went through a lossy compression (PS3.3 C.7.6.1.1.5)."""
    return header.lossy.startswith("01") or header.transfer_syntax in LOSSY


def read_rows(
    path: str, size: int, mtime_ns: int, header: SliceHeader, first: int, last: int
) -> NDArray[Any]:
    """Return stored patterns of rows first..last-1 as unsigned integers (rows, columns).

    Raises `InputError` E-FILE-005 where the system refuses, E-FILE-006 where the file is no longer
    the one whose header was read, E-FILE-002 where it is cut short, E-DCM-007 where the pixels
    cannot be decoded.
    """
    columns, width = int(header.columns or 0), int(header.bits_allocated or 16) // 8
    count = (last - first) * columns * width
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  # a path's parsing costs what a read does
            state = os.fstat(file.fileno())
            if state.st_size != size or state.st_mtime_ns != mtime_ns:
                raise InputError(
                    Problem("E-FILE-006", "file changed after it was indexed", files=(path,), transient=True)
                )
            skip = header.pixel_offset + first * columns * width
            if header.uncompressed:
                data = os.pread(file.fileno(), count, skip)
            elif header.transfer_syntax == DEFLATED:
                at, _ = file_meta(file.read(WHOLE_HEADER))
                data = inflate_raw(path, at, count, skip)
            else:
                with Bounded(file) as whole:
                    return _decode(path, whole, header)[first:last]
    except OSError as error:
        problem = Problem(
            "E-FILE-005", "file cannot be read", error.strerror or "", files=(path,), transient=True
        )
        raise InputError(problem) from error
    if len(data) != count:
        problem = Problem("E-FILE-002", "pixel data cut short", f"{len(data)} bytes", f"{count}", "", (path,))
        raise InputError(problem)
    return np.frombuffer(data, f"<u{width}").reshape(last - first, columns)


def _decode(path: str, file: IO[bytes], header: SliceHeader) -> NDArray[Any]:
    """Decode a whole slice; unsigned patterns (rows, columns)."""
    allocated = int(header.bits_allocated or 16)
    layout = Layout(
        int(header.rows or 0),
        int(header.columns or 0),
        allocated,
        min(int(header.bits_stored or allocated), allocated),  # as in `hu_rule`; GDCM aborts on more
        bool(header.signed),
    )
    try:
        if header.transfer_syntax in DECODED:
            return decode_frame(_frame(file, header), header.transfer_syntax, layout)
        return _native(file, layout, header.frame)
    except MemoryError:
        raise
    except Exception as error:  # pydicom raises nearly anything on malformed files
        measured = str(error) if isinstance(error, CodecError) else type(error).__name__
        action = "Case skipped; copy the file anew from its source"
        problem = Problem("E-DCM-007", "pixels cannot be decoded", measured, "", action, (path,))
        raise InputError(problem) from error


def _frame(file: IO[bytes], header: SliceHeader) -> bytes:
    """Return the compressed bytes of a slice, of several frames those of its own."""
    import pydicom
    from pydicom.encaps import get_frame

    number, frames = max(0, header.frame - 1), max(1, int(header.frames or 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if header.pixel_offset >= 0:
            file.seek(header.pixel_offset)
            return bytes(get_frame(file, number, number_of_frames=frames))
        data = pydicom.dcmread(file, force=True).PixelData
        return bytes(get_frame(data, number, number_of_frames=frames))


def _native(file: IO[bytes], layout: Layout, frame: int) -> NDArray[Any]:
    """Read what the quick parser does not: big endian, and files without a file meta group."""
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pixels = pydicom.dcmread(file, force=True).pixel_array
    if frame and pixels.ndim == 3:
        pixels = pixels[frame - 1]
    if pixels.shape != layout[:2] or pixels.itemsize * 8 != layout.bits_allocated:
        raise CodecError("an unexpected pixel array")
    native = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("="))  # big endian stays so in pydicom
    return native.view(f"u{native.itemsize}")

"""Pixels of one DICOM slice: only the rows that are needed where they lie uncompressed."""

import math
import os
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.archive.dicom_header import SliceHeader
from toolkit.archive.hu import hu_table, reinterpret
from toolkit.errors import InputError, Problem


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
    def table(self) -> NDArray[np.int16]:
        """HU of every stored pattern, int16 (2 ** bits_allocated,)."""
        return hu_table(
            self.slope,
            self.intercept,
            self.bits_allocated,
            self.bits_stored,
            self.high_bit,
            self.signed,
            self.padding,
        )


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
    """Tell whether this installation can decode the slice's transfer syntax."""
    if header.pixel_offset >= 0:
        return True
    from pydicom.config import IGNORE
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    syntax = UID(header.transfer_syntax, validation_mode=IGNORE)
    try:
        return not syntax.is_encapsulated or bool(get_decoder(syntax).is_available)
    except (NotImplementedError, ValueError):  # a syntax without a decoder, and no transfer syntax at all
        return False


def read_rows(
    path: str, size: int, mtime_ns: int, header: SliceHeader, first: int, last: int
) -> NDArray[Any]:
    """Return stored patterns of rows first..last-1 as unsigned integers (rows, columns).

    Raises `InputError` E-FILE-005 where the system refuses, E-FILE-006 where the file is no longer
    the one whose header was read, E-FILE-003 where the pixels cannot be decoded.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            state = os.fstat(descriptor)
            if state.st_size != size or state.st_mtime_ns != mtime_ns:
                raise InputError(
                    Problem("E-FILE-006", "file changed after it was indexed", files=(path,), transient=True)
                )
            if header.pixel_offset < 0:
                return _decode(path, header)[first:last]
            columns, width = int(header.columns or 0), int(header.bits_allocated or 16) // 8
            count = (last - first) * columns * width
            data = os.pread(descriptor, count, header.pixel_offset + first * columns * width)
        finally:
            os.close(descriptor)
    except OSError as error:
        problem = Problem(
            "E-FILE-005", "file cannot be read", error.strerror or "", files=(path,), transient=True
        )
        raise InputError(problem) from error
    if len(data) != count:
        problem = Problem("E-FILE-002", "pixel data cut short", f"{len(data)} bytes", f"{count}", "", (path,))
        raise InputError(problem)
    return np.frombuffer(data, f"<u{width}").reshape(last - first, columns)


def _decode(path: str, header: SliceHeader) -> NDArray[Any]:
    """Decode a whole slice with pydicom; unsigned patterns (rows, columns)."""
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels = pydicom.dcmread(path, force=True).pixel_array
        if pixels.shape != (header.rows, header.columns) or pixels.itemsize * 8 != header.bits_allocated:
            raise ValueError("unexpected pixel array")
    except Exception as error:  # decoders raise nearly anything on malformed streams
        problem = Problem("E-FILE-003", "pixels cannot be decoded", type(error).__name__, files=(path,))
        raise InputError(problem) from error
    native = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("="))  # big endian stays so in pydicom
    return native.view(f"u{native.itemsize}")

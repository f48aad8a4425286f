"""The facts of one DICOM file that geometry and HU need, read without touching its pixels.

`read_header` parses the two little-endian encodings itself, because headers are what a first run
over an archive spends its time on (ten times faster than a general parser); whatever is unusual goes
to pydicom. Both give the same `SliceHeader`, field for field: a test holds them together.
"""

import contextlib
import struct
from hashlib import blake2b
from pathlib import Path
from typing import Any

from toolkit.archive.dicom_fields import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    UNDEFINED,
    WANTED,
    WHOLE_HEADER,
    SliceHeader,
    UnusualError,
    element_at,
    file_meta,
)
from toolkit.archive.dicom_general import deflated_header, pydicom_header
from toolkit.errors import InputError, Problem

_FIRST_READ = 16 * 1024
_PIXELS = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))


def is_dicom(head: bytes) -> bool:
    """Tell from a file's first 132 bytes whether it is DICOM, with or without a preamble."""
    return head[128:132] == b"DICM" or head[:4] in (
        b"\x08\x00\x05\x00",
        b"\x08\x00\x00\x00",
        b"\x02\x00\x00\x00",
    )


def read_header(path: Path) -> SliceHeader:
    """Read the header of one DICOM file.

    Raises `InputError` E-FILE-003 where it is not DICOM, E-FILE-005 where the system refuses.
    """
    return probe_header(path) or pydicom_header(path)


def probe_header(path: Path) -> SliceHeader | None:
    """Read a header as `read_header` does, in one go; None where the first bytes are not DICOM's."""
    try:
        with path.open("rb", buffering=0) as file:
            head = file.read(_FIRST_READ)
            if not is_dicom(head):
                return None
            try:
                return quick_header(head)
            except UnusualError:
                head += file.read(WHOLE_HEADER)
    except OSError as error:
        problem = Problem(
            "E-FILE-005", "file cannot be read", error.strerror or "", files=(str(path),), transient=True
        )
        raise InputError(problem) from error
    try:
        return quick_header(head)
    except UnusualError:
        return deflated_header(path, head) or pydicom_header(path)


def damaged_slice(path: Path) -> str | None:
    """Return the series UID in what is left of a file that cannot be read, or an empty string.

    None where it was hardly ever DICOM: an interrupted copy is cut short or holds zeros, and keeps
    its first bytes.
    """
    try:
        with path.open("rb", buffering=0) as file:
            head = file.read(_FIRST_READ)
    except OSError:
        return ""
    if head.strip(b"\0") and len(head) >= 132 and not is_dicom(head):
        return None
    found: dict[str, Any] = {}
    with contextlib.suppress(UnusualError, struct.error, ValueError, RecursionError):
        at, syntax = file_meta(head) if head[128:132] == b"DICM" else (0, IMPLICIT_LITTLE)
        _elements(head, at, explicit=syntax != IMPLICIT_LITTLE, found=found, stop=0x0020000F)
    return str(found.get("series_uid", ""))


def quick_header(head: bytes) -> SliceHeader:
    """Parse a file's first bytes; raises `UnusualError` where pydicom must look."""
    if head[128:132] != b"DICM":
        raise UnusualError
    found: dict[str, Any] = {}
    try:
        at, syntax = file_meta(head)
        found["transfer_syntax"] = syntax
        if syntax in (DEFLATED, BIG_ENDIAN, ""):
            raise UnusualError
        at, tag = _elements(head, at, explicit=syntax != IMPLICIT_LITTLE, found=found, stop=0x7FE00008)
        if tag:
            if tag not in _PIXELS:
                raise UnusualError
            begin, length, _ = element_at(head, at, explicit=syntax != IMPLICIT_LITTLE)
            found["has_pixels"] = tag == 0x7FE00010
            native = syntax in (EXPLICIT_LITTLE, IMPLICIT_LITTLE)
            found["pixel_offset"] = begin if native == (length != UNDEFINED) else -1
            found["pixel_length"] = -1 if length == UNDEFINED else length
    except (struct.error, ValueError, RecursionError) as error:
        raise UnusualError from error
    if "sop_class" not in found:
        raise UnusualError
    return SliceHeader(**found, digest=blake2b(head[:at], digest_size=16).hexdigest())


def _elements(data: bytes, at: int, explicit: bool, found: dict[str, Any], stop: int) -> tuple[int, int]:
    """Collect wanted elements from `at` on; return the position and tag of the first one >= `stop`.

    Returns tag 0 at the end of a file that has no such element.
    """
    previous, end, wanted = 0, len(data), WANTED
    while at + 8 <= end:
        begin, length, tag = element_at(data, at, explicit)
        if tag >= stop:
            return at, tag
        if tag <= previous:
            raise UnusualError
        previous = tag
        if length == UNDEFINED:
            at = _skip_sequence(data, begin, explicit)
            continue
        at = begin + length
        if tag in wanted and length:
            if at > end:
                raise UnusualError
            field, _, decode = wanted[tag]
            found[field] = decode(data[begin:at])
    if at == end and end < _FIRST_READ:
        return at, 0
    raise UnusualError


def _skip_sequence(data: bytes, at: int, explicit: bool) -> int:
    """Return the position behind a sequence of undefined length that begins at `at`."""
    while True:
        begin, length, tag = element_at(data, at, explicit)
        if tag == 0xFFFEE0DD:
            return begin
        if tag != 0xFFFEE000:
            raise UnusualError
        at = begin + length if length != UNDEFINED else _skip_item(data, begin, explicit)


def _skip_item(data: bytes, at: int, explicit: bool) -> int:
    """Return the position behind an item of undefined length that begins at `at`."""
    while True:
        begin, length, tag = element_at(data, at, explicit)
        if tag == 0xFFFEE00D:
            return begin
        at = begin + length if length != UNDEFINED else _skip_sequence(data, begin, explicit)

"""The facts of one DICOM file that geometry and HU need, read without touching its pixels.

`read_header` parses the two little-endian encodings itself, because headers are what a first run
over an archive spends its time on (ten times faster than a general parser); whatever is unusual goes
to pydicom. Both give the same `SliceHeader`, field for field: a test holds them together.
"""

import struct
import warnings
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from toolkit.errors import InputError, Problem

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
IMPLICIT_LITTLE = "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"

_FIRST_READ = 16 * 1024
_WHOLE_HEADER = 4 * 1024 * 1024
_UNDEFINED = 0xFFFFFFFF
_LONG_VRS = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)


class SliceHeader(NamedTuple):
    """What one DICOM file says of itself. None or empty where it says nothing.

    `position`, `orientation` and `spacing` are as stored (LPS mm, row then column cosines, row then
    column spacing in mm). `padding` is PixelPaddingValue and its range limit. `pixel_offset` is -1
    where pixels must be decoded by pydicom; `pixel_length` is in bytes, -1 where undefined.
    """

    sop_class: str = ""
    sop_uid: str = ""
    series_uid: str = ""
    study_uid: str = ""
    frame_uid: str = ""
    patient_id: str = ""
    modality: str = ""
    image_type: str = ""
    kernel: str = ""
    rescale_type: str = ""
    transfer_syntax: str = ""
    rows: int | None = None
    columns: int | None = None
    frames: int | None = None
    samples: int | None = None
    bits_allocated: int | None = None
    bits_stored: int | None = None
    high_bit: int | None = None
    signed: int | None = None
    padding: int | None = None
    padding_limit: int | None = None
    slope: float | None = None
    intercept: float | None = None
    position: tuple[float, ...] = ()
    orientation: tuple[float, ...] = ()
    spacing: tuple[float, ...] = ()
    has_pixels: bool = False
    pixel_offset: int = -1
    pixel_length: int = -1
    digest: str = ""


def _text(raw: bytes) -> str:
    return _trim(raw.decode("ascii"))  # pydicom knows the other character sets


def _trim(text: str) -> str:
    """Strip each value; leading and trailing spaces mean nothing (PS3.5 6.2)."""
    return "\\".join(part.strip(" \0") for part in text.split("\\"))


def _integer(raw: bytes) -> int:
    return int(_text(raw))


def _number(raw: bytes) -> float:
    return float(_text(raw))


def _numbers(raw: bytes) -> tuple[float, ...]:
    text = _text(raw)
    return tuple(float(part) for part in text.split("\\")) if text else ()


def _unsigned(raw: bytes) -> int:
    if len(raw) != 2:
        raise ValueError("not one 16-bit number")
    return int.from_bytes(raw, "little")


# tag: (field, pydicom keyword, decoder)
_WANTED: dict[int, tuple[str, str, Callable[[bytes], Any]]] = {
    0x00020010: ("transfer_syntax", "TransferSyntaxUID", _text),
    0x00080008: ("image_type", "ImageType", _text),
    0x00080016: ("sop_class", "SOPClassUID", _text),
    0x00080018: ("sop_uid", "SOPInstanceUID", _text),
    0x00080060: ("modality", "Modality", _text),
    0x00100020: ("patient_id", "PatientID", _text),
    0x00181210: ("kernel", "ConvolutionKernel", _text),
    0x0020000D: ("study_uid", "StudyInstanceUID", _text),
    0x0020000E: ("series_uid", "SeriesInstanceUID", _text),
    0x00200032: ("position", "ImagePositionPatient", _numbers),
    0x00200037: ("orientation", "ImageOrientationPatient", _numbers),
    0x00200052: ("frame_uid", "FrameOfReferenceUID", _text),
    0x00280002: ("samples", "SamplesPerPixel", _unsigned),
    0x00280008: ("frames", "NumberOfFrames", _integer),
    0x00280010: ("rows", "Rows", _unsigned),
    0x00280011: ("columns", "Columns", _unsigned),
    0x00280030: ("spacing", "PixelSpacing", _numbers),
    0x00280100: ("bits_allocated", "BitsAllocated", _unsigned),
    0x00280101: ("bits_stored", "BitsStored", _unsigned),
    0x00280102: ("high_bit", "HighBit", _unsigned),
    0x00280103: ("signed", "PixelRepresentation", _unsigned),
    0x00280120: ("padding", "PixelPaddingValue", _unsigned),
    0x00280121: ("padding_limit", "PixelPaddingRangeLimit", _unsigned),
    0x00281052: ("intercept", "RescaleIntercept", _number),
    0x00281053: ("slope", "RescaleSlope", _number),
    0x00281054: ("rescale_type", "RescaleType", _text),
}
_PIXELS = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))


class _UnusualError(Exception):
    """The quick parser met something that it leaves to pydicom."""


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
            except _UnusualError:
                head += file.read(_WHOLE_HEADER)
    except OSError as error:
        problem = Problem(
            "E-FILE-005", "file cannot be read", error.strerror or "", files=(str(path),), transient=True
        )
        raise InputError(problem) from error
    try:
        return quick_header(head)
    except _UnusualError:
        return pydicom_header(path)


def quick_header(head: bytes) -> SliceHeader:
    """Parse a file's first bytes; raises `_UnusualError` where pydicom must look."""
    if head[128:132] != b"DICM":
        raise _UnusualError
    found: dict[str, Any] = {}
    try:
        at, syntax = _file_meta(head)
        found["transfer_syntax"] = syntax
        if syntax in (DEFLATED, BIG_ENDIAN, ""):
            raise _UnusualError
        at, tag = _elements(head, at, explicit=syntax != IMPLICIT_LITTLE, found=found, stop=0x7FE00008)
        if tag:
            if tag not in _PIXELS:
                raise _UnusualError
            begin, length, _ = _element(head, at, explicit=syntax != IMPLICIT_LITTLE)
            found["has_pixels"] = tag == 0x7FE00010
            plain = syntax in (EXPLICIT_LITTLE, IMPLICIT_LITTLE) and length != _UNDEFINED
            found["pixel_offset"] = begin if plain else -1
            found["pixel_length"] = -1 if length == _UNDEFINED else length
    except (struct.error, ValueError, RecursionError) as error:
        raise _UnusualError from error
    if "sop_class" not in found:
        raise _UnusualError
    return SliceHeader(**found, digest=blake2b(head[:at], digest_size=16).hexdigest())


_EXPLICIT = struct.Struct("<HH2sH").unpack_from
_IMPLICIT = struct.Struct("<HHI").unpack_from
_LENGTH = struct.Struct("<I").unpack_from


def _element(data: bytes, at: int, explicit: bool) -> tuple[int, int, int]:
    """Return where the value of the element at `at` begins, its length and its tag."""
    group, element, length = _IMPLICIT(data, at)
    if explicit and group != 0xFFFE:
        group, element, vr, length = _EXPLICIT(data, at)
        if vr in _LONG_VRS:
            return at + 12, _LENGTH(data, at + 8)[0], group << 16 | element
        if not vr.isalpha():
            raise _UnusualError
    return at + 8, length, group << 16 | element


def _file_meta(data: bytes) -> tuple[int, str]:
    """Return where the data set begins, and the transfer syntax; the meta group is always explicit."""
    at, syntax = 132, ""
    while data[at : at + 2] == b"\x02\x00":
        begin, length, tag = _element(data, at, explicit=True)
        at = begin + length
        if tag == 0x00020010:
            syntax = _text(data[begin:at])
    return at, syntax


def _elements(data: bytes, at: int, explicit: bool, found: dict[str, Any], stop: int) -> tuple[int, int]:
    """Collect wanted elements from `at` on; return the position and tag of the first one >= `stop`.

    Returns tag 0 at the end of a file that has no such element.
    """
    previous, end, wanted = 0, len(data), _WANTED
    while at + 8 <= end:
        begin, length, tag = _element(data, at, explicit)
        if tag >= stop:
            return at, tag
        if tag <= previous:
            raise _UnusualError
        previous = tag
        if length == _UNDEFINED:
            at = _skip_sequence(data, begin, explicit)
            continue
        at = begin + length
        if tag in wanted and length:
            if at > end:
                raise _UnusualError
            field, _, decode = wanted[tag]
            found[field] = decode(data[begin:at])
    if at == end and end < _FIRST_READ:
        return at, 0
    raise _UnusualError


def _skip_sequence(data: bytes, at: int, explicit: bool) -> int:
    """Return the position behind a sequence of undefined length that begins at `at`."""
    while True:
        begin, length, tag = _element(data, at, explicit)
        if tag == 0xFFFEE0DD:
            return begin
        if tag != 0xFFFEE000:
            raise _UnusualError
        at = begin + length if length != _UNDEFINED else _skip_item(data, begin, explicit)


def _skip_item(data: bytes, at: int, explicit: bool) -> int:
    """Return the position behind an item of undefined length that begins at `at`."""
    while True:
        begin, length, tag = _element(data, at, explicit)
        if tag == 0xFFFEE00D:
            return begin
        at = begin + length if length != _UNDEFINED else _skip_sequence(data, begin, explicit)


def pydicom_header(path: Path) -> SliceHeader:
    """Read a header with pydicom: any transfer syntax, no preamble, nested oddities.

    `pixel_offset` is -1: such files are decoded by pydicom, too.
    """
    import pydicom

    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True)
            end = file.tell()
            file.seek(0)
            digest = blake2b(file.read(end), digest_size=16).hexdigest()
            found = {"digest": digest, **_from_dataset(dataset)}
            if found.get("transfer_syntax") == DEFLATED:  # inflated as a whole: nothing is left to read
                file.seek(0)
                found["has_pixels"] = "PixelData" in pydicom.dcmread(file, specific_tags=["PixelData"])
            else:
                found["has_pixels"] = end < path.stat().st_size
        if not found.get("sop_class"):
            raise ValueError("no SOP class")
    except Exception as error:  # pydicom raises nearly anything on malformed files
        measured, action = type(error).__name__, "File skipped; copy it anew from its source"
        problem = Problem("E-FILE-003", "not a readable DICOM file", measured, "", action, (str(path),))
        raise InputError(problem) from error
    return SliceHeader(**found)


def _from_dataset(dataset: Any) -> dict[str, Any]:
    """Return the wanted fields of a pydicom dataset in the types of `SliceHeader`."""
    found: dict[str, Any] = {}
    for field, keyword, decode in _WANTED.values():
        holder = getattr(dataset, "file_meta", {}) if field == "transfer_syntax" else dataset
        value = holder.get(keyword)
        if value is None or value == "":
            continue
        if decode is _numbers:
            found[field] = tuple(float(part) for part in value)
        elif decode is _text:
            found[field] = _trim(str(value) if isinstance(value, str) else "\\".join(value))
        elif decode is _number:
            found[field] = float(value)
        else:
            found[field] = int(value) % 65536 if field.startswith("padding") else int(value)
    return found

"""What is kept of a DICOM header, and how its elements lie in a file (PS3.5 7.1)."""

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from toolkit.archive import files

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
IMPLICIT_LITTLE = "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"

WHOLE_HEADER = 4 * 1024 * 1024
UNDEFINED = 0xFFFFFFFF
_LONG_VRS = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)


class UnusualError(Exception):
    """The quick parser met something that it leaves to pydicom."""


class SliceHeader(NamedTuple):
    """What one DICOM file says of itself. None or empty where it says nothing.

    `position`, `orientation` and `spacing` are as stored (LPS mm, row then column cosines, row then
    column spacing in mm). `padding` is PixelPaddingValue and its range limit. `pixel_offset` is where
    the value of the pixel element begins (for a deflated file: in the inflated data set), -1 where
    pydicom must look for it; `pixel_length` is in bytes, -1 where undefined. `frame` is 0 for a whole
    file, from 1 on for one frame of a multi-frame file (`multi_frame.expand`).
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
    photometric: str = ""
    lossy: str = ""
    acquisition: int | None = None
    acquisition_images: int | None = None
    series_images: int | None = None
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
    frame: int = 0

    @property
    def uncompressed(self) -> bool:
        """True where rows can be read from the file as they lie in it."""
        native = self.transfer_syntax in (EXPLICIT_LITTLE, IMPLICIT_LITTLE)
        return native and self.pixel_offset >= 0 and self.pixel_length >= 0


class SliceFile(NamedTuple):
    """A DICOM file, or one frame of it, and its header."""

    path: str
    size: int
    mtime_ns: int
    header: SliceHeader


def text_of(raw: bytes) -> str:
    """Return a text of the default character set; ValueError where it is another."""
    return trim(raw.decode("ascii"))  # pydicom knows the other character sets


def trim(text: str) -> str:
    """Strip each value; leading and trailing spaces mean nothing (PS3.5 6.2)."""
    return "\\".join(part.strip(" \0") for part in text.split("\\"))


def integer(raw: bytes) -> int:
    """Return one IS."""
    return files.whole(text_of(raw))


def count(raw: bytes) -> int | None:
    """Return a number that nothing depends on; None where it is none."""
    try:
        return files.whole(text_of(raw))
    except ValueError:
        return None


def number(raw: bytes) -> float:
    """Return one DS."""
    return files.number(text_of(raw))


def numbers(raw: bytes) -> tuple[float, ...]:
    """Return all values of a DS."""
    text = text_of(raw)
    return tuple(files.number(part) for part in text.split("\\")) if text else ()


def unsigned(raw: bytes) -> int:
    """Return one US; a signed value beside it is read as its pattern."""
    if len(raw) != 2:
        raise ValueError("not one 16-bit number")
    return int.from_bytes(raw, "little")


# tag: (field, pydicom keyword, decoder)
WANTED: dict[int, tuple[str, str, Callable[[bytes], Any]]] = {
    0x00020010: ("transfer_syntax", "TransferSyntaxUID", text_of),
    0x00080008: ("image_type", "ImageType", text_of),
    0x00080016: ("sop_class", "SOPClassUID", text_of),
    0x00080018: ("sop_uid", "SOPInstanceUID", text_of),
    0x00080060: ("modality", "Modality", text_of),
    0x00100020: ("patient_id", "PatientID", text_of),
    0x00181210: ("kernel", "ConvolutionKernel", text_of),
    0x0020000D: ("study_uid", "StudyInstanceUID", text_of),
    0x0020000E: ("series_uid", "SeriesInstanceUID", text_of),
    0x00200012: ("acquisition", "AcquisitionNumber", count),
    0x00200032: ("position", "ImagePositionPatient", numbers),
    0x00200037: ("orientation", "ImageOrientationPatient", numbers),
    0x00200052: ("frame_uid", "FrameOfReferenceUID", text_of),
    0x00201002: ("acquisition_images", "ImagesInAcquisition", count),
    0x00201209: ("series_images", "NumberOfSeriesRelatedInstances", count),
    0x00280002: ("samples", "SamplesPerPixel", unsigned),
    0x00280004: ("photometric", "PhotometricInterpretation", text_of),
    0x00280008: ("frames", "NumberOfFrames", integer),
    0x00280010: ("rows", "Rows", unsigned),
    0x00280011: ("columns", "Columns", unsigned),
    0x00280030: ("spacing", "PixelSpacing", numbers),
    0x00280100: ("bits_allocated", "BitsAllocated", unsigned),
    0x00280101: ("bits_stored", "BitsStored", unsigned),
    0x00280102: ("high_bit", "HighBit", unsigned),
    0x00280103: ("signed", "PixelRepresentation", unsigned),
    0x00280120: ("padding", "PixelPaddingValue", unsigned),
    0x00280121: ("padding_limit", "PixelPaddingRangeLimit", unsigned),
    0x00281052: ("intercept", "RescaleIntercept", number),
    0x00281053: ("slope", "RescaleSlope", number),
    0x00281054: ("rescale_type", "RescaleType", text_of),
    0x00282110: ("lossy", "LossyImageCompression", text_of),
}


_EXPLICIT = struct.Struct("<HH2sH").unpack_from
_IMPLICIT = struct.Struct("<HHI").unpack_from
_LENGTH = struct.Struct("<I").unpack_from


def element_at(data: bytes, at: int, explicit: bool) -> tuple[int, int, int]:
    """Return where the value of the element at `at` begins, its length and its tag."""
    group, element, length = _IMPLICIT(data, at)
    if explicit and group != 0xFFFE:
        group, element, vr, length = _EXPLICIT(data, at)
        if vr in _LONG_VRS:
            return at + 12, _LENGTH(data, at + 8)[0], group << 16 | element
        if not vr.isalpha():
            raise UnusualError
    return at + 8, length, group << 16 | element


def file_meta(data: bytes) -> tuple[int, str]:
    """Return where the data set begins, and the transfer syntax; the meta group is always explicit."""
    at, syntax = 132, ""
    while data[at : at + 2] == b"\x02\x00":
        begin, length, tag = element_at(data, at, explicit=True)
        at = begin + length
        if tag == 0x00020010:
            syntax = text_of(data[begin:at])
    return at, syntax

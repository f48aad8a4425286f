"""DICOM objects that mark regions: opened within bounds, and what their heads say of scans and regions."""

import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from errno import EINVAL
from io import BytesIO
from itertools import islice
from typing import Any, BinaryIO, Literal, NamedTuple

from toolkit.archive.dicom_fields import BIG_ENDIAN, DEFLATED, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from toolkit.archive.dicom_general import meta_group
from toolkit.archive.files import bounded, refusal
from toolkit.archive.region_rule import NamedRegion
from toolkit.errors import InputError, Problem

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
KINDS: dict[str, Literal["seg", "rtstruct"]] = {
    SEGMENTATION: "seg",
    LABEL_MAP: "seg",
    STRUCTURE_SET: "rtstruct",
}
UNREADABLE = {"seg": ("E-SEG-001", "segmentation"), "rtstruct": ("E-RT-001", "structure set")}

_MAX_INFLATED = 256 << 20  # a deflated file of 300 kB can hold 300 MB; both lungs as bits have 16 MB
_MAX_STRUCTURES = 512 << 20  # contours of everything in a body are some 10 MB
_MAX_REFERENCES = 1 << 14
_ANATOMY = frozenset(  # category codes (PS3.16 CID 7150) and their meanings: what was healthy before
    ("123037004", "91723000", "85756007", "t-d000a", "t-d0050", "anatomical structure", "tissue")
)


class MaskHead(NamedTuple):
    """What a mask object says of itself.

    `sop_uids` are the images that it references, listed only where it names no series.
    """

    series_uids: tuple[str, ...]
    sop_uids: tuple[str, ...]
    regions: tuple[NamedRegion, ...]


class Opened(NamedTuple):
    """A parsed object up to its pixel data, and where that lies.

    `stream` is the open file or its inflated content; `pixel_length` is -1 where it is not stated, and
    `pixel_offset` -1 where there is no pixel data.
    """

    dataset: Any
    stream: BinaryIO
    syntax: str
    pixel_offset: int
    pixel_length: int
    size: int


@contextmanager
def trusted(kind: str, path: str) -> Iterator[None]:
    """Turn whatever goes wrong while a mask object is parsed into a refusal by name."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (InputError, MemoryError):
        raise
    except OSError as error:
        if error.errno in (None, EINVAL):  # pydicom's own, or a seek to where a damaged length points
            raise _unreadable(kind, error, path) from error
        reason, action = error.strerror or type(error).__name__, "rerun to try again"
        problem = Problem("E-FILE-005", "reading failed", reason, "", action, (path,), transient=True)
        raise InputError(problem) from error
    except Exception as error:  # pydicom raises nearly anything on malformed files
        raise _unreadable(kind, error, path) from error


def _unreadable(kind: str, error: Exception, path: str) -> InputError:
    code, name = UNREADABLE[kind]
    measured, expected = type(error).__name__, f"a well-formed DICOM {name}"
    return refusal(code, f"the {name} cannot be read", measured, expected, path=path)


@contextmanager
def opened(path: str) -> Iterator[Opened]:
    """Open a mask object and parse it up to its pixel data; wrap in `trusted`.

    Raises `InputError` E-VOL-003 where it inflates to more than 256 MiB.
    """
    import pydicom
    from pydicom.filereader import read_dataset

    with bounded(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        inflated = _inflated(file, path)
        if inflated is None:
            dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True)
            syntax = str(getattr(dataset, "file_meta", {}).get("TransferSyntaxUID", "")) or IMPLICIT_LITTLE
            yield _located(dataset, file, syntax, size)
        else:
            stream = BytesIO(inflated)
            dataset = read_dataset(stream, False, True, stop_when=lambda tag, *_: tag == 0x7FE00010)
            yield _located(dataset, stream, EXPLICIT_LITTLE, len(inflated))


def _inflated(file: BinaryIO, path: str) -> bytes | None:
    """Return the data set of a deflated file (PS3.5 A.5), or None where it is not deflated."""
    at, syntax = meta_group(file)
    if syntax != DEFLATED:
        file.seek(0)
        return None
    file.seek(at)
    member = zlib.decompressobj(-zlib.MAX_WBITS)
    data = member.decompress(file.read(), _MAX_INFLATED)
    if member.unconsumed_tail:
        measured = f"over {_MAX_INFLATED >> 20} MiB inflated"
        expected = f"at most {_MAX_INFLATED >> 20} MiB"
        raise refusal("E-VOL-003", "a deflated file that holds too much", measured, expected, path=path)
    if not member.eof:
        raise refusal("E-FILE-002", "the compressed data ends early", f"{len(data)} bytes", path=path)
    return data


def _located(dataset: Any, stream: BinaryIO, syntax: str, size: int) -> Opened:
    """Find the pixel data behind what was parsed."""
    at = stream.tell()
    head = stream.read(12)
    order: Literal["big", "little"] = "big" if syntax == BIG_ENDIAN else "little"
    group, element = int.from_bytes(head[:2], order), int.from_bytes(head[2:4], order)
    if (group, element) != (0x7FE0, 0x0010):
        return Opened(dataset, stream, syntax, -1, -1, size)
    begin = 8 if syntax == IMPLICIT_LITTLE else 12
    length = int.from_bytes(head[begin - 4 : begin], order)
    return Opened(dataset, stream, syntax, at + begin, -1 if length == 0xFFFFFFFF else length, size)


def read_head(kind: str, path: str) -> MaskHead:
    """Read what a mask object says of the scan and of its regions.

    Raises `InputError` E-SEG-001 or E-RT-001 where it cannot be read, E-FILE-005 where the system refuses.
    """
    with trusted(kind, path), opened(path) as found:
        if kind == "seg":
            series = list(items(found.dataset, "ReferencedSeriesSequence"))
            regions = segments(found.dataset)
        else:
            check_structures(found, path)
            studies = _deep(found.dataset, "ReferencedFrameOfReferenceSequence", "RTReferencedStudySequence")
            series = [item for study in studies for item in items(study, "RTReferencedSeriesSequence")]
            regions = rois(found.dataset)
        uids = tuple(sorted({uid for item in series if (uid := text(item, "SeriesInstanceUID"))}))
        images = () if uids else tuple(sorted(set(islice(_images(kind, found.dataset), _MAX_REFERENCES))))
        return MaskHead(uids, images, regions)


def check_structures(found: Opened, path: str) -> None:
    """Refuse a structure set that takes too much memory, for it has no pixels to leave out, or is cut short.

    pydicom parses what there is of the last element: contours would be missing, silently.
    """
    if found.size > _MAX_STRUCTURES:
        measured, expected = f"{found.size >> 20} MiB", f"at most {_MAX_STRUCTURES >> 20} MiB"
        raise refusal("E-VOL-003", "a structure set that holds too much", measured, expected, path=path)
    for tag in found.dataset.keys():  # noqa: SIM118  # the dataset itself would convert every element
        element = found.dataset.get_item(tag)
        there = len(element.value) if isinstance(getattr(element, "value", None), bytes) else 0
        if there and hasattr(element, "length") and there < element.length < 0xFFFFFFFF:
            measured, expected = f"{there} bytes in the last element", f"{element.length}"
            raise refusal("E-FILE-002", "the file is cut short", measured, expected, path=path)
    if "StructureSetROISequence" not in found.dataset or "ROIContourSequence" not in found.dataset:
        raise ValueError("no regions or no contours")


def items(holder: Any, keyword: str) -> Sequence[Any]:
    """Return the items of a sequence; none where it is absent or empty."""
    return holder.get(keyword) or () if holder is not None else ()


def text(holder: Any, keyword: str) -> str:
    """Return a text value; empty where there is none."""
    value = holder.get(keyword)
    return "" if value is None else str(value).strip(" \0")


def first(holder: Any, keyword: str) -> Any:
    """Return the first item of a sequence, or None."""
    return next(iter(items(holder, keyword)), None)


def segments(dataset: Any) -> tuple[NamedRegion, ...]:
    """Return the segments of a segmentation (PS3.3 C.8.20.4), each number once, else ValueError."""
    found = []
    for item in items(dataset, "SegmentSequence"):
        category = first(item, "SegmentedPropertyCategoryCodeSequence")
        kind = first(item, "SegmentedPropertyTypeCodeSequence")
        codes = {text(category, name).lower() for name in ("CodeValue", "CodeMeaning")} if category else set()
        found.append(
            NamedRegion(
                int(item.SegmentNumber),
                text(item, "SegmentLabel"),
                text(kind, "CodeMeaning") if kind is not None else "",
                "ANATOMY" if codes & _ANATOMY else "",
            )
        )
    return _unique(found)


def rois(dataset: Any) -> tuple[NamedRegion, ...]:
    """Return the regions of a structure set (PS3.3 C.8.8.5), each number once, else ValueError."""
    kinds = {
        int(item.ReferencedROINumber): text(item, "RTROIInterpretedType")
        for item in items(dataset, "RTROIObservationsSequence")
        if item.get("ReferencedROINumber") is not None
    }
    found = [
        NamedRegion(
            int(item.ROINumber), text(item, "ROIName"), kind=kinds.get(int(item.ROINumber), "").upper()
        )
        for item in items(dataset, "StructureSetROISequence")
    ]
    return _unique(found)


def _unique(regions: list[NamedRegion]) -> tuple[NamedRegion, ...]:
    if len({region.number for region in regions}) != len(regions):
        raise ValueError("a number that two regions have")
    return tuple(regions)


def _deep(dataset: Any, *keywords: str) -> Iterator[Any]:
    """Yield the items of a sequence in the items of sequences."""
    if not keywords:
        yield dataset
        return
    for item in items(dataset, keywords[0]):
        yield from _deep(item, *keywords[1:])


def _images(kind: str, dataset: Any) -> Iterator[str]:
    """Yield the SOP instance UIDs of the images that an object was drawn on."""
    frames = ("PerFrameFunctionalGroupsSequence", "DerivationImageSequence", "SourceImageSequence")
    ways = (
        (frames, frames[1:], frames[2:])
        if kind == "seg"
        else (("ROIContourSequence", "ContourSequence", "ContourImageSequence"),)
    )
    for way in ways:
        for item in _deep(dataset, *way):
            if uid := text(item, "ReferencedSOPInstanceUID"):
                yield uid

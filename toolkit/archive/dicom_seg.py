"""DICOM Segmentation objects (PS3.3 A.51, C.8.20): what a file says of its segments and frames."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from toolkit.archive.files import refusal, shown
from toolkit.archive.mask_object import Opened, first, items, opened, segments, text, trusted
from toolkit.archive.region_rule import NamedRegion

_PIXEL_BITS = {"BINARY": (1, 8), "FRACTIONAL": (8,), "LABELMAP": (8, 16)}


class Frame(NamedTuple):
    """One frame: its number in the file, its segment (0 in a label map), and what places it.

    `position`, `orientation` and `spacing` as in an image (LPS mm; row then column cosines; between rows,
    then columns). `sources` are the SOP instances that it was drawn on.
    """

    number: int
    segment: int
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Segmentation:
    """What a segmentation file says of itself.

    Attributes
    ----------
    kind
        A voxel is in a segment where it is not 0 (BINARY), at least half of `maximum` (FRACTIONAL), or
        the segment's number (LABELMAP).
    bits
        Allocated for a voxel.
    syntax, pixel_offset
        Transfer syntax, and where uncompressed pixels begin in the file (inflated, if it is deflated).
    """

    kind: Literal["BINARY", "FRACTIONAL", "LABELMAP"]
    rows: int
    columns: int
    bits: int
    maximum: int
    syntax: str
    pixel_offset: int
    regions: tuple[NamedRegion, ...]
    frames: tuple[Frame, ...]


def read_segmentation(path: str) -> Segmentation:
    """Read all but the pixels.

    Raises `InputError` E-SEG-001 where the file cannot be read, E-SEG-002 where its header contradicts
    itself, E-DCM-006 without pixels, E-FILE-002 where they are cut short.
    """
    with trusted("seg", path), opened(path) as found:
        d = found.dataset
        kind = text(d, "SegmentationType").upper()
        if kind not in _PIXEL_BITS or int(d.BitsAllocated) not in _PIXEL_BITS[kind]:
            measured = f"{shown(kind) or 'none'} of {int(d.BitsAllocated)} bits"
            raise _contradicts("segmentation type", measured, "BINARY, FRACTIONAL or LABELMAP", path)
        seg = Segmentation(
            kind=kind,  # type: ignore[arg-type]
            rows=int(d.Rows),
            columns=int(d.Columns),
            bits=int(d.BitsAllocated),
            maximum=int(d.get("MaximumFractionalValue") or 255),
            syntax=found.syntax,
            pixel_offset=found.pixel_offset,
            regions=segments(d),
            frames=_frames(d, label_map=kind == "LABELMAP"),
        )
        if int(d.get("SamplesPerPixel") or 1) != 1 or not seg.rows or not seg.columns or not seg.regions:
            raise _contradicts("header", "no segment, no voxel or several samples", "", path)
        _check_frames(seg, int(d.get("NumberOfFrames") or 1), path)
        _check_length(seg, found, path)
    return seg


def _contradicts(what: str, measured: str, expected: str, path: str) -> Exception:
    return refusal("E-SEG-002", f"{what} of the segmentation", measured, expected, path=path)


def _frames(dataset: Any, label_map: bool) -> tuple[Frame, ...]:
    """Return all frames; what a frame does not say itself, the shared functional groups do."""
    shared = first(dataset, "SharedFunctionalGroupsSequence")
    own = items(dataset, "PerFrameFunctionalGroupsSequence") or (None,)
    listed = items(dataset, "SegmentSequence")
    alone = int(listed[0].SegmentNumber) if not label_map and len(listed) == 1 else 0
    return tuple(_frame(number, group, shared, alone, label_map) for number, group in enumerate(own))


def _frame(number: int, group: Any, shared: Any, alone: int, label_map: bool) -> Frame:
    """Return one frame; `alone` is the number of the only segment, for files that do not repeat it."""

    def macro(keyword: str) -> Any:
        item = first(group, keyword)
        return item if item is not None else first(shared, keyword)

    def numbers(keyword: str, value: str) -> tuple[float, ...]:
        item = macro(keyword)
        return tuple(map(float, item.get(value) or ())) if item is not None else ()

    named = None if label_map else macro("SegmentIdentificationSequence")
    derivations = items(group, "DerivationImageSequence") or items(shared, "DerivationImageSequence")
    return Frame(
        number,
        alone if named is None else int(named.ReferencedSegmentNumber),
        numbers("PlanePositionSequence", "ImagePositionPatient"),
        numbers("PlaneOrientationSequence", "ImageOrientationPatient"),
        numbers("PixelMeasuresSequence", "PixelSpacing"),
        tuple(
            uid
            for derivation in derivations
            for source in items(derivation, "SourceImageSequence")
            if (uid := text(source, "ReferencedSOPInstanceUID"))
        ),
    )


def _check_frames(seg: Segmentation, count: int, path: str) -> None:
    """Refuse a frame that does not say of which segment it is, or where it lies."""
    if count != len(seg.frames):
        raise _contradicts("frames", f"{count}", f"{len(seg.frames)} described frames", path)
    known = {region.number for region in seg.regions}
    for frame in seg.frames:
        sizes = len(frame.position), len(frame.orientation), len(frame.spacing)
        numbers = (*frame.position, *frame.orientation, *frame.spacing)
        if sizes != (3, 6, 2) or not all(map(math.isfinite, numbers)) or min(frame.spacing) <= 0:
            what = f"plane of frame {frame.number + 1} of {count}"
            raise _contradicts(what, "no usable position, orientation or spacing", "all three", path)
        if seg.kind != "LABELMAP" and frame.segment not in known:
            measured = f"segment {frame.segment} in frame {frame.number + 1}"
            raise _contradicts("frames", measured, "a segment that the file describes", path)


def _check_length(seg: Segmentation, found: Opened, path: str) -> None:
    """Refuse a file that does not hold the frames that it declares, before anything is allocated."""
    if found.pixel_offset < 0:
        raise refusal("E-DCM-006", "no pixel data", path=path)
    there = found.size - found.pixel_offset
    wanted = (seg.rows * seg.columns * seg.bits * len(seg.frames) + 7) // 8
    held = there if found.pixel_length < 0 else min(there, found.pixel_length)
    if found.pixel_length >= 0 and held < wanted:
        measured = f"{held} bytes for {len(seg.frames)} frames of {seg.rows} x {seg.columns}"
        raise refusal("E-FILE-002", "pixel data cut short", measured, f"{wanted}", path=path)


def only(seg: Segmentation, numbers: Iterable[int]) -> Segmentation:
    """Return the segmentation with the frames of some segments only; a label map keeps all its frames."""
    wanted = {0, *numbers} if seg.kind == "LABELMAP" else set(numbers)
    return replace(seg, frames=tuple(frame for frame in seg.frames if frame.segment in wanted))

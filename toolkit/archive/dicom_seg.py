"""DICOM Segmentation objects: what a file says of its frames, and where each lies on the grid of the scan.

PS3.3 A.51 (Segmentation) and A.51.6 (Label Map). A frame goes where its own position puts it, and that
must be the slice of the image it references: frame numbers mean nothing.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from toolkit.archive.files import refusal, shown
from toolkit.archive.image_grid import HALF, ImageGrid
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


class Place(NamedTuple):
    """Where a frame lies: canonical slice, and how its rows and columns run along the canonical axes."""

    slice_axis: int
    slice_number: int
    row_axis: int
    column_axis: int
    flip_rows: bool
    flip_columns: bool


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


def place_frames(frames: Iterable[Frame], seg: Segmentation, grid: ImageGrid, path: str) -> dict[int, Place]:
    """Return where frames lie on the grid of the scan, by frame number.

    Corner positions in mm decide, not the numbers of a header: a flip within the plane is a relabelling
    and placed as it is.

    Raises
    ------
    InputError
        E-SEG-003 for a reference that the series lacks, E-SEG-004 where position and reference disagree by
        more than half a spacing, E-SEG-005 for a frame on no slice, E-SEG-006 for two frames of a segment
        on one slice, E-MASK-001 where the rows and columns are not those of the scan.
    """
    groups: dict[tuple[tuple[float, ...], tuple[float, ...]], list[Frame]] = {}
    for frame in frames:
        groups.setdefault((frame.orientation, frame.spacing), []).append(frame)
    places: dict[int, Place] = {}
    for alike in groups.values():
        places.update(_place_alike(alike, seg, grid, path))
    taken: dict[tuple[int, int, int], int] = {}
    for frame in frames:
        place = places[frame.number]
        key = frame.segment, place.slice_axis, place.slice_number
        if key in taken:
            measured = f"frames {taken[key] + 1} and {frame.number + 1} of segment {frame.segment}"
            raise refusal("E-SEG-006", "two frames on one slice", measured, "one", path=path)
        taken[key] = frame.number
    return places


def _place_alike(
    frames: Sequence[Frame], seg: Segmentation, grid: ImageGrid, path: str
) -> Mapping[int, Place]:
    """Place frames of one orientation and spacing."""
    row, column = np.array(frames[0].orientation).reshape(2, 3)
    steps = np.column_stack([column * frames[0].spacing[0], row * frames[0].spacing[1]])  # down, right
    inverse = np.linalg.inv(grid.geometry.affine[:3, :3])
    along = inverse @ steps
    row_axis, column_axis = (int(axis) for axis in np.abs(along).argmax(axis=0))
    slice_axis = 3 - row_axis - column_axis
    shape = grid.geometry.shape_zyx
    if row_axis == column_axis or grid.slice_axis not in (None, slice_axis):
        raise _other_grid("planes that cut across the slices", "planes along the slices", path)
    if (seg.rows, seg.columns) != (shape[row_axis], shape[column_axis]):
        expected = f"the {shape[row_axis]} x {shape[column_axis]} of the image"
        raise _other_grid(f"{seg.rows} x {seg.columns} voxels", expected, path)
    place = Place(
        slice_axis,
        0,
        row_axis,
        column_axis,
        bool(along[row_axis, 0] < 0),
        bool(along[column_axis, 1] < 0),
    )
    ends = np.array([(r, c) for r in (0, seg.rows - 1) for c in (0, seg.columns - 1)], np.float64)
    origins = grid.geometry.to_nominal_index(np.array([frame.position for frame in frames]))
    corners = origins[:, None] + ends @ along.T  # frame, corner, zyx
    numbers = _slices_of(frames, corners[..., slice_axis], slice_axis, grid, path)
    _check_in_plane(frames, corners, ends, place, grid, path)
    return {
        frame.number: place._replace(slice_number=int(number))
        for frame, number in zip(frames, numbers, strict=True)
    }


def _slices_of(
    frames: Sequence[Frame], depth: NDArray[np.float64], axis: int, grid: ImageGrid, path: str
) -> NDArray[np.int64]:
    """Return the slice of each frame, `depth` (frames, corners) being where its corners lie."""
    numbers, _ = grid.nearest(axis, depth.mean(axis=1))
    referenced = np.zeros(len(frames), bool)
    if grid.slices_by_sop_uid:
        for k, frame in enumerate(frames):
            found = [n for uid in frame.sources for n in grid.slices_by_sop_uid.get(uid, ())]
            if frame.sources and not found:
                measured = f"frame {frame.number + 1} of segment {frame.segment}"
                action = "the file is refused; it was drawn on another series"
                what = "a frame references an image that the series does not have"
                raise refusal("E-SEG-003", what, measured, "", action, path)
            if found and numbers[k] not in found:
                numbers[k] = min(found, key=lambda n: abs(n - int(numbers[k])))
            referenced[k] = bool(found)
    away = np.max([grid.off(axis, corner, numbers) for corner in depth.T], axis=0)
    worst = int(away.argmax())
    if away[worst] > HALF:
        gap = float(np.abs(depth[worst] - grid.positions(axis)[numbers[worst]]).max())
        millimetres = gap * grid.spacing_along(axis)
        what = f"frame {frames[worst].number + 1} of segment {frames[worst].segment}"
        expected = "at most half a slice spacing"
        if referenced[worst]:
            measured = f"{what} lies {millimetres:.2f} mm from the image that it references"
            code, title = "E-SEG-004", "position and reference contradict each other"
        else:
            measured = f"{what} lies {millimetres:.2f} mm from the nearest slice"
            code, title = "E-SEG-005", "a frame lies on no slice of the scan"
        raise refusal(code, title, measured, expected, path=path)
    return numbers


def _check_in_plane(
    frames: Sequence[Frame],
    corners: NDArray[np.float64],
    ends: NDArray[np.float64],
    place: Place,
    grid: ImageGrid,
    path: str,
) -> None:
    """Refuse frames whose corners are more than half a voxel from those of the image, in its plane."""
    axes = [place.row_axis, place.column_axis]
    last = np.array([grid.geometry.shape_zyx[axis] - 1 for axis in axes])
    exact = np.where([place.flip_rows, place.flip_columns], last - ends, ends)
    shift = np.abs(corners[..., axes] - exact).max(axis=1)  # frame, row or column
    frame, axis = np.unravel_index(int(shift.argmax()), shift.shape)
    if not shift[frame, axis] <= HALF:
        millimetres = shift[frame, axis] * grid.spacing_along(axes[int(axis)])
        which = f"a corner of frame {frames[int(frame)].number + 1}"
        raise _other_grid(
            f"{which} lies {shift[frame, axis]:.2f} voxels ({millimetres:.2f} mm) off",
            "at most 0.5 voxel",
            path,
        )


def _other_grid(measured: str, expected: str, path: str) -> Exception:
    action = "the mask is refused; resample it onto its image with nearest neighbours"
    return refusal("E-MASK-001", "mask and image do not share one grid", measured, expected, action, path)


def only(seg: Segmentation, numbers: Iterable[int]) -> Segmentation:
    """Return the segmentation with the frames of some segments only; a label map keeps all its frames."""
    wanted = {0, *numbers} if seg.kind == "LABELMAP" else set(numbers)
    return replace(seg, frames=tuple(frame for frame in seg.frames if frame.segment in wanted))

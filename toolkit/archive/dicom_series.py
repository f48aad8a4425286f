"""A DICOM CT series as one volume: order by position, check the geometry, read only what is needed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from toolkit.archive.dicom_header import SliceHeader
from toolkit.archive.dicom_pixels import HuRule, decodable, hu_rule, read_rows, stored_length
from toolkit.archive.geometry import Box, Geometry, Reorientation, canonical
from toolkit.errors import InputError, Problem

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
MULTI_FRAME_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
MIN_SLICES = 3


class SliceFile(NamedTuple):
    """A DICOM file and its header."""

    path: str
    size: int
    mtime_ns: int
    header: SliceHeader


@dataclass(frozen=True)
class SeriesRules:
    """Which irregular stacks are read.

    Attributes
    ----------
    allow_uneven
        Sample unevenly spaced slices where they are, instead of refusing the series.
    allow_missing
        Interpolate across missing slices, instead of refusing the series.
    """

    allow_uneven: bool = False
    allow_missing: bool = False


@dataclass(frozen=True, eq=False)
class DicomSeries:
    """A CT series on disk; implements `VolumeSource`.

    Attributes
    ----------
    files
        Native slice order: ascending along the cross product of row and column direction.
    rules
        How stored values of each slice become HU.
    native_shape
        Slices, rows, columns.
    native
        Geometry of the stored order: slice, row, column.
    reorientation
        From the native to the canonical order of `geometry`.
    """

    files: tuple[SliceFile, ...]
    rules: tuple[HuRule, ...]
    native: Geometry
    geometry: Geometry
    reorientation: Reorientation

    def slice_by_sop_uid(self) -> dict[str, int]:
        """Return the native slice number of every SOP instance."""
        return {file.header.sop_uid: k for k, file in enumerate(self.files)}

    def read_boxes(self, boxes: Sequence[Box]) -> list[NDArray[np.int16]]:
        """Read HU of canonical boxes, each slice once and of it only the rows that a box crosses."""
        native = [self.reorientation.box(box, self.native.shape_zyx) for box in boxes]
        arrays = [np.empty(box.shape_zyx, np.int16) for box in native]
        for k, (file, rule) in enumerate(zip(self.files, self.rules, strict=True)):
            here = [i for i, box in enumerate(native) if box.start_zyx[0] <= k < box.stop_zyx[0]]
            if not here:
                continue
            first = min(native[i].start_zyx[1] for i in here)
            last = max(native[i].stop_zyx[1] for i in here)
            stored = read_rows(file.path, file.size, file.mtime_ns, file.header, first, last)
            for i in here:
                (z, y0, x0), (_, y1, x1) = native[i].start_zyx, native[i].stop_zyx
                np.take(rule.table, stored[y0 - first : y1 - first, x0:x1], out=arrays[i][k - z], mode="clip")
        return [np.asarray(self.reorientation.array(array), np.int16) for array in arrays]


@dataclass(frozen=True)
class SeriesFiles:
    """The slices of a series, not yet judged; an `Unopened` scan."""

    files: tuple[SliceFile, ...]
    rules: SeriesRules

    def open(self) -> tuple[DicomSeries, tuple[Problem, ...]]:
        """Do what `build_series` does."""
        return build_series(self.files, self.rules)


def build_series(files: Sequence[SliceFile], rules: SeriesRules) -> tuple[DicomSeries, tuple[Problem, ...]]:
    """Make one volume of the CT slices of one series.

    Returns the series and notes on what was read in spite of a blemish. Raises `InputError` with
    E-DCM-*, E-GEO-*, E-HU-* or E-FILE-002 where it cannot be trusted.
    """
    for file in files:
        _check_slice(file)
    files = sorted(files, key=lambda f: (f.header.position, f.header.sop_uid, f.path))  # names mean nothing
    row, column = _directions(files)
    normal = np.cross(row, column)
    ordered, notes = _in_order(files, normal)
    _check_alike(ordered)
    origins = np.array([file.header.position for file in ordered])
    step, positions, gap_notes = _stack(ordered, origins, normal, rules)
    spacing = ordered[0].header.spacing
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = column * spacing[0]
    affine[:3, 2] = row * spacing[1]
    affine[:3, 3] = origins[0]
    rows, columns = int(ordered[0].header.rows or 0), int(ordered[0].header.columns or 0)
    native = Geometry((len(ordered), rows, columns), affine, positions)
    geometry, reorientation = canonical(native)
    hu_rules = tuple(hu_rule(file.header, file.path) for file in ordered)
    return DicomSeries(tuple(ordered), hu_rules, native, geometry, reorientation), (*notes, *gap_notes)


def _refuse(code: str, what: str, measured: str, expected: str, action: str, *paths: str) -> InputError:
    return InputError(Problem(code, what, measured, expected, action, paths))


def _check_slice(file: SliceFile) -> None:
    """Refuse a slice that lacks what geometry needs or cannot be decoded."""
    h = file.header
    if h.sop_class in MULTI_FRAME_CT or (h.frames or 1) > 1:
        raise _refuse("E-DCM-005", "multi-frame CT", f"{h.frames} frames", "1", "Series skipped", file.path)
    if not h.has_pixels:
        raise _refuse("E-DCM-006", "no pixel data", "", "", "Series skipped", file.path)
    needed = (
        ("ImagePositionPatient", len(h.position) == 3),
        ("ImageOrientationPatient", len(h.orientation) == 6),
        ("PixelSpacing", len(h.spacing) == 2 and min(h.spacing) > 0),
        ("Rows and Columns", bool(h.rows and h.columns)),
        ("SeriesInstanceUID", bool(h.series_uid)),
    )
    missing = [name for name, present in needed if not present]
    if missing or not all(map(math.isfinite, (*h.position, *h.orientation, *h.spacing))):
        text = ", ".join(missing) or "a number that is not finite"
        raise _refuse("E-DCM-002", "header incomplete", f"no usable {text}", "", "Series skipped", file.path)
    if h.samples not in (None, 1) or h.bits_allocated not in (8, 16) or not h.bits_stored:
        layout = f"{h.samples or 1} samples of {h.bits_allocated} bits"
        raise _refuse("E-DCM-006", "pixel layout", layout, "1 sample of 8 or 16", "Series skipped", file.path)
    if not decodable(h):
        action = "Series skipped; install a pydicom plug-in that decodes it"
        raise _refuse(
            "E-DCM-003",
            "no decoder for the pixels",
            f"transfer syntax {h.transfer_syntax}",
            "",
            action,
            file.path,
        )
    found = max(0, min(h.pixel_length, file.size - h.pixel_offset))
    if h.pixel_offset >= 0 and found < stored_length(h):
        raise _refuse(
            "E-FILE-002",
            "pixel data cut short",
            f"{found} bytes",
            f"{stored_length(h)}",
            "Series skipped",
            file.path,
        )


def _directions(files: Sequence[SliceFile]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the unit directions along a row and along a column, the same for all slices."""
    orientations = np.array([file.header.orientation for file in files])
    extent = max(int(files[0].header.rows or 0), int(files[0].header.columns or 0))
    drift = np.abs(orientations - orientations[0]).max(axis=1)
    if drift.max() * extent > 0.5:
        other = files[int(drift.argmax())].path
        raise _refuse(
            "E-DCM-004",
            "orientation differs between slices",
            f"cosines differ by {drift.max():.3g}",
            f"at most {0.5 / extent:.2g}",
            "Series skipped",
            files[0].path,
            other,
        )
    row, column = orientations[0, :3], orientations[0, 3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(length - 1) for length in lengths) > 1e-3 or abs(row @ column) > 1e-3:
        raise _refuse(
            "E-GEO-006",
            "orientation is no rotation",
            f"lengths {lengths[0]:.4f} and {lengths[1]:.4f}, dot product {row @ column:.4f}",
            "1, 1 and 0 within 0.001",
            "Series skipped",
            files[0].path,
        )
    return row / lengths[0], column / lengths[1]


def _in_order(
    files: Sequence[SliceFile], normal: NDArray[np.float64]
) -> tuple[list[SliceFile], tuple[Problem, ...]]:
    """Return slices by position along the normal, identical copies dropped."""
    depth = {file.path: float(np.dot(file.header.position, normal)) for file in files}
    ordered: list[SliceFile] = []
    notes: list[Problem] = []
    for file in sorted(files, key=lambda f: (depth[f.path], f.header.sop_uid, f.path)):
        if not ordered or depth[file.path] - depth[ordered[-1].path] > 1e-3:
            ordered.append(file)
        elif _same_file(file, ordered[-1]):
            notes.append(Problem("W-DCM-001", "identical copy of a slice dropped", files=(file.path,)))
        else:
            raise _refuse(
                "E-GEO-002",
                "two different slices at one position",
                f"both at {depth[file.path]:.2f} mm along the stack",
                "one",
                "Series skipped; name the slices of one reconstruction in a folder of their own",
                ordered[-1].path,
                file.path,
            )
    if len(ordered) < MIN_SLICES:
        count = f"{len(ordered)}"
        raise _refuse(
            "E-GEO-001", "too few slices", count, f"at least {MIN_SLICES}", "Series skipped", files[0].path
        )
    return ordered, tuple(notes)


def _same_file(a: SliceFile, b: SliceFile) -> bool:
    if a.header.sop_uid != b.header.sop_uid or a.size != b.size or a.header.digest != b.header.digest:
        return False
    return Path(a.path).read_bytes() == Path(b.path).read_bytes()


def _check_alike(files: Sequence[SliceFile]) -> None:
    """Refuse slices of one series that differ in size or spacing.

    FrameOfReferenceUID is not compared: LIDC-IDRI's anonymisation gave every slice its own.
    """
    first = files[0]
    for name, field in (("Rows", "rows"), ("Columns", "columns")):
        for file in files:
            if getattr(file.header, field) != getattr(first.header, field):
                raise _refuse(
                    "E-DCM-004",
                    f"{name} differs between slices",
                    f"{getattr(file.header, field)}",
                    f"{getattr(first.header, field)}",
                    "Series skipped",
                    first.path,
                    file.path,
                )
    for file in files:
        ratio = np.abs(np.array(file.header.spacing) / first.header.spacing - 1).max()
        if ratio * max(first.header.rows or 0, first.header.columns or 0) > 0.5:
            raise _refuse(
                "E-DCM-004",
                "PixelSpacing differs between slices",
                f"{file.header.spacing[0]:g} mm",
                f"{first.header.spacing[0]:g} mm",
                "Series skipped",
                first.path,
                file.path,
            )


def _stack(
    files: Sequence[SliceFile], origins: NDArray[np.float64], normal: NDArray[np.float64], rules: SeriesRules
) -> tuple[NDArray[np.float64], tuple[float, ...] | None, tuple[Problem, ...]]:
    """Return the step from slice to slice in mm (LPS), positions of an uneven stack, and notes."""
    depth = origins @ normal
    depth = depth - depth[0]
    along = (origins[-1] - origins[0]) / depth[-1]
    sideways = np.linalg.norm(origins - origins[0] - depth[:, None] * along, axis=1)
    pixel = min(files[0].header.spacing)
    if sideways.max() > 0.25 * pixel:
        raise _refuse(
            "E-GEO-005",
            "slices do not lie on one straight line",
            f"{sideways.max():.2f} mm off",
            f"at most {0.25 * pixel:.2f} mm",
            "Series skipped",
            files[int(sideways.argmax())].path,
        )
    gaps = np.diff(depth)
    usual = float(np.median(gaps))
    steps = np.where(gaps > 1.5 * usual, np.rint(gaps / usual), 1.0)
    number = np.concatenate([[0.0], np.cumsum(steps)])  # of each slice, the missing ones counted
    mean = float(depth[-1] / number[-1])
    tolerance = max(0.01 * usual, 0.02)
    wide = int(gaps.argmax())
    if gaps[wide] > 1.5 * usual and not rules.allow_missing:
        lost = int(number[-1]) - len(gaps)
        raise _refuse(
            "E-GEO-003",
            "missing slices",
            f"{gaps[wide]:.2f} mm between neighbours (about {lost} lost in the series)",
            f"{usual:.2f} mm",
            "Series skipped; --allow-missing interpolates across the gap",
            files[wide].path,
            files[wide + 1].path,
        )
    uneven = np.abs(depth - mean * number)
    if uneven.max() <= tolerance and steps.max() == 1:
        return along * mean, None, ()
    if uneven.max() > tolerance and not rules.allow_uneven:
        raise _refuse(
            "E-GEO-004",
            "uneven slice spacing",
            f"{gaps.min():.3f} to {gaps.max():.3f} mm, a slice {uneven.max():.3f} mm off an even grid",
            f"{usual:.3f} mm within {tolerance:.3f} mm",
            "Series skipped; --allow-uneven samples the slices where they are",
            files[max(0, int(uneven.argmax()) - 1)].path,
            files[int(uneven.argmax())].path,
        )
    note = Problem(
        "W-GEO-001", "uneven slices sampled where they are", f"{gaps.min():.3f} to {gaps.max():.3f} mm apart"
    )
    return along * usual, tuple(float(d / usual) for d in depth), (note,)

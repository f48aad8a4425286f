"""A DICOM CT series as one volume: order by position, check the geometry, read only what is needed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.archive.dicom_fields import SliceFile
from toolkit.archive.dicom_pixels import HuRule, hu_rule, read_rows
from toolkit.archive.geometry import Box, Geometry, Reorientation, canonical
from toolkit.archive.hu import Tally
from toolkit.archive.slice_checks import check_alike, check_slice, directions, notes_on, refuse
from toolkit.errors import Problem

MIN_SLICES = 3


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

    files: Sequence[SliceFile]
    rules: tuple[HuRule, ...]
    native: Geometry
    geometry: Geometry
    reorientation: Reorientation

    def slice_by_sop_uid(self) -> dict[str, int]:
        """Return the native slice number of every SOP instance that is one slice."""
        return {f.header.sop_uid: k for k, f in enumerate(self.files) if not f.header.frame}

    def slice_by_frame(self) -> dict[tuple[str, int], int]:
        """Return the native slice number of every (SOP instance, frame number from 1 on)."""
        return {(f.header.sop_uid, f.header.frame or 1): k for k, f in enumerate(self.files)}

    def read_boxes(self, boxes: Sequence[Box], tally: Tally | None = None) -> list[NDArray[np.int16]]:
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
            below = None if tally is None else rule.below
            for i in here:
                (z, y0, x0), (_, y1, x1) = native[i].start_zyx, native[i].stop_zyx
                part = stored[y0 - first : y1 - first, x0:x1]
                np.take(rule.table, part, out=arrays[i][k - z], mode="clip")
                if tally is not None and below is not None:
                    tally.below += int(np.count_nonzero(below[part]))
        return [np.asarray(self.reorientation.array(array), np.int16) for array in arrays]


@dataclass(frozen=True)
class SeriesFiles:
    """The slices of a series, not yet judged; an `Unopened` scan."""

    uid: str
    files: Sequence[SliceFile]
    rules: SeriesRules

    def open(self) -> tuple[DicomSeries, tuple[Problem, ...]]:
        """Do what `build_series` does."""
        return build_series(self.files, self.rules)


def build_series(files: Sequence[SliceFile], rules: SeriesRules) -> tuple[DicomSeries, tuple[Problem, ...]]:
    """Make one volume of the CT slices of one series.

    Returns the series and notes on what was read in spite of a blemish. Raises `InputError` with
    E-DCM-*, E-GEO-*, E-HU-* or E-FILE-002 where it cannot be trusted.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # absurd numbers are refused with what they are
        return _build(files, rules)


def _build(files: Sequence[SliceFile], rules: SeriesRules) -> tuple[DicomSeries, tuple[Problem, ...]]:
    files = tuple(files)
    for file in files:
        check_slice(file)
    files = sorted(files, key=_order)  # names mean nothing
    row, column = directions(files)
    normal = np.cross(row, column)
    ordered, notes = _in_order(files, normal)
    check_alike(ordered)
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
    return DicomSeries(tuple(ordered), hu_rules, native, geometry, reorientation), (
        *notes,
        *gap_notes,
        *notes_on(ordered),
    )


def _order(file: SliceFile) -> tuple[object, ...]:
    return file.header.position, file.header.sop_uid, file.header.frame, file.path


def _in_order(
    files: Sequence[SliceFile], normal: NDArray[np.float64]
) -> tuple[list[SliceFile], tuple[Problem, ...]]:
    """Return slices by position along the normal, copies of the same pixels dropped."""
    placed = [(float(np.dot(file.header.position, normal)), file) for file in files]
    ordered: list[tuple[float, SliceFile]] = []
    notes: list[Problem] = []
    for depth, file in sorted(placed, key=lambda p: (p[0], *_order(p[1])[1:])):
        if not ordered or depth - ordered[-1][0] > 1e-3:
            ordered.append((depth, file))
        elif _same_slice(file, ordered[-1][1]):
            notes.append(Problem("W-DCM-001", "identical copy of a slice dropped", files=(file.path,)))
        else:
            raise refuse(
                "E-GEO-002",
                "two different slices at one position",
                f"both at {depth:.2f} mm along the stack",
                "one",
                "Series skipped; name the slices of one reconstruction in a folder of their own",
                ordered[-1][1].path,
                file.path,
            )
    if len(ordered) < MIN_SLICES:
        count = f"{len(ordered)}"
        raise refuse(
            "E-GEO-001", "too few slices", count, f"at least {MIN_SLICES}", "Series skipped", files[0].path
        )
    return [file for _, file in ordered], tuple(notes)


def _same_slice(a: SliceFile, b: SliceFile) -> bool:
    """Tell whether two files hold the same slice, in whatever encoding: same UID, place and HU."""
    fields = ("sop_uid", "frame", "rows", "columns", "spacing", "position", "orientation")
    if any(getattr(a.header, field) != getattr(b.header, field) for field in fields):
        return False
    one, other = (_slice_hu(file) for file in (a, b))
    return bool(np.array_equal(one, other))


def _slice_hu(file: SliceFile) -> NDArray[np.int16]:
    rule, rows = hu_rule(file.header, file.path), int(file.header.rows or 0)
    stored = read_rows(file.path, file.size, file.mtime_ns, file.header, 0, rows)
    hu: NDArray[np.int16] = rule.table[stored]
    return hu


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
        raise refuse(
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
        raise refuse(
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
        raise refuse(
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

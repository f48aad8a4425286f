"""What must hold of the slices of one series before their order matters, and what is only said of them."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from toolkit.archive.dicom_fields import DEFLATED, SliceFile
from toolkit.archive.dicom_pixels import decodable, is_lossy, stored_length
from toolkit.archive.files import shown
from toolkit.archive.multi_frame import MULTI_FRAME_CT
from toolkit.errors import InputError, Problem

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"


def refuse(code: str, what: str, measured: str, expected: str, action: str, *paths: str) -> InputError:
    """Return the error that refuses a series; each file is named once."""
    return InputError(Problem(code, what, measured, expected, action, tuple(dict.fromkeys(paths))))


def check_slice(file: SliceFile) -> None:
    """Refuse a slice that lacks what geometry needs or cannot be decoded."""
    h = file.header
    if not h.frame and (h.sop_class in MULTI_FRAME_CT or (h.frames or 1) > 1):
        what, expected = "several frames without a place of their own", "1, or an Enhanced CT"
        raise refuse("E-DCM-005", what, f"{h.frames} frames", expected, "Series skipped", file.path)
    if not h.has_pixels:
        raise refuse("E-DCM-006", "no pixel data", "", "", "Series skipped", file.path)
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
        raise refuse("E-DCM-002", "header incomplete", f"no usable {text}", "", "Series skipped", file.path)
    _check_pixels(file)


def _check_pixels(file: SliceFile) -> None:
    """Refuse pixels that are no grey values, that nothing decodes, or that are cut short."""
    h = file.header
    colour = h.photometric not in ("", "MONOCHROME1", "MONOCHROME2")
    if colour or h.samples not in (None, 1) or h.bits_allocated not in (8, 16) or not h.bits_stored:
        layout = f"{h.samples or 1} samples of {h.bits_allocated} bits {shown(h.photometric)}".rstrip()
        raise refuse(
            "E-DCM-006", "pixel layout", layout, "1 grey sample of 8 or 16 bits", "Series skipped", file.path
        )
    if not decodable(h):
        action = "Series skipped; convert the files to an uncompressed transfer syntax"
        raise refuse(
            "E-DCM-003",
            "no decoder for the pixels",
            f"transfer syntax {shown(h.transfer_syntax)}",
            "",
            action,
            file.path,
        )
    known = h.uncompressed or h.transfer_syntax == DEFLATED
    found = min(h.pixel_length, file.size - h.pixel_offset) if h.uncompressed else h.pixel_length
    if known and found < stored_length(h):
        raise refuse(
            "E-FILE-002",
            "pixel data cut short",
            f"{max(0, found)} bytes",
            f"{stored_length(h)}",
            "Series skipped",
            file.path,
        )


def directions(files: Sequence[SliceFile]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the unit directions along a row and along a column, the same for all slices."""
    orientations = np.array([file.header.orientation for file in files])
    extent = max(int(files[0].header.rows or 0), int(files[0].header.columns or 0))
    drift = np.abs(orientations - orientations[0]).max(axis=1)
    if drift.max() * extent > 0.5:
        other = files[int(drift.argmax())].path
        raise refuse(
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
        raise refuse(
            "E-GEO-006",
            "orientation is no rotation",
            f"lengths {lengths[0]:.4f} and {lengths[1]:.4f}, dot product {row @ column:.4f}",
            "1, 1 and 0 within 0.001",
            "Series skipped",
            files[0].path,
        )
    return row / lengths[0], column / lengths[1]


def check_alike(files: Sequence[SliceFile]) -> None:
    """Refuse slices of one series that differ in size or spacing.

    FrameOfReferenceUID is not compared: LIDC-IDRI's anonymisation gave every slice its own.
    """
    first = files[0]
    for name, field in (("Rows", "rows"), ("Columns", "columns")):
        for file in files:
            if getattr(file.header, field) != getattr(first.header, field):
                raise refuse(
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
            raise refuse(
                "E-DCM-004",
                "PixelSpacing differs between slices",
                f"{file.header.spacing[0]:g} mm",
                f"{first.header.spacing[0]:g} mm",
                "Series skipped",
                first.path,
                file.path,
            )


def notes_on(files: Sequence[SliceFile]) -> tuple[Problem, ...]:
    """Return what is to be known of a series that is read all the same."""
    headers = [file.header for file in files]
    notes = []
    lossy = sum(map(is_lossy, headers))
    if lossy:
        measured = f"{lossy} of {len(files)} slices"
        what, action = "lossy compression", "Read; values differ from the scanner's by what was lost"
        notes.append(Problem("W-DCM-002", what, measured, "", action))
    rescales = {(h.slope, h.intercept) for h in headers}
    if len(rescales) > 1:
        what, action = "rescale differs between slices", "Each slice is read with its own"
        notes.append(Problem("W-HU-001", what, f"{len(rescales)} pairs", "", action))
    counted = max((h.series_images or h.acquisition_images or 0) for h in headers)
    if counted > len(files):
        what, measured = "fewer slices than the header counts", f"{len(files)} slices"
        action = "Read; slices may be missing at an end of the scan"
        notes.append(Problem("W-DCM-003", what, measured, f"{counted}", action))
    if any(h.image_type.upper().startswith("DERIVED\\SECONDARY") for h in headers):
        what, action = "derived images", "Read; the pixels were computed from other images"
        notes.append(Problem("W-DCM-004", what, "ImageType DERIVED\\SECONDARY", "", action))
    return tuple(notes)

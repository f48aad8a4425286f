"""The voxels that one LIDC reading counts to a nodule, on the native slices of the series."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.archive.lidc import Outline, Reading
from toolkit.archive.outline import rasterise
from toolkit.errors import InputError, Problem


@dataclass(frozen=True, eq=False)
class SliceFrame:
    """What outlines need to know of the native stack of slices.

    Attributes
    ----------
    rows, columns
        Size of every slice.
    slice_by_sop_uid
        Native slice number by SOP instance UID.
    slice_z_mm
        float64 (slices,): world z of each native slice.
    z_tolerance_mm
        How far an outline without a known SOP instance UID may lie from its slice: half a spacing.
    """

    rows: int
    columns: int
    slice_by_sop_uid: Mapping[str, int]
    slice_z_mm: NDArray[np.float64]
    z_tolerance_mm: float


@dataclass(frozen=True, eq=False)
class VoxelMask:
    """Voxels in their bounding box.

    Attributes
    ----------
    start_zyx
        Native slice, row and column of the first voxel of the box.
    inside
        bool (slices, rows, columns).
    """

    start_zyx: tuple[int, int, int]
    inside: NDArray[np.bool_]

    @property
    def stop_zyx(self) -> tuple[int, int, int]:
        """One past the last voxel of the box."""
        z, y, x = (a + n for a, n in zip(self.start_zyx, self.inside.shape, strict=True))
        return z, y, x


def reading_mask(reading: Reading, frame: SliceFrame) -> VoxelMask | None:
    """Return the voxels that one reader counts to the nodule; None where the outlines enclose none.

    An outline is the first pixel outside the nodule, so inclusions add their interior; it is outside for
    a hole as well, so exclusions take away interior and outline. Inclusions of one slice are united.
    Against the 177 nodules with holes in the Cornell list, 98.9 % of the volumes agree within 0.1 % so
    (50 % where the outline of a hole is kept). Raises `InputError` E-LIDC-002 for an outline on no slice
    and E-LIDC-003 for one that leaves the image; the file name is the caller's to add.
    """
    placed = [(_slice_of(outline, frame), outline) for outline in reading.outlines]
    low, high = _bounds(placed, frame)
    inside = np.zeros(high - low, dtype=np.bool_)
    for inclusion in (True, False):  # holes last, whatever their order in the file
        for k, outline in placed:
            if outline.inclusion is not inclusion:
                continue
            patch = rasterise(outline.points_xy)
            y, x = patch.start_yx[0] - low[1], patch.start_yx[1] - low[2]
            rows, columns = patch.inside.shape
            window = inside[k - low[0], y : y + rows, x : x + columns]
            if inclusion:
                window |= patch.inside
            else:
                window &= ~(patch.inside | patch.edge)
    return trim((int(low[0]), int(low[1]), int(low[2])), inside)


def _bounds(
    placed: Sequence[tuple[int, Outline]], frame: SliceFrame
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    xy = np.concatenate([outline.points_xy for _, outline in placed]).astype(np.int64)
    (left, top), (right, bottom) = xy.min(axis=0), xy.max(axis=0)
    if left < 0 or top < 0 or right >= frame.columns or bottom >= frame.rows:
        raise InputError(
            Problem(
                "E-LIDC-003",
                "an outline leaves the image",
                measured=f"columns {left} to {right}, rows {top} to {bottom}",
                expected=f"columns 0 to {frame.columns - 1}, rows 0 to {frame.rows - 1}",
                action="The annotations of this series were refused",
            )
        )
    slices = [k for k, _ in placed]
    return np.array([min(slices), top, left]), np.array([max(slices), bottom, right]) + 1


def _slice_of(outline: Outline, frame: SliceFrame) -> int:
    """Return the native slice of an outline: by its SOP instance UID, else the nearest in z."""
    known = frame.slice_by_sop_uid.get(outline.sop_uid)
    if known is not None:
        return known
    gap = np.abs(frame.slice_z_mm - outline.z_mm)
    nearest = int(np.argmin(gap))
    if gap[nearest] > frame.z_tolerance_mm:
        raise InputError(
            Problem(
                "E-LIDC-002",
                "an outline lies on a slice that the series does not have",
                measured=f"z {outline.z_mm:g} mm, nearest slice {gap[nearest]:.3g} mm away",
                expected=f"a slice within {frame.z_tolerance_mm:g} mm",
                action="The annotations of this series were refused",
            )
        )
    return nearest


def trim(start: tuple[int, int, int], inside: NDArray[np.bool_]) -> VoxelMask | None:
    """Cut a mask to the box of its voxels."""
    voxels = np.argwhere(inside)
    if not len(voxels):
        return None
    low, high = voxels.min(axis=0), voxels.max(axis=0) + 1
    z, y, x = (int(a + b) for a, b in zip(start, low, strict=True))
    cut = inside[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    return VoxelMask((z, y, x), np.ascontiguousarray(cut))

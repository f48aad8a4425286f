"""Where the frames of a DICOM Segmentation lie on the grid of the scan.

A frame goes where its own position puts it, and that must be the slice of the image that it references:
frame numbers mean nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from toolkit.archive.dicom_seg import Frame, Segmentation
from toolkit.archive.files import refusal
from toolkit.archive.image_grid import HALF, ImageGrid


class Place(NamedTuple):
    """Where a frame lies: canonical slice, and how its rows and columns run along the canonical axes."""

    slice_axis: int
    slice_number: int
    row_axis: int
    column_axis: int
    flip_rows: bool
    flip_columns: bool


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

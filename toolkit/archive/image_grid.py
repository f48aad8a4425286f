"""The grid that regions are placed on: canonical voxels, and which slice each image of a series is."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from toolkit.archive.case import VolumeSource
from toolkit.archive.dicom_series import DicomSeries
from toolkit.archive.geometry import Geometry

HALF = 0.5 + 1e-6  # half a voxel, and what rounding in a header can move it


@dataclass(frozen=True, eq=False)
class ImageGrid:
    """The canonical grid of a scan.

    Attributes
    ----------
    slice_axis
        Canonical axis that leads from slice to slice; None for a volume file, which does not say.
    slices_by_sop_uid
        Canonical slice numbers of every SOP instance (a multi-frame one has several); empty for a volume
        file.
    """

    geometry: Geometry
    slice_axis: int | None = None
    slices_by_sop_uid: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def spacing_along(self, axis: int) -> float:
        """Length in mm of one step along an axis, nominal for an uneven stack."""
        return self.geometry.spacing_mm[axis]

    def positions(self, axis: int) -> NDArray[np.float64]:
        """Return where the slices along an axis lie, in nominal steps."""
        if axis == 0 and self.geometry.slice_positions is not None:
            return np.asarray(self.geometry.slice_positions, np.float64)
        return np.arange(self.geometry.shape_zyx[axis], dtype=np.float64)

    def nearest(
        self, axis: int, nominal: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the slices nearest to positions (n,), and how far these are off, in slice spacings.

        The spacing is that to the neighbour on the position's side, at most the nominal one: within half
        of it no other slice is nearer, and a position in a gap of missing slices belongs to none.
        """
        places = self.positions(axis)
        right = np.clip(np.searchsorted(places, nominal), 1, max(1, len(places) - 1))
        left = right - 1
        right = np.minimum(right, len(places) - 1)
        number = np.where(nominal - places[left] <= places[right] - nominal, left, right)
        return number, self.off(axis, nominal, number)

    def off(self, axis: int, nominal: NDArray[np.float64], number: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return how far positions (n,) are from given slices (n,), in slice spacings; see `nearest`."""
        places = self.positions(axis)
        gaps = np.concatenate([[1.0], np.minimum(np.diff(places), 1.0), [1.0]])
        away = nominal - places[number]
        return np.abs(away) / np.where(away > 0, gaps[number + 1], gaps[number])


def image_grid(source: VolumeSource) -> ImageGrid:
    """Return the grid of a scan; for a DICOM series with the slice of every image."""
    if not isinstance(source, DicomSeries):
        return ImageGrid(source.geometry)
    axis = source.reorientation.order.index(0)
    count = source.geometry.shape_zyx[axis]
    slices: dict[str, list[int]] = defaultdict(list)
    for k, file in enumerate(source.files):
        slices[file.header.sop_uid].append(count - 1 - k if source.reorientation.flips[axis] else k)
    return ImageGrid(source.geometry, axis, {uid: tuple(found) for uid, found in slices.items()})

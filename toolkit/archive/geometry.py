"""Where a voxel lies in the patient: the only place that knows about axes and units.

Index order is zyx, world is LPS in millimetres in the order (x, y, z): +x to the patient's left,
+y to the back, +z to the head (DICOM PS3.3 C.7.6.2.1.1).
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Box:
    """A half-open box of voxels: ``start_zyx <= index < stop_zyx``."""

    start_zyx: tuple[int, int, int]
    stop_zyx: tuple[int, int, int]

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Extent of the box in voxels; 0 on an axis where it is empty."""
        z, y, x = (max(0, b - a) for a, b in zip(self.start_zyx, self.stop_zyx, strict=True))
        return z, y, x

    @property
    def empty(self) -> bool:
        """True where the box holds no voxel."""
        return 0 in self.shape_zyx

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The box as an index into the whole array."""
        z, y, x = (slice(a, b) for a, b in zip(self.start_zyx, self.stop_zyx, strict=True))
        return z, y, x

    def intersect(self, other: "Box") -> "Box":
        """Return the common part of two boxes; `empty` where they do not meet."""
        start = tuple(map(max, self.start_zyx, other.start_zyx))
        stop = tuple(map(min, self.stop_zyx, other.stop_zyx))
        return Box(start, stop)  # type: ignore[arg-type]

    def shift(self, offset_zyx: tuple[int, int, int]) -> "Box":
        """Return the box moved by a whole number of voxels."""
        start = tuple(a + d for a, d in zip(self.start_zyx, offset_zyx, strict=True))
        stop = tuple(a + d for a, d in zip(self.stop_zyx, offset_zyx, strict=True))
        return Box(start, stop)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Geometry:
    """A full affine, a shape and, for a stack with uneven slices, its slice positions.

    Attributes
    ----------
    shape_zyx
        Voxels along each index axis.
    affine
        float64 (4, 4): index (z, y, x, 1) to LPS mm (x, y, z, 1). Shears (gantry tilt) and any
        rotation are allowed.
    slice_positions
        For an uneven stack, the position of each slice in units of the affine's z step, ascending,
        the first 0; None where slice k lies at k.
    """

    shape_zyx: tuple[int, int, int]
    affine: NDArray[np.float64]
    slice_positions: tuple[float, ...] | None = None

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Length in mm of one step along z, y, x; for an uneven stack the nominal z step."""
        z, y, x = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(z), float(y), float(x)

    @property
    def voxel_mm3(self) -> float:
        """Volume in mm3 of one (nominal) voxel."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def box(self) -> Box:
        """The whole volume as a box."""
        return Box((0, 0, 0), self.shape_zyx)

    def slice_weights(self) -> NDArray[np.float64]:
        """Return, for each slice, its thickness in units of the z step (ones for an even stack)."""
        if self.slice_positions is None:
            return np.ones(self.shape_zyx[0])
        edges = np.asarray(self.slice_positions)
        middle = (edges[1:] + edges[:-1]) / 2
        first, last = edges[0] - (middle[0] - edges[0]), edges[-1] + (edges[-1] - middle[-1])
        return np.diff(np.concatenate([[first], middle, [last]]))

    def to_lps(self, index_zyx: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map slice/row/column indices (..., 3) to LPS mm (..., 3)."""
        index = np.array(index_zyx, dtype=np.float64)
        if self.slice_positions is not None:
            known = np.arange(len(self.slice_positions))
            index[..., 0] = np.interp(index[..., 0], known, self.slice_positions)
        return index @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_nominal_index(self, lps_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map LPS mm (..., 3) to index zyx in units of the affine's steps (..., 3)."""
        return (np.asarray(lps_mm) - self.affine[:3, 3]) @ np.linalg.inv(self.affine[:3, :3]).T

    def contains(self, lps_mm: NDArray[np.float64]) -> bool:
        """Tell whether a point lies inside the volume, counting whole voxels."""
        index = self.to_nominal_index(lps_mm)
        last = np.array(self.shape_zyx, dtype=np.float64) - 1
        if self.slice_positions is not None:
            last[0] = self.slice_positions[-1]
        return bool(np.all(index >= -0.5) and np.all(index <= last + 0.5))

    def corners_lps_mm(self) -> NDArray[np.float64]:
        """Return the centres of the eight corner voxels, (8, 3), in LPS mm."""
        ends = [(0.0, n - 1.0) for n in self.shape_zyx]
        corners = np.array([(z, y, x) for z in ends[0] for y in ends[1] for x in ends[2]])
        return self.to_lps(corners)


@dataclass(frozen=True)
class Reorientation:
    """A lossless relabelling of index axes: ``canonical[a] = native[order[a]]``, flipped where told.

    Attributes
    ----------
    order
        The native axis that becomes canonical axis z, y, x.
    flips
        Whether canonical axis z, y, x runs against its native axis.
    """

    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def array(self, native: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return a canonical view of a native array."""
        steps = tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)
        return native.transpose(self.order)[steps]

    def box(self, canonical: Box, native_shape: tuple[int, int, int]) -> Box:
        """Return the native box that holds a canonical box."""
        start, stop = [0, 0, 0], [0, 0, 0]
        for axis, (source, flip) in enumerate(zip(self.order, self.flips, strict=True)):
            a, b = canonical.start_zyx[axis], canonical.stop_zyx[axis]
            n = native_shape[source]
            start[source], stop[source] = (n - b, n - a) if flip else (a, b)
        return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def canonical(native: Geometry) -> tuple[Geometry, Reorientation]:
    """Relabel index axes so that z, y, x run most nearly towards head, back and left.

    Nothing is resampled: the result names the same voxels. An uneven stack keeps its slice axis
    first and is only flipped.
    """
    direction = native.affine[:3, :3] / np.linalg.norm(native.affine[:3, :3], axis=0)
    towards_zyx = direction[::-1]  # row a: how far each native axis runs along world z, y, x
    order = (0, 1, 2) if native.slice_positions is not None else _best_order(np.abs(towards_zyx))
    flips = tuple(bool(towards_zyx[axis, source] < 0) for axis, source in enumerate(order))
    affine = native.affine.copy()
    affine[:, :3] = native.affine[:, list(order)]
    for axis, (source, flip) in enumerate(zip(order, flips, strict=True)):
        if flip:
            length = native.shape_zyx[source] - 1.0
            if axis == 0 and native.slice_positions is not None:
                length = native.slice_positions[-1]
            affine[:, 3] += affine[:, axis] * length
            affine[:, axis] = -affine[:, axis]
    positions = native.slice_positions
    if positions is not None and flips[0]:
        positions = tuple(positions[-1] - p for p in reversed(positions))
    z, y, x = (native.shape_zyx[source] for source in order)
    geometry = replace(native, shape_zyx=(z, y, x), affine=affine, slice_positions=positions)
    return geometry, Reorientation(order, (flips[0], flips[1], flips[2]))


def _best_order(closeness: NDArray[np.float64]) -> tuple[int, int, int]:
    """Return the assignment of native axes to z, y, x with the largest total closeness."""
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    return max(
        orders, key=lambda order: closeness[0, order[0]] + closeness[1, order[1]] + closeness[2, order[2]]
    )


def largest_corner_shift_voxels(a: Geometry, b: Geometry) -> float:
    """Return how far apart two grids of one shape lie, as the largest corner shift in voxels of `a`."""
    shift = a.to_nominal_index(b.corners_lps_mm()) - a.to_nominal_index(a.corners_lps_mm())
    return float(np.abs(shift).max())

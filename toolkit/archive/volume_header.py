"""What the header of a volume file says, and the checks that every format shares."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.archive.files import refusal
from toolkit.archive.geometry import Geometry
from toolkit.archive.stored import StoredArray, check_room
from toolkit.errors import Problem

MAX_VOXELS = 1 << 33
MAX_PLANE_VOXELS = 1 << 26  # 8192 x 8192: one plane must fit in memory
MIN_DETERMINANT = 1e-3  # of the unit directions: below, the grid has no volume worth the name
MAX_ORIGIN_MM = 1e6  # a kilometre; far out float64 loses voxels, and two grids look like one


@dataclass(frozen=True, eq=False)
class VolumeHeader:
    """All that the header of a volume file says.

    Attributes
    ----------
    stored
        Where the voxels are.
    geometry
        Native geometry: index (k, j, i) to LPS mm.
    notes
        Warnings about what the header leaves out.
    header_digest
        Hex digest of the header bytes.
    """

    stored: StoredArray
    geometry: Geometry
    notes: tuple[Problem, ...]
    header_digest: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types, exact to the last bit."""
        return {
            "stored": asdict(self.stored),
            "affine": self.geometry.affine.tolist(),
            "notes": [asdict(note) for note in self.notes],
            "header_digest": self.header_digest,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "VolumeHeader":
        """Rebuild a header from `to_json`."""
        i, j, k = data["stored"]["shape_fortran"]
        stored = StoredArray(**{**data["stored"], "shape_fortran": (i, j, k)})
        geometry = Geometry(stored.shape_zyx, np.array(data["affine"], dtype=np.float64))
        notes = tuple(Problem(**{**note, "files": tuple(note["files"])}) for note in data["notes"])
        return cls(stored, geometry, notes, data["header_digest"])


def make_header(
    stored: StoredArray,
    geometry: Geometry,
    header_bytes: bytes,
    notes: tuple[Problem, ...] = (),
) -> VolumeHeader:
    """Return a header after checking that its array can lie where it says it does.

    Raises
    ------
    InputError
        E-VOL-003 where more is declared than is allowed or possible, E-FILE-002 where the file is
        shorter than declared.
    """
    check_shape(stored.shape_fortran, stored.path)
    check_room(stored)
    return VolumeHeader(stored, geometry, notes, hashlib.sha256(header_bytes).hexdigest())


def check_shape(shape: Sequence[int], path: str) -> None:
    """Refuse a shape that is not a volume (E-FILE-003, E-GEO-001) or is too large (E-VOL-003)."""
    text = " x ".join(str(n) for n in shape)
    if min(shape) < 1:
        raise refusal("E-FILE-003", "the header declares an impossible shape", _voxels(text), path=path)
    if prod(shape) > MAX_VOXELS or prod(shape[:2]) > MAX_PLANE_VOXELS:
        limit = f"at most {MAX_VOXELS} voxels, {MAX_PLANE_VOXELS} a plane"
        raise refusal("E-VOL-003", "the header declares too large a volume", _voxels(text), limit, path=path)
    if min(shape) < 2:
        raise refusal("E-GEO-001", "too few slices", _voxels(text), "at least 2 along each axis", path=path)


def _voxels(text: str) -> str:
    """Return a shape for a message, however absurd its numbers are."""
    return f"{text} voxels" if len(text) <= 60 else f"{text[:60]}... voxels"


def grid(
    shape_fortran: Sequence[int], steps: NDArray[np.float64], origin: NDArray[np.float64], path: str
) -> Geometry:
    """Return the native geometry of a file.

    Parameters
    ----------
    shape_fortran
        (i, j, k).
    steps
        (3, 3): column a is the LPS mm step along file axis a (i, j, k).
    origin
        (3,): LPS mm of the first voxel's centre.
    path
        For the message.

    Raises
    ------
    InputError
        E-GEO-006 where the steps are not finite or span no volume, or the first voxel lies a kilometre off.
    """
    affine = np.eye(4)
    affine[:3, :3] = steps[:, ::-1]
    affine[:3, 3] = origin
    lengths = np.linalg.norm(steps, axis=0)
    if not np.isfinite(affine).all() or not (lengths > 1e-6).all() or not (lengths < 1e6).all():
        measured = "steps of " + ", ".join(f"{n:.3g}" for n in lengths) + " mm"
        raise refusal(
            "E-GEO-006", "the orientation matrix is not usable", measured, "finite steps above 0", path=path
        )
    far = float(np.abs(origin).max())
    if far > MAX_ORIGIN_MM:
        expected = f"at most {MAX_ORIGIN_MM:g} mm"
        raise refusal("E-GEO-006", "the position is not usable", f"{far:.3g} mm", expected, path=path)
    determinant = abs(float(np.linalg.det(steps / lengths)))
    if determinant < MIN_DETERMINANT:
        measured = f"determinant of the directions {determinant:.2g}"
        raise refusal(
            "E-GEO-006", "the orientation is singular", measured, f"at least {MIN_DETERMINANT}", path=path
        )
    i, j, k = shape_fortran
    return Geometry((k, j, i), affine)

"""One asymmetric scan on any grid and in any format, and how tests run the pipeline on it."""

import csv
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk

from toolkit.archive.geometry import RAS_TO_LPS, Geometry
from toolkit.preprocess.identity import IdKey
from toolkit.preprocess.plan import Settings
from toolkit.preprocess.run import Job, Summary, preprocess

KEY = IdKey(b"test")
RADII_MM = (7.0, 5.0, 6.0)  # x, y, z: no two alike


def grid(shape_zyx, spacing_zyx, center=(10.0, -20.0, 30.0), rotation=None, shear_zy=0.0) -> Geometry:
    """A grid about `center`: rotated, and sheared along y with z as a tilted gantry does."""
    affine = np.eye(4)
    steps = np.fliplr(np.eye(3)) * np.asarray(spacing_zyx)
    steps[1, 0] += shear_zy * spacing_zyx[0]
    affine[:3, :3] = (np.eye(3) if rotation is None else rotation) @ steps
    affine[:3, 3] = np.asarray(center) - affine[:3, :3] @ ((np.asarray(shape_zyx) - 1) / 2)
    return Geometry(tuple(shape_zyx), affine)


def turn(degrees: float, axis) -> np.ndarray:
    """A rotation matrix (Rodrigues)."""
    x, y, z = np.asarray(axis, float) / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def points(geometry: Geometry) -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, geometry.shape_zyx), indexing="ij"), axis=-1)
    return geometry.to_lps(index.astype(float))


def scan(geometry: Geometry, center=(10.0, -20.0, 30.0)) -> tuple[np.ndarray, np.ndarray]:
    """A smooth, asymmetric body (HU) and the mask of an ellipsoid in it, off the centre."""
    d = points(geometry) - np.asarray(center)
    blob = 1200 * np.exp(-(((d - (2, -3, 4)) / (9, 7, 8)) ** 2).sum(-1) / 2)
    more = (
        300 * np.exp(-(((d - (-12, 9, -6)) / 6) ** 2).sum(-1) / 2)
        + 2 * d[..., 0]
        - 3 * d[..., 1]
        + 4 * d[..., 2]
    )
    mask = (((d - (2, -3, 4)) / RADII_MM) ** 2).sum(-1) <= 1
    return np.rint(-700 + blob + more).astype(np.int16), mask.astype(np.uint8)


def write_itk(path: Path, array: np.ndarray, geometry: Geometry, compressed: bool = False) -> None:
    """Write a volume through SimpleITK (an orthogonal grid only)."""
    image = sitk.GetImageFromArray(array)
    spacing = geometry.spacing_mm[::-1]
    image.SetSpacing(spacing)
    image.SetOrigin(geometry.affine[:3, 3].tolist())
    image.SetDirection((geometry.affine[:3, 2::-1] / spacing).ravel().tolist())
    sitk.WriteImage(image, str(path), compressed)


def write_nifti(path: Path, array: np.ndarray, geometry: Geometry) -> None:
    """Write a NIfTI with any affine, shears included, in its sform."""
    affine = RAS_TO_LPS @ geometry.affine[:, [2, 1, 0, 3]]
    image = nibabel.Nifti1Image(np.ascontiguousarray(array.transpose(2, 1, 0)), None)
    image.header.set_sform(affine, code=1)
    image.header.set_qform(None, code=0)
    nibabel.save(image, path)


def write_cases(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, sorted({name for row in rows for name in row}))
        table.writeheader()
        table.writerows(rows)


def run(archive: Path, store: Path, **changes: object) -> Summary:
    """Run the pipeline in a fresh index, with small crops unless told otherwise."""
    settings = changes.pop("settings", Settings(spacing_mm=1.0, size=24, margin=4))
    index = changes.pop("index_cache", store.with_name("index"))
    return preprocess(Job(archive, store, KEY, settings=settings, index_cache=index, **changes))


def identity(store: Path) -> dict[str, bytes]:
    """Every file of a store that belongs to its identity."""
    files = (p for p in sorted(store.rglob("*")) if p.is_file() and p.parent.name != "log")
    return {p.relative_to(store).as_posix(): p.read_bytes() for p in files}

"""Phantoms and writers for the tests of volume files; the writers are not ours (SimpleITK, nibabel)."""

import gzip
import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from toolkit.archive.geometry import RAS_TO_LPS, Geometry

ITK_FORMATS = ("a.mha", "a.mhd", "z.mha", "a.nrrd", "a.nhdr", "z.nrrd", "a.nii", "a.nii.gz", "a.hdr")
ORIENTATIONS = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def phantom(shape=(7, 6, 5), seed=0) -> NDArray[np.int16]:
    """An array without any symmetry, with padding and values beyond both HU limits."""
    values = np.random.default_rng(seed).integers(-1500, 3500, shape).astype(np.int16)
    values[0, 0, 0], values[-1, 0, 0], values[0, -1, 0], values[0, 0, -1] = -2000, 100, 200, 300
    return values


def hu(values: NDArray) -> NDArray[np.int16]:
    return np.clip(values, -1024, 3071).astype(np.int16)


def rotation(seed: int) -> NDArray[np.float64]:
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def write_itk(path: Path, array: NDArray, affine: NDArray[np.float64]) -> Path:
    """Write an array (k, j, i) whose affine maps (k, j, i) to LPS mm; a name with z is compressed."""
    steps = affine[:3, :3][:, ::-1]
    spacing = np.linalg.norm(steps, axis=0)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((steps / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    sitk.WriteImage(image, str(path), useCompression=path.name.startswith("z"))
    return path


def write_nifti(path: Path, array: NDArray, affine: NDArray[np.float64], sform=1, qform=0, **fields) -> Path:
    """Write (k, j, i) with an affine from (k, j, i) to LPS mm, shears allowed."""
    ras = RAS_TO_LPS @ affine @ np.eye(4)[[2, 1, 0, 3]]
    image = nib.Nifti1Image(array.T, None)
    image.header.set_sform(ras, code=sform)
    image.header.set_qform(ras, code=qform, strip_shears=True)
    for name, value in fields.items():
        image.header[name] = value
    image.header.set_data_dtype(array.dtype)
    write_header_and_data(path, image.header, array)
    return path


def write_header_and_data(path: Path, header, array: NDArray) -> None:
    """Put a header as it is before the bytes: nibabel's own writer would tidy it up."""
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    raw = header.binaryblock + b"\0" * 4 + array.astype(header.get_data_dtype()).tobytes()
    path.write_bytes(gzip.compress(raw, 1) if path.suffix == ".gz" else raw)


def native_of(canonical: NDArray, geometry: Geometry, order, signs) -> tuple[NDArray, NDArray[np.float64]]:
    """Relabel axes of a canonical array: native axis a is canonical axis order[a], reversed for sign -1."""
    steps = tuple(slice(None, None, s) for s in signs)
    native = np.ascontiguousarray(canonical.transpose(order)[steps])
    affine = np.eye(4)
    affine[:3, 3] = geometry.affine[:3, 3]
    for axis, (source, sign) in enumerate(zip(order, signs, strict=True)):
        affine[:3, axis] = sign * geometry.affine[:3, source]
        if sign < 0:
            affine[:3, 3] += geometry.affine[:3, source] * (geometry.shape_zyx[source] - 1)
    return native, affine


def canonical_geometry(shape=(7, 6, 5), spacing=(2.5, 0.75, 0.5), turn=None) -> Geometry:
    """A geometry close to the axes of the patient; z, y, x steps towards head, back, left."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn)[:, ::-1] * np.array(spacing)
    affine[:3, 3] = (-31.5, 17.25, -400.125)
    return Geometry(tuple(shape), affine)


def small_turn() -> NDArray[np.float64]:
    a, b = np.deg2rad(11), np.deg2rad(-7)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return about_z @ about_x

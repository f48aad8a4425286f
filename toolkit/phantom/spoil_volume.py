"""Volume files with one defect each; a sound mask lies beside those whose values are spoiled."""

import gzip
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from toolkit.phantom.anatomy import PhantomPatient
from toolkit.phantom.write_nifti import write_nifti

_HUGE = 100_000  # voxels along each axis


def _write_nifti(patient: PhantomPatient, folder: Path) -> tuple[Path, nib.Nifti1Image]:
    """Write ``scan.nii.gz`` with its mask; return the scan's path and content."""
    write_nifti(replace(patient, patient_id="scan"), folder)
    path = folder / "scan.nii.gz"
    return path, nib.Nifti1Image.from_bytes(gzip.decompress(path.read_bytes()))


def _save(path: Path, image: nib.Nifti1Image) -> None:
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


def _like(values: NDArray[np.generic], image: nib.Nifti1Image) -> nib.Nifti1Image:
    """Return other values on the same grid."""
    other = nib.Nifti1Image(values, image.affine)
    other.set_qform(image.affine, code=1)
    other.set_sform(image.affine, code=1)
    return other


def two_orientations(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Exchange left and right in the sform, not in the qform."""
    path, image = _write_nifti(patient, folder)
    image.set_sform(np.diag([-1, 1, 1, 1]) @ image.affine, code=1)
    image.set_qform(image.get_qform(), code=1)
    _save(path, image)


def no_orientation(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Set neither sform nor qform."""
    path, image = _write_nifti(patient, folder)
    bare = nib.Nifti1Image(np.asarray(image.dataobj), None)  # an affine would be written into the header
    bare.header.set_zooms(image.header.get_zooms())
    _save(path, bare)


def not_a_number(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Make one voxel of a nodule NaN."""
    path, image = _write_nifti(patient, folder)
    values = np.asarray(image.dataobj, dtype=np.float32)
    mask = nib.Nifti1Image.from_bytes(gzip.decompress((folder / "scan_mask.nii.gz").read_bytes()))
    values[tuple(np.argwhere(np.asarray(mask.dataobj))[0])] = np.nan
    _save(path, _like(values, image))


def shifted(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Store HU + 1024 and say so nowhere."""
    path, image = _write_nifti(patient, folder)
    _save(path, _like(np.clip(np.asarray(image.dataobj) + np.int16(1024), 0, 4095), image))


def _nrrd(folder: Path, sizes: str, encoding: str, data: bytes) -> None:
    axes = len(sizes.split())
    steps = " ".join(("(1,0,0)", "(0,1,0)", "(0,0,1)", "none")[:axes])
    lines = [
        "NRRD0005",
        "type: int16\nendian: little",
        f"dimension: {axes}",
        "space: left-posterior-superior",
        f"sizes: {sizes}",
        f"space directions: {steps}",
        "space origin: (0,0,0)",
        f"encoding: {encoding}",
    ]
    (folder / "scan.nrrd").write_bytes(("\n".join(lines) + "\n\n").encode("ascii") + data)


def four_axes(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Put two volumes, as of two points in time, into one file."""
    sizes = " ".join(str(n) for n in reversed(patient.hu.shape))
    _nrrd(folder, f"{sizes} 2", "gzip", gzip.compress(2 * patient.hu.tobytes(), compresslevel=1, mtime=0))


def text_encoding(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Write the values out as numbers."""
    part = patient.hu[:4, :8, :8]
    _nrrd(folder, "8 8 4", "ascii", " ".join(str(v) for v in part.ravel()).encode("ascii"))


def _meta(patient: PhantomPatient, folder: Path, **changes: str) -> None:
    """Write ``scan.mhd`` with ``scan.raw``; a changed field is left out where it is empty."""
    z_mm, y_mm, x_mm = patient.geometry.spacing_mm
    fields = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": " ".join(f"{v:.10g}" for v in patient.geometry.affine[:3, 3]),
        "ElementSpacing": f"{x_mm:.10g} {y_mm:.10g} {z_mm:.10g}",
        "DimSize": " ".join(str(n) for n in reversed(patient.hu.shape)),
        "ElementType": "MET_SHORT",
        "ElementDataFile": "scan.raw",
        **changes,
    }
    text = "".join(f"{name} = {value}\n" for name, value in fields.items() if value)
    (folder / "scan.mhd").write_text(text, encoding="ascii", newline="\n")
    (folder / "scan.raw").write_bytes(patient.hu.astype("<i2").tobytes())


def header_bomb(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Ask for two petabytes of memory in a header of a few bytes."""
    _meta(patient, folder, DimSize=f"{_HUGE} {_HUGE} {_HUGE}")


def no_origin(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Say nowhere where the first voxel lies."""
    _meta(patient, folder, Offset="")


def cut_raw(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Cut the data file short."""
    _meta(patient, folder)
    path = folder / "scan.raw"
    path.write_bytes(path.read_bytes()[: patient.hu.nbytes // 2])


def data_outside(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Name a data file of another case."""
    _meta(patient, folder, ElementDataFile="../cut-raw/scan.raw")
    (folder / "scan.raw").unlink()


def cut_gzip(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """End the compressed scan half-way; its header is sound."""
    path, _ = _write_nifti(patient, folder)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])

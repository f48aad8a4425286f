"""A phantom patient as a compressed NIfTI image and a label volume."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from toolkit.archive.geometry import RAS_TO_LPS
from toolkit.phantom.anatomy import PhantomPatient

# How the file's axes run: order of the canonical xyz axes, and which of them are flipped.
_LAYOUTS = (
    ((0, 1, 2), (True, True, False)),  # RAS, what most converters write
    ((0, 1, 2), (False, False, False)),  # LPS
    ((0, 1, 2), (False, True, True)),  # LAI
    ((2, 0, 1), (False, True, True)),  # slices first
    ((1, 0, 2), (True, False, False)),  # rows before columns
)


def write_nifti(patient: PhantomPatient, folder: Path) -> None:
    """Write ``<id>.nii.gz`` (int16 HU) and ``<id>_mask.nii.gz`` (uint8, value k is nodule k).

    Raises
    ------
    OSError
        Where the disk refuses.
    """
    _save(patient, patient.hu, folder / f"{patient.patient_id}.nii.gz")
    _save(patient, label_volume(patient), folder / f"{patient.patient_id}_mask.nii.gz")


def label_volume(patient: PhantomPatient) -> NDArray[np.uint8]:
    """Return the masks in one volume, uint8 zyx: nodule k of the truth table has value k."""
    labels = np.zeros(patient.geometry.shape_zyx, dtype=np.uint8)
    for k, nodule in enumerate(patient.nodules, start=1):
        labels[nodule.box.slices] += nodule.mask * np.uint8(k)
    return labels


def _save(patient: PhantomPatient, array_zyx: NDArray[np.generic], path: Path) -> None:
    order, flips = _LAYOUTS[(patient.index // 2) % len(_LAYOUTS)]
    from_xyz = patient.geometry.affine[:, [2, 1, 0, 3]]
    array = array_zyx.transpose(2, 1, 0)
    to_canonical = np.eye(4)
    for axis, flip in enumerate(flips):
        if flip:
            array = np.flip(array, axis)
            to_canonical[axis, axis], to_canonical[axis, 3] = -1, array.shape[axis] - 1
    array = array.transpose(order)
    to_canonical = to_canonical[:, [*order, 3]]
    affine_ras = RAS_TO_LPS @ from_xyz @ to_canonical
    image = nib.Nifti1Image(np.asarray(array), affine_ras)
    image.set_qform(affine_ras, code=1)
    image.set_sform(affine_ras, code=1)
    image.header.set_xyzt_units("mm")
    # The fastest level: noise does not compress, and speed is the point of the phantom.
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))

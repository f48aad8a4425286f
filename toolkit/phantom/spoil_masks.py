"""Masks with one defect each: what they claim is not where, or not what, their scan says."""

import gzip
import re
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

from toolkit.phantom.anatomy import PhantomPatient
from toolkit.phantom.spoil_dicom import write_series
from toolkit.phantom.write_dicom import save, write_dicom
from toolkit.phantom.write_nifti import write_nifti
from toolkit.phantom.write_rtstruct import structure_set
from toolkit.phantom.write_seg import segmentation

_FAR_MM = 1000


def lidc_off_stack(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Name a slice that the series does not have in one outline."""
    write_series(patient, seed, folder)
    path = folder / "readings.xml"
    roi = r"<imageZposition>[^<]*</imageZposition>\n<imageSOP_UID>[^<]*</imageSOP_UID>"
    elsewhere = f"<imageZposition>{_FAR_MM}.0 </imageZposition>\n<imageSOP_UID>2.25.1</imageSOP_UID>"
    path.write_text(re.sub(roi, elsewhere, path.read_text(encoding="utf-8"), count=1), encoding="utf-8")


def lidc_broken(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """End the readings in the middle; their series is sound."""
    write_series(patient, seed, folder)
    path = folder / "readings.xml"
    text = path.read_bytes()
    path.write_bytes(text[: len(text) // 2])


def seg_at_origin(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Name the slices of frames that claim to lie at the origin."""
    write_dicom(patient, seed, folder)
    seg = segmentation(patient, seed)
    for frame in seg.PerFrameFunctionalGroupsSequence:
        frame.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 0]
    save(seg, folder / "segmentation.dcm")


def seg_upside_down(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Name slices in one order and positions in the other."""
    write_dicom(patient, seed, folder)
    seg = segmentation(patient, seed)
    frames = seg.PerFrameFunctionalGroupsSequence
    places = [list(frame.PlanePositionSequence[0].ImagePositionPatient) for frame in frames]
    for frame, place in zip(frames, reversed(places), strict=True):
        frame.PlanePositionSequence[0].ImagePositionPatient = place
    save(seg, folder / "segmentation.dcm")


def seg_alone(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Write a segmentation without its series."""
    save(segmentation(patient, seed), folder / "segmentation.dcm")


def rtstruct_off_stack(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Put one contour far above the last slice."""
    write_dicom(patient, seed, folder)
    struct = structure_set(patient, seed)
    contour = struct.ROIContourSequence[0].ContourSequence[0]
    points = np.array(contour.ContourData, dtype=float).reshape(-1, 3) + np.array([0, 0, _FAR_MM])
    contour.ContourData = [f"{v:.6f}" for v in points.ravel()]
    del contour.ContourImageSequence
    save(struct, folder / "structures.dcm")


def _write_pair(patient: PhantomPatient, folder: Path) -> tuple[Path, nib.Nifti1Image]:
    """Write ``scan.nii.gz`` with its mask; return the mask's path and content."""
    write_nifti(replace(patient, patient_id="scan"), folder)
    path = folder / "scan_mask.nii.gz"
    return path, nib.Nifti1Image.from_bytes(gzip.decompress(path.read_bytes()))


def _save(path: Path, image: nib.Nifti1Image) -> None:
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


def other_grid(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Leave out the first plane of the mask."""
    path, mask = _write_pair(patient, folder)
    _save(path, mask.slicer[1:])


def mirrored(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Let one axis of the mask run the other way, from the same corner."""
    path, mask = _write_pair(patient, folder)
    affine = mask.affine @ np.diag([-1, 1, 1, 1])
    image = nib.Nifti1Image(np.asarray(mask.dataobj), affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    _save(path, image)


def alone(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Write a mask without its scan."""
    _write_pair(patient, folder)
    (folder / "scan.nii.gz").unlink()


def probabilities(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Fill the mask with shares instead of labels."""
    path, mask = _write_pair(patient, folder)
    values = np.asarray(mask.dataobj, dtype=np.float32)
    image = nib.Nifti1Image(values * np.float32(0.7), mask.affine)
    image.set_qform(mask.affine, code=1)
    image.set_sform(mask.affine, code=1)
    _save(path, image)


def twice(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Mark one nodule in two masks."""
    path, _ = _write_pair(patient, folder)
    (folder / "scan_seg.nii.gz").write_bytes(path.read_bytes())

"""A phantom patient as one CT series: a file a slice, explicit VR little endian."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from toolkit.phantom.anatomy import MIN_HU, PhantomPatient, reconstruction_circle
from toolkit.phantom.uids import uid

PADDING = -2000
_DATE, _TIME = "20000101", "120000"


@dataclass(frozen=True)
class DicomStyle:
    """How one patient's scanner writes; varied because archives vary.

    Attributes
    ----------
    signed
        PixelRepresentation. Always signed where there is padding (-2000 has no unsigned form).
    intercept
        HU = stored + intercept.
    padded
        Whether voxels outside the reconstruction circle hold `PADDING`.
    shuffled_names, numbering
        Whether file names are out of z order, and how InstanceNumber runs.
    """

    signed: bool
    intercept: int
    padded: bool
    shuffled_names: bool
    numbering: str


def dicom_style(patient: PhantomPatient) -> DicomStyle:
    """Return the style of a patient; the same whatever else is in the archive."""
    k = patient.index
    signed = patient.padded or k % 3 != 0
    return DicomStyle(
        signed=signed,
        intercept=0 if signed and k % 4 == 1 else MIN_HU,
        padded=patient.padded,
        shuffled_names=k % 2 == 0,
        numbering=("ascending", "descending", "shuffled")[k // 2 % 3],
    )


def slice_positions_mm(patient: PhantomPatient) -> list[float]:
    """Return the z of each slice, rounded as ImagePositionPatient holds it."""
    start, step = patient.geometry.affine[2, 3], patient.geometry.affine[2, 0]
    return [round(float(start + k * step), 6) for k in range(patient.geometry.shape_zyx[0])]


def sop_uid(patient: PhantomPatient, seed: int, k: int) -> str:
    """Return the SOPInstanceUID of slice k (0 at the foot)."""
    return uid("phantom", seed, patient.index, "slice", k)


def series_uid(patient: PhantomPatient, seed: int) -> str:
    """Return the SeriesInstanceUID."""
    return uid("phantom", seed, patient.index, "series")


def study_uid(patient: PhantomPatient, seed: int) -> str:
    """Return the StudyInstanceUID."""
    return uid("phantom", seed, patient.index, "study")


def write_dicom(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Write one file a slice into a folder that exists.

    Parameters
    ----------
    seed
        Of the archive; goes into the UIDs.

    Raises
    ------
    OSError
        Where the disk refuses.
    """
    style = dicom_style(patient)
    count = patient.geometry.shape_zyx[0]
    rng = np.random.default_rng([seed, patient.index, 77])
    names = rng.permutation(count) if style.shuffled_names else np.arange(count)
    shuffled = rng.permutation(count)
    numbers = {"ascending": np.arange(count), "descending": np.arange(count)[::-1], "shuffled": shuffled}
    header = _header(patient, seed, style)
    stored = _stored(patient, style)
    for k, z_mm in enumerate(slice_positions_mm(patient)):
        number = int(numbers[style.numbering][k]) + 1
        _set_slice(header, patient, sop_uid(patient, seed, k), z_mm, number)
        header.PixelData = stored[k].tobytes()
        buffer = io.BytesIO()
        dcmwrite(buffer, header, enforce_file_format=True)
        (folder / f"1-{int(names[k]) + 1:03d}.dcm").write_bytes(buffer.getvalue())


def _stored(patient: PhantomPatient, style: DicomStyle) -> NDArray[np.integer]:
    stored = patient.hu - np.int16(style.intercept) if style.intercept else patient.hu.copy()
    if style.padded:
        stored[:, ~reconstruction_circle(patient.geometry.shape_zyx[1:])] = PADDING
    return stored.astype("<i2" if style.signed else "<u2")


def _header(patient: PhantomPatient, seed: int, style: DicomStyle) -> Dataset:
    """Return what all slices share; dates are fixed, so that no byte depends on today."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = uid("phantom", "implementation")
    meta.ImplementationVersionName = "PHANTOM"
    header = Dataset()
    header.file_meta = meta
    header.preamble = bytes(128)
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.SOPClassUID = CTImageStorage
    for name in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
        setattr(header, name, _DATE)
    for name in ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime"):
        setattr(header, name, _TIME)
    header.AccessionNumber = ""
    header.Modality = "CT"
    header.Manufacturer = "PHANTOM"
    header.ReferringPhysicianName = ""
    header.SeriesDescription = "Synthetic chest"
    header.PatientName = patient.patient_id
    header.PatientID = patient.patient_id
    header.PatientBirthDate = ""
    header.PatientSex = ""
    header.BodyPartExamined = "CHEST"
    header.KVP = 120
    header.PatientPosition = "HFS"
    header.StudyInstanceUID = study_uid(patient, seed)
    header.SeriesInstanceUID = series_uid(patient, seed)
    header.StudyID = "1"
    header.SeriesNumber = 1
    header.AcquisitionNumber = 1
    header.FrameOfReferenceUID = uid("phantom", seed, patient.index, "frame")
    header.PositionReferenceIndicator = ""
    _set_pixel_module(header, patient, style)
    return header


def _set_pixel_module(header: Dataset, patient: PhantomPatient, style: DicomStyle) -> None:
    between, rows_mm, columns_mm = patient.geometry.spacing_mm
    header.SliceThickness = between
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    header.PixelSpacing = [rows_mm, columns_mm]
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.Rows, header.Columns = patient.geometry.shape_zyx[1:]
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit = 15
    header.PixelRepresentation = int(style.signed)
    if style.padded:
        header.add_new("PixelPaddingValue", "SS", PADDING)
    header.WindowCenter, header.WindowWidth = -500, 1500
    header.RescaleIntercept, header.RescaleSlope = style.intercept, 1
    header.RescaleType = "HU"


def _set_slice(header: Dataset, patient: PhantomPatient, instance: str, z_mm: float, number: int) -> None:
    header.file_meta.MediaStorageSOPInstanceUID = instance
    header.SOPInstanceUID = instance
    header.InstanceNumber = number
    x_mm, y_mm = (round(float(v), 6) for v in patient.geometry.affine[:2, 3])
    header.ImagePositionPatient = [x_mm, y_mm, z_mm]
    header.SliceLocation = z_mm

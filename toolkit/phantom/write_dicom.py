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
DATE, TIME = "20000101", "120000"


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


def frame_uid(patient: PhantomPatient, seed: int) -> str:
    """Return the FrameOfReferenceUID."""
    return uid("phantom", seed, patient.index, "frame")


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
    header = ct_object(patient, seed, style, CTImageStorage, sop_uid(patient, seed, 0))
    _set_image_plane(header, patient, style)
    stored = stored_values(patient, style)
    for k, z_mm in enumerate(slice_positions_mm(patient)):
        number = int(numbers[style.numbering][k]) + 1
        _set_slice(header, patient, sop_uid(patient, seed, k), z_mm, number)
        header.PixelData = stored[k].tobytes()
        save(header, folder / f"1-{int(names[k]) + 1:03d}.dcm")


def stored_values(patient: PhantomPatient, style: DicomStyle) -> NDArray[np.integer]:
    """Return the stored values, 16 bits, zyx."""
    stored = patient.hu - np.int16(style.intercept) if style.intercept else patient.hu.copy()
    if style.padded:
        stored[:, ~reconstruction_circle(patient.geometry.shape_zyx[1:])] = PADDING
    return stored.astype("<i2" if style.signed else "<u2")


def study_object(
    patient: PhantomPatient, seed: int, sop_class: str, instance: str, modality: str, series: str
) -> Dataset:
    """Return what every object of the patient's study holds; dates are fixed: no byte depends on today."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = sop_class
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = instance
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.ImplementationClassUID = uid("phantom", "implementation")
    header.file_meta.ImplementationVersionName = "PHANTOM"
    header.preamble = bytes(128)
    for name in ("Study", "Series", "Content"):
        setattr(header, f"{name}Date", DATE)
        setattr(header, f"{name}Time", TIME)
    header.AccessionNumber = ""
    header.Modality = modality
    header.Manufacturer = "PHANTOM"
    header.ReferringPhysicianName = ""
    header.PatientName = patient.patient_id
    header.PatientID = patient.patient_id
    header.PatientBirthDate = ""
    header.PatientSex = ""
    header.StudyInstanceUID = study_uid(patient, seed)
    header.SeriesInstanceUID = series
    header.StudyID = "1"
    header.SeriesNumber = 1 if modality == "CT" else 2
    header.FrameOfReferenceUID = frame_uid(patient, seed)
    header.PositionReferenceIndicator = ""
    return header


def save(dataset: Dataset, path: Path) -> None:
    """Write a DICOM file; raises `OSError` where the disk refuses."""
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    path.write_bytes(buffer.getvalue())


def ct_object(
    patient: PhantomPatient, seed: int, style: DicomStyle, sop_class: str, instance: str
) -> Dataset:
    """Return what CT images of either kind, a slice or all frames, have in common."""
    header = study_object(patient, seed, sop_class, instance, "CT", series_uid(patient, seed))
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.AcquisitionDate, header.AcquisitionTime = DATE, TIME
    header.SeriesDescription = "Synthetic chest"
    header.BodyPartExamined = "CHEST"
    header.KVP = 120
    header.PatientPosition = "HFS"
    header.AcquisitionNumber = 1
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.Rows, header.Columns = patient.geometry.shape_zyx[1:]
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit = 15
    header.PixelRepresentation = int(style.signed)
    if style.padded:
        header.add_new("PixelPaddingValue", "SS", PADDING)
    return header


def _set_image_plane(header: Dataset, patient: PhantomPatient, style: DicomStyle) -> None:
    between, rows_mm, columns_mm = patient.geometry.spacing_mm
    header.SliceThickness = between
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    header.PixelSpacing = [rows_mm, columns_mm]
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

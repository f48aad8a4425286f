"""DICOM series with one defect each: small scans of one nodule, read by its LIDC readers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from toolkit.phantom.anatomy import MIN_HU, PhantomPatient
from toolkit.phantom.uids import uid
from toolkit.phantom.write_dicom import PADDING, save, write_dicom
from toolkit.phantom.write_lidc import write_lidc

_MPEG2 = "1.2.840.10008.1.2.4.100"  # a film: no decoder of images reads it
_TILT = np.tan(np.radians(12))
_OUTSIDE = "/bin/sh"  # a file that any such system has

Change = Callable[[int, Dataset], None]


def write_series(
    patient: PhantomPatient, seed: int, folder: Path, change: Change | None = None
) -> list[Path]:
    """Write a series with its readings and return its files from foot to head.

    `change` alters slice k before it is kept; the file names tell nothing of the order.
    """
    write_dicom(patient, seed, folder)
    write_lidc(patient, seed, folder / "readings.xml")
    slices = {path: pydicom.dcmread(path) for path in folder.glob("*.dcm")}
    ordered = sorted(slices, key=lambda path: float(slices[path].ImagePositionPatient[2]))
    if change is not None:
        for k, path in enumerate(ordered):
            change(k, slices[path])
            save(slices[path], path)
    return ordered


def _middle(patient: PhantomPatient) -> int:
    return patient.geometry.shape_zyx[0] // 2


def _moved(slice_k: Dataset, x: float = 0, y: float = 0, z: float = 0) -> None:
    """Move a slice by so many mm."""
    old = [float(v) for v in slice_k.ImagePositionPatient]
    slice_k.ImagePositionPatient = [round(a + b, 6) for a, b in zip(old, (x, y, z), strict=True)]


def _with_hu(slice_k: Dataset, hu: NDArray[np.generic], slope: float, intercept: float) -> None:
    """Store HU with another rescale; the values fit it without rounding."""
    stored = np.rint((hu.astype(np.float64) - intercept) / slope)
    slice_k.RescaleSlope, slice_k.RescaleIntercept = slope, intercept
    slice_k.PixelRepresentation = 1
    slice_k.PixelData = stored.astype("<i2").tobytes()


def shuffled(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Name files towards the feet and number them all the same."""
    paths = write_series(patient, seed, folder, lambda _, d: setattr(d, "InstanceNumber", 1))
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(sorted(paths, reverse=True), contents, strict=True):
        path.write_bytes(content)


def copied_slice(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Keep one slice twice, byte for byte."""
    paths = write_series(patient, seed, folder)
    (folder / "copy.dcm").write_bytes(paths[_middle(patient)].read_bytes())


def doubled_slice(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Put two slices with different pixels at one position."""
    paths = write_series(patient, seed, folder)
    other = pydicom.dcmread(paths[_middle(patient)])
    instance = uid("phantom", seed, patient.index, "other slice")
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = instance
    other.PixelData = other.PixelData[::-1]
    save(other, folder / "other.dcm")


def missing_slice(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Lose one slice."""
    write_series(patient, seed, folder)[_middle(patient)].unlink()


def uneven(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Raise one slice by a third of a spacing."""
    step = patient.geometry.spacing_mm[0] / 3
    write_series(patient, seed, folder, lambda k, d: _moved(d, z=step * (k == _middle(patient))))


def two_slices(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Lose nearly all of the series."""
    middle = _middle(patient)
    for k, path in enumerate(write_series(patient, seed, folder)):
        if k not in (middle, middle + 1):
            path.unlink()


def sideways(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Move one slice two pixels to the side."""
    step = 2 * patient.geometry.spacing_mm[2]
    write_series(patient, seed, folder, lambda k, d: _moved(d, x=step * (k == _middle(patient))))


def tilted(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Tilt the gantry: each slice lies further back than the one below."""
    step = patient.geometry.spacing_mm[0] * _TILT
    write_series(patient, seed, folder, lambda k, d: _moved(d, y=k * step))


def turned(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Turn the upper half onto its side."""

    def change(k: int, d: Dataset) -> None:
        if k > _middle(patient):
            d.ImageOrientationPatient = [0, 1, 0, -1, 0, 0]

    write_series(patient, seed, folder, change)


def skewed(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Set rows and columns at no right angle."""
    skew = [1, 0, 0, 0.2, 0.979796, 0]
    write_series(patient, seed, folder, lambda _, d: setattr(d, "ImageOrientationPatient", skew))


def localizer(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Add a scout image with the UID of the series."""
    scout = pydicom.dcmread(write_series(patient, seed, folder)[0])
    instance = uid("phantom", seed, patient.index, "localizer")
    scout.SOPInstanceUID = scout.file_meta.MediaStorageSOPInstanceUID = instance
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    save(scout, folder / "scout.dcm")


def two_patients(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Name another patient in one slice."""

    def change(k: int, d: Dataset) -> None:
        if k == _middle(patient):
            d.PatientID = d.PatientName = f"{patient.patient_id}-B"

    write_series(patient, seed, folder, change)


def _without(patient: PhantomPatient, seed: int, folder: Path, *keywords: str) -> None:
    """Leave elements out of the middle slice."""

    def change(k: int, d: Dataset) -> None:
        for keyword in keywords if k == _middle(patient) else ():
            delattr(d, keyword)

    write_series(patient, seed, folder, change)


def no_spacing(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Leave the size of pixels out of one slice."""
    _without(patient, seed, folder, "PixelSpacing")


def no_rescale(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Leave the rescale to HU out of one slice."""
    _without(patient, seed, folder, "RescaleSlope", "RescaleIntercept")


def no_pixels(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Leave one slice a header without an image."""
    _without(patient, seed, folder, "PixelData")


def other_unit(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Call the values milligrams of a contrast agent per millilitre."""
    write_series(patient, seed, folder, lambda _, d: setattr(d, "RescaleType", "MGML"))


def varying_rescale(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Store every second slice in halves of a HU; the HU are the same."""

    def change(k: int, d: Dataset) -> None:
        slope, intercept = ((1, 0), (0.5, MIN_HU))[k % 2]
        _with_hu(d, patient.hu[k], slope, intercept)

    write_series(patient, seed, folder, change)


def unsigned_padding(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Name the padding of signed pixels by its pattern, as an unsigned number: 63536 for -2000."""

    def change(k: int, d: Dataset) -> None:
        padded = patient.hu[k].copy()
        padded[:3], padded[-3:] = PADDING, PADDING
        _with_hu(d, padded, 1, 0)
        d.add_new("PixelPaddingValue", "US", PADDING % 65536)

    write_series(patient, seed, folder, change)


def no_decoder(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Claim that the pixels of each slice are a film."""

    def change(_: int, d: Dataset) -> None:
        d.file_meta.TransferSyntaxUID = _MPEG2
        d.PixelData = encapsulate([d.PixelData])
        d["PixelData"].VR = "OB"

    write_series(patient, seed, folder, change)


def cut_slice(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """End one file in the middle of its pixels."""
    path = write_series(patient, seed, folder)[_middle(patient)]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - patient.hu[0].nbytes // 2])


def link_outside(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Write a link to a file of the system."""
    (folder / "0001.dcm").symlink_to(_OUTSIDE)

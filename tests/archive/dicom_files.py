"""CT series as files for tests: any orientation, tilt, spacing, order, bits, rescale and syntax (pydicom)."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from tests.archive.volume_files import rotation
from toolkit.archive.dicom_fields import SliceFile
from toolkit.archive.dicom_header import read_header
from toolkit.archive.dicom_series import DicomSeries, SeriesRules, build_series

AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
CORONAL = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0))
SAGITTAL = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))
OBLIQUE = (tuple(rotation(5)[0]), tuple(rotation(5)[1]))
SPACING = (0.75, 0.5)  # between rows, between columns
ORIGIN = (-31.5, 17.25, -400.125)
STEP_MM = 2.5


def stored_values(shape=(6, 5, 7), bits=12, signed=False, seed=0) -> NDArray[np.int64]:
    """Stored values without any symmetry that use the whole range of the bits."""
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return np.random.default_rng(seed).integers(low, high + 1, shape)


def positions(count, plane=AXIAL, step=None, origin=ORIGIN) -> NDArray[np.float64]:
    """ImagePositionPatient of each slice; by default along the normal, any other step is a tilt."""
    normal = np.cross(*plane) * STEP_MM if step is None else np.array(step)
    return np.array(origin) + np.arange(count)[:, None] * normal


def make_slices(
    stored: NDArray,
    plane=AXIAL,
    places=None,
    spacing=SPACING,
    slope: float | Sequence[float] = 1,
    intercept: float | Sequence[float] = -1024,
    bits=(16, 12, 11),
    signed=False,
    padding: int | None = None,
    series="1.2.3",
    patient="P1",
) -> list[Dataset]:
    """Return one dataset a slice; `bits` are allocated, stored and high bit."""
    allocated, kept, high = bits
    places = positions(len(stored), plane) if places is None else places
    slopes, intercepts = (np.broadcast_to(v, len(stored)) for v in (slope, intercept))
    datasets = []
    for k, values in enumerate(stored):
        d = Dataset()
        d.file_meta = FileMetaDataset()
        d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        d.SOPClassUID, d.SOPInstanceUID, d.Modality = CTImageStorage, f"{series}.{k + 1}", "CT"
        d.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        d.PatientID, d.StudyInstanceUID, d.SeriesInstanceUID = patient, "1.2", series
        d.InstanceNumber, d.ConvolutionKernel = k + 1, "B30f"
        d.ImagePositionPatient = [float(v) for v in places[k]]
        d["ImagePositionPatient"].value = [f"{v:.12g}"[:16] for v in places[k]]
        d.ImageOrientationPatient = [f"{v:.13f}"[:16] for v in (*plane[0], *plane[1])]
        d.PixelSpacing = list(spacing)
        d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
        d.Rows, d.Columns = values.shape
        d.BitsAllocated, d.BitsStored, d.HighBit = allocated, kept, high
        d.PixelRepresentation = int(signed)
        if padding is not None:
            d.add_new("PixelPaddingValue", "SS" if signed and padding < 0 else "US", padding)
        d.RescaleSlope, d.RescaleIntercept = f"{slopes[k]:g}", f"{intercepts[k]:g}"
        set_pixels(d, values)
        datasets.append(d)
    return datasets


def set_pixels(d: Dataset, values: NDArray) -> None:
    """Store values: the cells that the header names hold them, the other bits are 0."""
    shift, mask = d.HighBit + 1 - d.BitsStored, (1 << d.BitsStored) - 1
    words = (np.asarray(values, np.int64) & mask) << shift
    data = words.astype(f"<u{d.BitsAllocated // 8}").tobytes()
    d.add_new("PixelData", "OW" if d.BitsAllocated > 8 else "OB", data + b"\0" * (len(data) % 2))


def write(path: Path, d: Dataset, syntax: str | None = None) -> Path:
    """Write one file in the syntax that its header names, or in another uncompressed one."""
    if syntax is not None:
        d.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    if syntax == pydicom.uid.ExplicitVRBigEndian:
        d = pydicom.Dataset(d)
        words = np.frombuffer(d.PixelData, f"<u{d.BitsAllocated // 8}")
        d.PixelData = words.astype(words.dtype.newbyteorder(">")).tobytes()
        d.file_meta = FileMetaDataset()
        d.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    d.file_meta.MediaStorageSOPClassUID = d.SOPClassUID
    d.file_meta.MediaStorageSOPInstanceUID = d.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    dcmwrite(path, d, enforce_file_format=True)
    return path


def write_all(folder: Path, datasets: Sequence[Dataset], order=None, syntax: str | None = None) -> list[Path]:
    """Write one file a slice; slice k gets the name and InstanceNumber order[k]."""
    order = range(len(datasets)) if order is None else order
    paths = []
    for d, name in zip(datasets, order, strict=True):
        d.InstanceNumber = int(name) + 1
        paths.append(write(folder / f"{int(name):04d}.dcm", d, syntax))
    return paths


def series_of(folder: Path, rules: SeriesRules | None = None) -> DicomSeries:
    """Read the headers of a folder, in the order of names, and build its series."""
    return series_and_notes(folder, rules)[0]


def series_and_notes(folder: Path, rules: SeriesRules | None = None):
    files = [slice_file(path) for path in sorted(folder.rglob("*.dcm"))]
    return build_series(files, rules or SeriesRules())


def slice_file(path: Path) -> SliceFile:
    state = path.stat()
    return SliceFile(str(path), state.st_size, state.st_mtime_ns, read_header(path))


def simple_series(
    folder: Path, change: Callable[[int, Dataset], None] | None = None, **options
) -> list[Path]:
    """Write a plain axial series of six slices, each changed before it is written."""
    datasets = make_slices(stored_values(), **options)
    for k, d in enumerate(datasets):
        if change is not None:
            change(k, d)
    return write_all(folder, datasets)


def whole(series) -> NDArray[np.int16]:
    return series.read_boxes([series.geometry.box])[0]


def reference(paths: Sequence[Path]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return world points (n, 3) and rescaled values (n,) of all pixels by pydicom and PS3.3 C.7.6.2.1.1."""
    points, values = [], []
    for path in paths:
        d = pydicom.dcmread(path)
        rows, columns = np.mgrid[: d.Rows, : d.Columns]
        along_row, along_column = np.array(d.ImageOrientationPatient, float).reshape(2, 3)
        place = (
            np.array(d.ImagePositionPatient, float)
            + columns[..., None] * along_row * d.PixelSpacing[1]
            + rows[..., None] * along_column * d.PixelSpacing[0]
        )
        points.append(place.reshape(-1, 3))
        values.append((d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept)).ravel())
    return np.concatenate(points), np.concatenate(values)

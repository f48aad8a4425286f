"""The nodules of a phantom patient as a structure set: closed planar contours in LPS mm (PS3.3 C.8.8.6).

The contours run through the centres of the rim pixels, as tools that make them of masks do. So a voxel
is inside where its centre lies on a contour or inside an odd number of them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import RTStructureSetStorage
from scipy import ndimage

from toolkit.phantom.anatomy import PhantomNodule, PhantomPatient
from toolkit.phantom.outline import contours
from toolkit.phantom.uids import uid
from toolkit.phantom.write_dicom import (
    DATE,
    TIME,
    frame_uid,
    save,
    series_uid,
    slice_positions_mm,
    study_object,
    study_uid,
)
from toolkit.phantom.write_seg import source

LUNGS = "Lungs"
_CONTOUR_DATA = Tag("ContourData")
_STUDY = "1.2.840.10008.3.1.2.3.1"  # the class that structure sets name a study with (PS3.3 C.8.8.5)
_LUNG_HU = -500
_COARSE = 4  # pixels: a planner's lung outline is no voxel mask
_SMALLEST = 12  # coarse pixels of a lung's slice
_HALF_WIDTH = 0.25  # pixels: a polygon around one or two pixel centres holds no other

Points = NDArray[np.float64]
Slices = Iterator[tuple[int, Points]]


def write_rtstruct(patient: PhantomPatient, seed: int, path: Path) -> None:
    """Write the structure set of the patient's DICOM series.

    ROI k is nodule k of the truth table. A last ROI holds the lungs, as real structure sets hold
    organs beside what is wanted.

    Raises
    ------
    OSError
        Where the disk refuses.
    """
    save(structure_set(patient, seed), path)


def structure_set(patient: PhantomPatient, seed: int) -> Dataset:
    """Return the structure set as a data set."""
    name = uid("phantom", seed, patient.index, "structures")
    series = uid("phantom", seed, patient.index, "structures series")
    struct = study_object(patient, seed, RTStructureSetStorage, name, "RTSTRUCT", series)
    struct.StructureSetLabel = "NODULES"
    struct.StructureSetDate, struct.StructureSetTime = DATE, TIME
    struct.ApprovalStatus = "UNAPPROVED"
    struct.ReferencedFrameOfReferenceSequence = [_referenced(patient, seed)]
    struct.StructureSetROISequence, struct.ROIContourSequence = [], []
    struct.RTROIObservationsSequence = []
    regions = [(f"Nodule {k}", "", _nodule(n)) for k, n in enumerate(patient.nodules, start=1)]
    regions.append((LUNGS, "ORGAN", _lungs(patient)))
    for number, (roi_name, kind, slices) in enumerate(regions, start=1):
        roi, outline, seen = Dataset(), Dataset(), Dataset()
        roi.ROINumber, roi.ReferencedFrameOfReferenceUID = number, frame_uid(patient, seed)
        roi.ROIName, roi.ROIGenerationAlgorithm = roi_name, "MANUAL"
        outline.ROIDisplayColor = [255, 64 * number % 256, 0]
        outline.ReferencedROINumber = number
        outline.ContourSequence = [_contour(patient, seed, k, points) for k, points in slices]
        seen.ObservationNumber = seen.ReferencedROINumber = number
        seen.RTROIInterpretedType, seen.ROIInterpreter = kind, ""
        struct.StructureSetROISequence.append(roi)
        struct.ROIContourSequence.append(outline)
        struct.RTROIObservationsSequence.append(seen)
    return struct


def polygon(chain: Sequence[tuple[int, int]]) -> Points:
    """Return a chain of pixels as (row, column) points of a polygon, (n, 2) with n > 2."""
    points = np.array(chain, dtype=np.float64)
    if len(points) > 2:
        return points
    along = points[-1] - points[0]
    along = along / np.linalg.norm(along) if along.any() else np.array([0.0, 1.0])
    across = along[::-1] * (-1, 1)
    begin, end = points[0] - _HALF_WIDTH * along, points[-1] + _HALF_WIDTH * along
    return np.array([begin, points[0] + _HALF_WIDTH * across, end, points[-1] - _HALF_WIDTH * across])


def _nodule(nodule: PhantomNodule) -> Slices:
    """Yield slice and polygon of every contour of a nodule."""
    first_z, *corner = nodule.box.start_zyx
    for k, part in enumerate(nodule.mask.astype(bool), start=first_z):
        for chain in contours(part):
            yield k, polygon(chain) + corner


def _lungs(patient: PhantomPatient) -> Slices:
    """Yield slice and polygon of roughly outlined lungs."""
    for k, part in enumerate(patient.hu):
        lung = ndimage.binary_fill_holes(part[::_COARSE, ::_COARSE] < _LUNG_HU)
        for chain in contours(lung):
            if len(chain) > _SMALLEST:
                yield k, polygon(chain) * _COARSE


def _contour(patient: PhantomPatient, seed: int, k: int, points: Points) -> Dataset:
    """Return the contour of (row, column) points on slice k."""
    affine = patient.geometry.affine
    x = affine[0, 3] + affine[0, 2] * points[:, 1]
    y = affine[1, 3] + affine[1, 1] * points[:, 0]
    z_mm = f"{slice_positions_mm(patient)[k]:.6f}"
    contour = Dataset()
    contour.ContourImageSequence = [source(patient, seed, k)]
    contour.ContourGeometricType = "CLOSED_PLANAR"
    contour.NumberOfContourPoints = len(points)
    text = "\\".join(f"{a:.6f}\\{b:.6f}\\{z_mm}" for a, b in zip(x, y, strict=True)).encode("ascii")
    text += b" " * (len(text) % 2)
    # As raw bytes: to check each of some ten thousand numbers would take longer than all the rest.
    contour[_CONTOUR_DATA] = RawDataElement(_CONTOUR_DATA, "DS", len(text), text, 0, False, True)
    return contour


def _referenced(patient: PhantomPatient, seed: int) -> Dataset:
    """Return the frame of reference with the study, the series and its images."""
    frame, study, series = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = series_uid(patient, seed)
    series.ContourImageSequence = [source(patient, seed, k) for k in range(patient.geometry.shape_zyx[0])]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = _STUDY, study_uid(patient, seed)
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = frame_uid(patient, seed)
    frame.RTReferencedStudySequence = [study]
    return frame

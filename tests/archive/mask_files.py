"""DICOM Segmentations and RT Structure Sets for tests, written by highdicom, rt-utils and pydicom."""

import contextlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage
from rt_utils import RTStructBuilder

from tests.archive.dicom_files import AXIAL, make_slices, positions, write_all
from toolkit.archive.case import Case, Finding
from toolkit.archive.catalog import catalog
from toolkit.archive.dicom_series import SeriesRules
from toolkit.archive.index_cache import IndexCache
from toolkit.archive.region_rule import RegionRule
from toolkit.archive.regions import find
from toolkit.errors import Problem

SHAPE = (14, 40, 36)
SPACING = (0.8, 0.8)  # rt-utils takes the one for the other


def write_ct(
    folder: Path, shape=SHAPE, plane=AXIAL, places=None, spacing=SPACING, series="1.2.3", seed=0
) -> list[Dataset]:
    """Write a CT series under shuffled names, with what other writers want of it; return its slices."""
    stored = np.random.default_rng(seed).integers(0, 2000, shape)
    places = positions(shape[0], plane) if places is None else places
    slices = make_slices(stored, plane=plane, places=places, spacing=spacing, series=series)
    for d in slices:
        d.FrameOfReferenceUID, d.PositionReferenceIndicator = f"{series}.9", ""
        d.SliceThickness = 2.5
        d.StudyDate, d.StudyTime, d.StudyID = "20000101", "120000", "1"
        d.PatientName, d.PatientBirthDate, d.PatientSex = "Doe^John", "", ""
        d.AccessionNumber, d.ReferringPhysicianName = "", ""
    write_all(folder, slices, np.random.default_rng(1).permutation(len(slices)))
    return slices


def blob(shape=SHAPE, center=(6.3, 21.2, 14.7), radii=(3.4, 6.3, 4.6)) -> NDArray[np.bool_]:
    """An ellipsoid with a bump to one side: no symmetry."""
    index = np.moveaxis(np.indices(shape), 0, -1)
    body = (((index - center) / radii) ** 2).sum(-1) <= 1
    bump = ((index - np.array(center) - (1, 5, -3)) ** 2).sum(-1) <= 3
    return body | bump


def points_of(slices: Sequence[Dataset], mask: NDArray) -> NDArray[np.float64]:
    """World points (n, 3) of marked pixels by PS3.3 C.7.6.2.1.1, sorted."""
    found = []
    for d, marked in zip(slices, mask, strict=True):
        row, column = np.argwhere(marked).T
        right, down = np.array(d.ImageOrientationPatient, float).reshape(2, 3)
        corner = np.array(d.ImagePositionPatient, float)
        found.append(
            corner + np.outer(column * d.PixelSpacing[1], right) + np.outer(row * d.PixelSpacing[0], down)
        )
    return sort_points(np.concatenate(found))


def sort_points(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return points[np.lexsort(np.round(points, 4).T)]


def marked_points(case: Case, finding: Finding) -> NDArray[np.float64]:
    """World points of the voxels of a finding, sorted."""
    index = np.argwhere(finding.mask) + finding.box.start_zyx
    return sort_points(case.source.geometry.to_lps(index.astype(float)))


def write_seg(
    path: Path, slices: Sequence[Dataset], mask: NDArray, kind="BINARY", names=("nodule",), **options
) -> Dataset:
    """Write a mask (slices, rows, columns[, segments]) with highdicom and return the dataset."""
    described = [
        hd.seg.SegmentDescription(
            k,
            name,
            options.pop("category", codes.SCT.MorphologicallyAbnormalStructure),
            options.pop("property_type", codes.SCT.Nodule if "nodule" in name else codes.SCT.Lung),
            hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for k, name in enumerate(names, start=1)
    ]
    uid = hd.UID()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        d = hd.seg.Segmentation(
            list(slices), mask, kind, described, hd.UID(), 1, uid, 1, "m", "m", "1", "1", **options
        )
        d.save_as(path)
    return pydicom.dcmread(path)


def write_rt(path: Path, folder: Path, masks: dict[str, NDArray], **options) -> Dataset:
    """Write masks (slices along the normal, rows, columns) with rt-utils and return the dataset."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        made = RTStructBuilder.create_new(str(folder))
        for name, mask in masks.items():
            made.add_roi(np.moveaxis(mask, 0, -1).astype(bool), name=name, **options)
        made.save(str(path))
    return pydicom.dcmread(path)


def structure_set(
    path: Path, contours: dict[str, Sequence[NDArray]], sources=(), series="1.2.3", kinds=None, forms=None
) -> Dataset:
    """Write closed contours (n, 3) in LPS mm by region name; `sources` are their images, one for each."""
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.file_meta.MediaStorageSOPClassUID = d.SOPClassUID = RTStructureSetStorage
    d.file_meta.MediaStorageSOPInstanceUID = d.SOPInstanceUID = "1.2.77"
    d.Modality, d.StructureSetLabel = "RTSTRUCT", "s"
    frame, study, named = Dataset(), Dataset(), Dataset()
    if series:
        named.SeriesInstanceUID = series
        study.RTReferencedSeriesSequence = [named]
        frame.RTReferencedStudySequence = [study]
        d.ReferencedFrameOfReferenceSequence = [frame]
    d.StructureSetROISequence, d.ROIContourSequence, d.RTROIObservationsSequence = [], [], []
    for number, (name, rings) in enumerate(contours.items(), start=1):
        roi, drawn, observed = Dataset(), Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        drawn.ReferencedROINumber = observed.ReferencedROINumber = number
        observed.ObservationNumber, observed.RTROIInterpretedType = number, (kinds or {}).get(name, "")
        drawn.ContourSequence = []
        for k, ring in enumerate(rings):
            item = Dataset()
            item.ContourGeometricType = (forms or {}).get(name, "CLOSED_PLANAR")
            item.NumberOfContourPoints = len(ring)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "nan" is no decimal string
                item.ContourData = [f"{v:.10g}" for v in np.asarray(ring).ravel()]
            if sources:
                image = Dataset()
                image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = (
                    "1.2.840.10008.5.1.4.1.1.2",
                    sources[k],
                )
                item.ContourImageSequence = [image]
            drawn.ContourSequence.append(item)
        d.StructureSetROISequence.append(roi)
        d.ROIContourSequence.append(drawn)
        d.RTROIObservationsSequence.append(observed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "nan" is no decimal string
        d.save_as(path, enforce_file_format=True)
    return d


def circle(slices: Sequence[Dataset], k: int, center, radius: float, count=64) -> NDArray[np.float64]:
    """A circle of `radius` mm about a (row, column) of slice k, in LPS mm."""
    angle = np.arange(count) * 2 * np.pi / count
    d = slices[k]
    right, down = np.array(d.ImageOrientationPatient, float).reshape(2, 3)
    middle = (
        np.array(d.ImagePositionPatient, float)
        + center[1] * d.PixelSpacing[1] * right
        + center[0] * d.PixelSpacing[0] * down
    )
    return middle + radius * (np.outer(np.cos(angle), right) + np.outer(np.sin(angle), down))


def only_case(folder: Path, rules=None) -> Case:
    """The one case of an archive, nothing refused."""
    found = catalog(folder, None, rules or SeriesRules(), IndexCache(None))
    assert found.refused == ()
    (case,) = found.cases
    assert case.problem is None, case.problem
    return case


def nodules(folder: Path, pattern="", rules=None) -> tuple[Case, list[Finding], list[Problem]]:
    """The one case of an archive, its findings and the notes on them."""
    case = only_case(folder, rules)
    return case, *find(case, case.source, 3.0, RegionRule(pattern))

"""The nodules of a phantom patient as a DICOM Segmentation: one segment a nodule, empty frames left out.

PS3.3 A.51 and C.8.20; bits are packed from the least significant one on, across frames (PS3.5 8.1.1).
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, SegmentationStorage

from toolkit.phantom.anatomy import PhantomNodule, PhantomPatient
from toolkit.phantom.uids import uid
from toolkit.phantom.write_dicom import (
    DATE,
    TIME,
    save,
    series_uid,
    slice_positions_mm,
    sop_uid,
    study_object,
)

_SEGMENT_NUMBER, _SEGMENT_GROUP = 0x0062000B, 0x0062000A
_POSITION, _POSITION_GROUP = 0x00200032, 0x00209113


def write_seg(patient: PhantomPatient, seed: int, path: Path) -> None:
    """Write the segmentation of the patient's DICOM series.

    Segment k is nodule k of the truth table. Frames run towards the head in every second patient and
    towards the feet in the others: their order means nothing.

    Raises
    ------
    OSError
        Where the disk refuses.
    """
    save(segmentation(patient, seed), path)


def segmentation(patient: PhantomPatient, seed: int) -> Dataset:
    """Return the segmentation as a data set."""
    name = uid("phantom", seed, patient.index, "segmentation")
    series = uid("phantom", seed, patient.index, "segmentation series")
    seg = study_object(patient, seed, SegmentationStorage, name, "SEG", series)
    seg.ImageType = ["DERIVED", "PRIMARY"]
    seg.InstanceNumber = 1
    seg.ManufacturerModelName = "PHANTOM"
    seg.DeviceSerialNumber = seg.SoftwareVersions = "1"
    seg.ContentLabel, seg.ContentDescription, seg.ContentCreatorName = "NODULES", "Lung nodules", ""
    seg.SegmentationType = "BINARY"
    seg.LossyImageCompression = "00"
    seg.SamplesPerPixel, seg.PhotometricInterpretation = 1, "MONOCHROME2"
    seg.Rows, seg.Columns = patient.geometry.shape_zyx[1:]
    seg.BitsAllocated = seg.BitsStored = 1
    seg.HighBit = seg.PixelRepresentation = 0
    seg.SegmentSequence = [_segment(k) for k in range(1, len(patient.nodules) + 1)]
    seg.ReferencedSeriesSequence = [_referenced_series(patient, seed)]
    _set_dimensions(seg, uid("phantom", seed, patient.index, "segmentation dimensions"))
    seg.SharedFunctionalGroupsSequence = [_shared(patient)]
    frames = [
        (number, nodule, k) for number, nodule in enumerate(patient.nodules, start=1) for k in _slices(nodule)
    ]
    if patient.index % 2:
        frames.reverse()
    seg.NumberOfFrames = len(frames)
    seg.PerFrameFunctionalGroupsSequence = [_frame(patient, seed, number, k) for number, _, k in frames]
    bits = np.zeros((len(frames), seg.Rows, seg.Columns), dtype=np.uint8)
    for frame, (_, nodule, k) in zip(bits, frames, strict=True):
        frame[nodule.box.slices[1:]] = nodule.mask[k - nodule.box.start_zyx[0]]
    packed = np.packbits(bits, axis=None, bitorder="little").tobytes()
    seg.add_new("PixelData", "OB", packed + b"\0" * (len(packed) % 2))
    return seg


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """Return a coded entry (PS3.3 8.8)."""
    entry = Dataset()
    entry.CodeValue, entry.CodingSchemeDesignator, entry.CodeMeaning = value, scheme, meaning
    return entry


def source(patient: PhantomPatient, seed: int, k: int) -> Dataset:
    """Return a reference to slice k (0 at the foot)."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CTImageStorage, sop_uid(patient, seed, k)
    return item


def _slices(nodule: PhantomNodule) -> Iterator[int]:
    """Yield the slices that hold some of a nodule."""
    for k, part in enumerate(nodule.mask, start=nodule.box.start_zyx[0]):
        if part.any():
            yield k


def _segment(number: int) -> Dataset:
    segment = Dataset()
    segment.SegmentNumber = number
    segment.SegmentLabel = f"Nodule {number}"
    segment.SegmentAlgorithmType = "MANUAL"
    segment.SegmentedPropertyCategoryCodeSequence = [
        code("49755003", "SCT", "Morphologically Abnormal Structure")
    ]
    segment.SegmentedPropertyTypeCodeSequence = [code("27925004", "SCT", "Nodule")]
    return segment


def _referenced_series(patient: PhantomPatient, seed: int) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = series_uid(patient, seed)
    series.ReferencedInstanceSequence = [
        source(patient, seed, k) for k in range(patient.geometry.shape_zyx[0])
    ]
    return series


def _set_dimensions(seg: Dataset, organization: str) -> None:
    """Index frames by segment and position (PS3.3 C.7.6.17)."""
    item = Dataset()
    item.DimensionOrganizationUID = organization
    seg.DimensionOrganizationSequence = [item]
    seg.DimensionIndexSequence = []
    for pointer, group in ((_SEGMENT_NUMBER, _SEGMENT_GROUP), (_POSITION, _POSITION_GROUP)):
        index = Dataset()
        index.DimensionOrganizationUID = organization
        index.DimensionIndexPointer, index.FunctionalGroupPointer = pointer, group
        seg.DimensionIndexSequence.append(index)


def _shared(patient: PhantomPatient) -> Dataset:
    """Return what holds for all frames: orientation and spacings."""
    between, rows_mm, columns_mm = patient.geometry.spacing_mm
    shared, plane, measures = Dataset(), Dataset(), Dataset()
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.SliceThickness = measures.SpacingBetweenSlices = between
    measures.PixelSpacing = [rows_mm, columns_mm]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [measures]
    return shared


def _frame(patient: PhantomPatient, seed: int, number: int, k: int) -> Dataset:
    """Return the functional groups of the frame of segment `number` on slice k."""
    frame, content, position, segment = Dataset(), Dataset(), Dataset(), Dataset()
    content.DimensionIndexValues = [number, k + 1]
    content.FrameAcquisitionDateTime = content.FrameReferenceDateTime = DATE + TIME
    x_mm, y_mm = (round(float(v), 6) for v in patient.geometry.affine[:2, 3])
    position.ImagePositionPatient = [x_mm, y_mm, slice_positions_mm(patient)[k]]
    segment.ReferencedSegmentNumber = number
    image, derivation = source(patient, seed, k), Dataset()
    image.PurposeOfReferenceCodeSequence = [
        code("121322", "DCM", "Source image for image processing operation")
    ]
    derivation.SourceImageSequence = [image]
    derivation.DerivationCodeSequence = [code("113076", "DCM", "Segmentation")]
    frame.FrameContentSequence = [content]
    frame.PlanePositionSequence = [position]
    frame.SegmentIdentificationSequence = [segment]
    frame.DerivationImageSequence = [derivation]
    return frame

"""A phantom patient as one Enhanced CT object: all slices as frames of one file (PS3.3 A.38)."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage

from toolkit.phantom.anatomy import PhantomPatient
from toolkit.phantom.uids import uid
from toolkit.phantom.write_dicom import (
    DATE,
    TIME,
    DicomStyle,
    ct_object,
    dicom_style,
    save,
    slice_positions_mm,
    stored_values,
)

_STACK, _IN_STACK, _FRAME_CONTENT = 0x00209056, 0x00209057, 0x00209111


def write_enhanced(patient: PhantomPatient, seed: int, path: Path) -> None:
    """Write the series as one file. Frames lie in no order: only their positions say where they belong.

    Raises
    ------
    OSError
        Where the disk refuses.
    """
    style = dicom_style(patient)
    name = uid("phantom", seed, patient.index, "enhanced")
    image = ct_object(patient, seed, style, EnhancedCTImageStorage, name)
    image.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    image.InstanceNumber = 1
    image.ManufacturerModelName = "PHANTOM"
    image.DeviceSerialNumber = image.SoftwareVersions = "1"
    image.AcquisitionDateTime = DATE + TIME
    image.ContentQualification = "RESEARCH"
    image.PixelPresentation, image.VolumetricProperties = "MONOCHROME", "VOLUME"
    image.VolumeBasedCalculationTechnique = "NONE"
    image.LossyImageCompression, image.BurnedInAnnotation = "00", "NO"
    image.PresentationLUTShape = "IDENTITY"
    image.AcquisitionContextSequence = []
    _set_dimensions(image, uid("phantom", seed, patient.index, "enhanced dimensions"))
    order = np.random.default_rng([seed, patient.index, 79]).permutation(patient.geometry.shape_zyx[0])
    image.NumberOfFrames = len(order)
    image.SharedFunctionalGroupsSequence = [_shared(patient, style)]
    image.PerFrameFunctionalGroupsSequence = [_frame(patient, int(k)) for k in order]
    image.add_new("PixelData", "OW", stored_values(patient, style)[order].tobytes())
    save(image, path)


def _set_dimensions(image: Dataset, organization: str) -> None:
    """Index frames by stack and position in it (PS3.3 C.7.6.17)."""
    item = Dataset()
    item.DimensionOrganizationUID = organization
    image.DimensionOrganizationSequence = [item]
    image.DimensionIndexSequence = []
    for pointer in (_STACK, _IN_STACK):
        index = Dataset()
        index.DimensionOrganizationUID = organization
        index.DimensionIndexPointer, index.FunctionalGroupPointer = pointer, _FRAME_CONTENT
        image.DimensionIndexSequence.append(index)


def _shared(patient: PhantomPatient, style: DicomStyle) -> Dataset:
    """Return what holds for all frames."""
    between, rows_mm, columns_mm = patient.geometry.spacing_mm
    shared, plane, measures, rescale, kind = (Dataset() for _ in range(5))
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.SliceThickness = measures.SpacingBetweenSlices = between
    measures.PixelSpacing = [rows_mm, columns_mm]
    rescale.RescaleIntercept, rescale.RescaleSlope, rescale.RescaleType = style.intercept, 1, "HU"
    kind.FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    kind.PixelPresentation, kind.VolumetricProperties = "MONOCHROME", "VOLUME"
    kind.VolumeBasedCalculationTechnique = "NONE"
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [measures]
    shared.PixelValueTransformationSequence, shared.CTImageFrameTypeSequence = [rescale], [kind]
    return shared


def _frame(patient: PhantomPatient, k: int) -> Dataset:
    """Return the functional groups of slice k (0 at the foot)."""
    frame, content, position = Dataset(), Dataset(), Dataset()
    content.FrameAcquisitionDateTime = content.FrameReferenceDateTime = DATE + TIME
    content.FrameAcquisitionNumber = 1
    content.StackID, content.InStackPositionNumber = "1", k + 1
    content.DimensionIndexValues = [1, k + 1]
    x_mm, y_mm = (round(float(v), 6) for v in patient.geometry.affine[:2, 3])
    position.ImagePositionPatient = [x_mm, y_mm, slice_positions_mm(patient)[k]]
    frame.FrameContentSequence, frame.PlanePositionSequence = [content], [position]
    return frame

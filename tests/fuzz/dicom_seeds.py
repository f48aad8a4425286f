"""Small valid DICOM files of every kind that is read, without chance in them."""

import warnings
from pathlib import Path

import gdcm
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    SegmentationStorage,
)

from tests.archive.dicom_files import make_slices, positions, stored_values, write
from tests.archive.mask_files import circle, structure_set
from tests.fuzz.mutate import Hot, Seed
from toolkit.archive.dicom_fields import element_at, file_meta

SHAPE = (4, 12, 10)
ENCODERS = {
    "1.2.840.10008.1.2.5": "pydicom",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    "1.2.840.10008.1.2.4.90": "pylibjpeg",
    "1.2.840.10008.1.2.4.91": "pylibjpeg",
}


def hot_places(data: bytes) -> Hot:
    """Return where the lengths and the 16-bit values of the elements of an explicit file lie."""
    found: list[tuple[int, int]] = []
    try:
        at, syntax = file_meta(data)
        explicit = syntax != ImplicitVRLittleEndian
        while at + 8 <= len(data) and len(found) < 400:
            begin, length, _ = element_at(data, at, explicit)
            found.append((begin - 4, 4) if not explicit or begin == at + 12 else (begin - 2, 2))
            if length == 2:
                found.append((begin, 2))
            at = begin if length == 0xFFFFFFFF or data[at + 4 : at + 6] == b"SQ" else begin + length
    except Exception:  # hints only
        pass
    return tuple((place, width) for place, width in found if place + width <= len(data))


def seed_of(name: str, data: bytes) -> Seed:
    return Seed(name, data, hot_places(data))


def slices(shape=SHAPE, **options) -> list[Dataset]:
    return make_slices(stored_values(shape), **options)


def plain_files(folder: Path) -> list[Seed]:
    """One slice in each uncompressed encoding, without a preamble, with sequences, and several frames."""
    made = []
    for name, syntax in {
        "explicit": ExplicitVRLittleEndian, "implicit": ImplicitVRLittleEndian,
        "deflated": DeflatedExplicitVRLittleEndian, "big": ExplicitVRBigEndian,
    }.items():  # fmt: skip
        d = slices(padding=100)[1]
        made.append(seed_of(name, write(folder / name, d, syntax).read_bytes()))
    whole = write(folder / "bare", slices()[1], ImplicitVRLittleEndian).read_bytes()
    made.append(Seed("bare", whole[file_meta(whole)[0] :]))
    nested = slices()[1]
    for undefined in (False, True):
        inner, outer = Dataset(), Dataset()
        inner.CodeValue, inner.CodeMeaning = "1", "deep"
        outer.ProcedureCodeSequence = [inner, inner]
        nested.RequestAttributesSequence = [outer]
        nested["RequestAttributesSequence"].is_undefined_length = undefined
        outer.is_undefined_length_sequence_item = undefined
        made.append(seed_of(f"nested-{undefined}", write(folder / "nested", nested).read_bytes()))
    made.append(seed_of("enhanced", enhanced(folder)))
    return made


def enhanced(folder: Path, syntax: str | None = None) -> bytes:
    """An Enhanced CT of four frames."""
    d = slices()[0]
    del d.ImagePositionPatient, d.ImageOrientationPatient, d.PixelSpacing, d.RescaleSlope, d.RescaleIntercept
    d.SOPClassUID, d.NumberOfFrames = EnhancedCTImageStorage, SHAPE[0]
    d.PixelData = stored_values(SHAPE).astype("<u2").tobytes()
    shared, measures, plane, value = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, plane.ImageOrientationPatient = [0.75, 0.5], [1, 0, 0, 0, 1, 0]
    value.RescaleSlope, value.RescaleIntercept, value.RescaleType = "1", "-1024", "HU"
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    shared.PixelValueTransformationSequence = [value]
    d.SharedFunctionalGroupsSequence, d.PerFrameFunctionalGroupsSequence = [shared], []
    for place in positions(SHAPE[0]):
        frame, at, content = Dataset(), Dataset(), Dataset()
        at.ImagePositionPatient, content.FrameAcquisitionNumber = [float(v) for v in place], 1
        frame.PlanePositionSequence, frame.FrameContentSequence = [at], [content]
        d.PerFrameFunctionalGroupsSequence.append(frame)
    return write(folder / "enhanced", d, syntax).read_bytes()


def compressed(folder: Path, syntax: str) -> list[Seed]:
    """A slice in a syntax that pydicom's plug-ins encode, of 12 and of 8 bits."""
    made, side = [], 64 if ".4.9" in syntax else 24  # OpenJPEG halves it five times
    for bits in ((16, 12, 11), (8, 8, 7)):
        d = make_slices(stored_values((1, side, side + 1), bits=bits[1]), bits=bits)[0]
        options = {"jls_error": 2} if syntax.endswith(".81") else {}
        options |= {"j2k_cr": [4]} if syntax.endswith(".91") else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            d.compress(syntax, encoding_plugin=ENCODERS[syntax], generate_instance_uid=False, **options)
        made.append(seed_of(f"{syntax}-{bits[0]}", write(folder / "c", d).read_bytes()))
    return made


def jpeg(folder: Path) -> list[Seed]:
    """Slices in the JPEG syntaxes that GDCM encodes: baseline, extended, lossless."""
    made = []
    wanted = gdcm.TransferSyntax
    for name, syntax, bits in (
        ("50", wanted.JPEGBaselineProcess1, (8, 8, 7)),
        ("51", wanted.JPEGExtendedProcess2_4, (16, 12, 11)),
        ("57", wanted.JPEGLosslessProcess14, (16, 16, 15)),
        ("70", wanted.JPEGLosslessProcess14_1, (16, 12, 11)),
    ):
        source, target = folder / "in.dcm", folder / "out.dcm"
        write(source, make_slices(stored_values((1, 24, 25), bits=bits[1]), bits=bits)[0])
        reader = gdcm.ImageReader()
        reader.SetFileName(str(source))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
        change.SetInput(reader.GetImage())
        if not change.Change():
            continue
        writer = gdcm.ImageWriter()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(target))
        assert writer.Write()
        d = pydicom.dcmread(target)
        d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = "1.2.3.1"  # GDCM draws new ones
        made.append(seed_of(name, write(folder / "j", d).read_bytes()))
    return made


def segmentation(kind: str, syntax: str | None = None) -> Dataset:
    """A segmentation of two segments on the slices of `slices`."""
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.SOPClassUID, d.SOPInstanceUID, d.Modality = SegmentationStorage, "1.2.88", "SEG"
    d.SegmentationType, d.Rows, d.Columns = kind, *SHAPE[1:]
    d.BitsAllocated = d.BitsStored = 1 if kind == "BINARY" and syntax != RLELossless else 8
    d.HighBit, d.PixelRepresentation, d.SamplesPerPixel = d.BitsAllocated - 1, 0, 1
    d.PhotometricInterpretation, d.MaximumFractionalValue = "MONOCHROME2", 255
    series = Dataset()
    series.SeriesInstanceUID = "1.2.3"
    d.ReferencedSeriesSequence = [series]
    d.SegmentSequence, d.PerFrameFunctionalGroupsSequence = [], []
    for number in (1, 2):
        segment, code = Dataset(), Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "27925004", "SCT", "Nodule"
        segment.SegmentNumber, segment.SegmentLabel = number, f"nodule {number}"
        segment.SegmentedPropertyTypeCodeSequence = [code]
        d.SegmentSequence.append(segment)
    shared, measures, plane = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, plane.ImageOrientationPatient = [0.75, 0.5], [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    d.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for k, place in enumerate(positions(SHAPE[0])[:3]):
        frame, at, which, drawn, source = Dataset(), Dataset(), Dataset(), Dataset(), Dataset()
        at.ImagePositionPatient = [float(v) for v in place]
        which.ReferencedSegmentNumber = 1 + k // 2
        source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = (
            "1.2.840.10008.5.1.4.1.1.2",
            f"1.2.3.{k + 1}",
        )
        drawn.SourceImageSequence = [source]
        frame.PlanePositionSequence, frame.SegmentIdentificationSequence = [at], [which]
        frame.DerivationImageSequence = [drawn]
        d.PerFrameFunctionalGroupsSequence.append(frame)
        frames.append(np.zeros(SHAPE[1:], np.uint8))
        frames[-1][3:7, 2:8] = {"BINARY": 1, "FRACTIONAL": 200, "LABELMAP": 1 + k // 2}[kind]
    d.NumberOfFrames = len(frames)
    pixels = np.stack(frames)
    if d.BitsAllocated == 1:
        data = np.packbits(pixels.ravel(), bitorder="little").tobytes()
    else:
        data = pixels.tobytes()
    d.add_new("PixelData", "OB", data + b"\0" * (len(data) % 2))
    if syntax == RLELossless:
        d.compress(syntax, encoding_plugin="pydicom", generate_instance_uid=False)
    return d


def segmentations(folder: Path) -> list[Seed]:
    """Segmentations of each kind, deflated and run-length encoded ones too."""
    made = []
    for name, kind, syntax in (
        ("binary", "BINARY", None), ("fractional", "FRACTIONAL", None), ("labelmap", "LABELMAP", None),
        ("deflated", "BINARY", DeflatedExplicitVRLittleEndian), ("rle", "FRACTIONAL", RLELossless),
    ):  # fmt: skip
        made.append(seed_of(name, write(folder / name, segmentation(kind, syntax), syntax).read_bytes()))
    return made


def structures(folder: Path) -> list[Seed]:
    """A structure set of two regions, uncompressed and deflated."""
    drawn = slices()
    rings = [circle(drawn, k, (5, 4.5), 1.5, 12) for k in (1, 2)]
    sources = [d.SOPInstanceUID for d in drawn]
    d = structure_set(folder / "rt", {"nodule": rings, "GTV 2": [rings[0] + (1.0, 0, 0)]}, sources[1:])
    plain = (folder / "rt").read_bytes()
    deflated = write(folder / "z", d, DeflatedExplicitVRLittleEndian).read_bytes()
    return [seed_of("plain", plain), seed_of("deflated", deflated)]

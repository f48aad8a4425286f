"""Enhanced CT: frames by their own positions, against highdicom and the single slices they came from."""

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    RLELossless,
)

from tests.archive.dicom_files import (
    OBLIQUE,
    SAGITTAL,
    make_slices,
    positions,
    series_of,
    simple_series,
    stored_values,
    whole,
    write,
    write_all,
)
from tests.archive.test_discover import run
from tests.archive.volume_files import hu
from toolkit.archive.case import opened
from toolkit.archive.catalog import catalog
from toolkit.archive.dicom_series import SeriesRules
from toolkit.archive.geometry import Box
from toolkit.archive.index_cache import IndexCache

ORDER = [3, 0, 5, 1, 4, 2]
PLANES = {"sagittal": SAGITTAL, "oblique": OBLIQUE}

KEPT = (
    *(
        "Modality",
        "PatientID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "ImageType",
        "SamplesPerPixel",
        "Rows",
    ),
    *(
        "Columns",
        "PhotometricInterpretation",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
        "PixelRepresentation",
    ),
)


def item(**elements):
    d = Dataset()
    for keyword, value in elements.items():
        setattr(d, keyword, value)
    return d


def enhanced(slices, order=ORDER, shared=True, change=None):
    """One Enhanced CT of single slices, frames in any order; rescale and geometry in functional groups."""
    first = slices[0]
    d = Dataset()
    d.file_meta = first.file_meta
    for keyword in KEPT:
        setattr(d, keyword, getattr(first, keyword))
    d.SOPClassUID, d.SOPInstanceUID, d.NumberOfFrames = EnhancedCTImageStorage, "1.2.3.77", len(order)
    frames, common = [], item()
    if shared:
        common.PlaneOrientationSequence = [item(ImageOrientationPatient=first.ImageOrientationPatient)]
        common.PixelMeasuresSequence = [item(PixelSpacing=first.PixelSpacing, SliceThickness="9")]
    for number, k in enumerate(order, start=1):
        s = slices[k]
        frame = item(
            FrameContentSequence=[item(StackID="1", InStackPositionNumber=number, FrameAcquisitionNumber=1)],
            PlanePositionSequence=[item(ImagePositionPatient=s.ImagePositionPatient)],
            PixelValueTransformationSequence=[
                item(RescaleSlope=s.RescaleSlope, RescaleIntercept=s.RescaleIntercept, RescaleType="HU")
            ],
        )
        if not shared:
            frame.PlaneOrientationSequence = [item(ImageOrientationPatient=s.ImageOrientationPatient)]
            frame.PixelMeasuresSequence = [item(PixelSpacing=s.PixelSpacing)]
        if change is not None:
            change(number, frame)
        frames.append(frame)
    d.SharedFunctionalGroupsSequence = Sequence([common])
    d.PerFrameFunctionalGroupsSequence = Sequence(frames)
    d.add_new("PixelData", "OW", b"".join(slices[k].PixelData for k in order))
    return d


def only(root):
    (case,) = run(root).cases
    assert case.problem is None, case.problem
    return case.source


def codes(root):
    found = run(root)
    return [c.problem and c.problem.code for c in found.cases], [p.code for p in found.refused]


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("order", [ORDER, range(6), range(5, -1, -1)])
def test_the_volume_of_its_single_slices(tmp_path, plane, shared, order):
    slopes = np.array([1, 0.5, 1.25, 2, 1, 1])
    slices = make_slices(stored_values((6, 8, 7)), PLANES[plane], slope=slopes)
    write_all(tmp_path / "single", slices)
    write(tmp_path / "multi" / "a.dcm", enhanced(slices, order, shared))
    one, other = series_of(tmp_path / "single"), only(tmp_path / "multi")
    np.testing.assert_array_equal(whole(other), whole(one))
    np.testing.assert_allclose(other.geometry.affine, one.geometry.affine, atol=1e-9)
    by_frame = other.slice_by_frame()
    for number, k in enumerate(order, start=1):
        place = other.native.to_lps(np.array([by_frame["1.2.3.77", number], 0.0, 0.0]))
        np.testing.assert_allclose(place, np.array(slices[k].ImagePositionPatient, float), atol=1e-3)
    assert other.slice_by_sop_uid() == {}  # the object is no slice


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEGLSLossless,
    ],
)
def test_encodings(tmp_path, syntax):
    stored = stored_values((6, 12, 14))
    d = enhanced(make_slices(stored))
    if syntax in (RLELossless, JPEGLSLossless):
        d.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
        plugin = "pydicom" if syntax == RLELossless else "pyjpegls"
        d.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
        write(tmp_path / "a.dcm", d)
    else:
        write(tmp_path / "a.dcm", d, syntax)
    source = only(tmp_path)
    np.testing.assert_array_equal(whole(source), hu(stored - 1024))
    box = Box((1, 2, 3), (4, 4, 6))
    np.testing.assert_array_equal(source.read_boxes([box])[0], hu(stored - 1024)[box.slices])


def test_legacy_conversion_by_highdicom(tmp_path):
    stored = stored_values((6, 8, 7))
    slices = make_slices(stored, OBLIQUE, padding=3)
    for d in slices:
        d.FrameOfReferenceUID, d.PositionReferenceIndicator, d.SliceThickness = "1.2.9", "", "2.5"
        d.SeriesNumber = d.AcquisitionNumber = 1
        d.StudyDate = d.ContentDate = "20200101"
        d.StudyTime = d.ContentTime = "101010"
        d.AccessionNumber = d.PatientBirthDate = d.ReferringPhysicianName = ""
        d.PatientName, d.PatientSex, d.StudyID, d.Manufacturer = "a^b", "M", "1", "M"
    paths = write_all(tmp_path / "single", slices, ORDER)
    made = hd.legacy.LegacyConvertedEnhancedCTImage(
        [pydicom.dcmread(p) for p in sorted(paths)],
        series_instance_uid="1.2.4",
        series_number=2,
        sop_instance_uid="1.2.4.1",
        instance_number=1,
    )
    (tmp_path / "multi").mkdir()
    made.save_as(tmp_path / "multi" / "a.dcm")
    source = only(tmp_path / "multi")
    np.testing.assert_array_equal(whole(source), whole(series_of(tmp_path / "single")))
    volume = hd.imread(tmp_path / "multi" / "a.dcm").get_volume(apply_modality_transform=True)
    index = np.indices(source.geometry.shape_zyx).reshape(3, -1).T
    to_theirs = np.linalg.inv(volume.affine)
    theirs = source.geometry.to_lps(index.astype(float)) @ to_theirs[:3, :3].T + to_theirs[:3, 3]
    np.testing.assert_allclose(theirs, np.rint(theirs), atol=1e-4)
    expected = volume.array[tuple(np.rint(theirs).astype(int).T)]
    padding = expected == 3 - 1024  # highdicom leaves padding as it is
    np.testing.assert_array_equal(whole(source).ravel(), np.where(padding, -1024, hu(expected)))


def test_only_the_needed_rows_are_read(tmp_path, monkeypatch):
    import os

    write(tmp_path / "a.dcm", enhanced(make_slices(stored_values((6, 40, 7)))))
    source = only(tmp_path)
    read, real = [], os.pread
    monkeypatch.setattr(os, "pread", lambda fd, count, at: read.append(count) or real(fd, count, at))
    source.read_boxes([Box((1, 10, 0), (3, 12, 7))])
    assert read == [2 * 7 * 2] * 2


def test_the_index_remembers_frames_and_stays_small(tmp_path):
    slices = make_slices(stored_values((6, 8, 7)))
    write(tmp_path / "a" / "a.dcm", enhanced(slices))
    cache = IndexCache(tmp_path / "index")
    found = [catalog(tmp_path / "a", None, SeriesRules(), cache).cases[0] for _ in range(2)]
    np.testing.assert_array_equal(*(whole(case.source) for case in found))
    assert found[0].digest == found[1].digest
    entry = cache.get("folder", str(tmp_path / "a"))[0]
    assert len(str(entry)) < 6 * 200 + 1000


def without(keyword, at=4):
    def change(number, frame):
        if number == at:
            del frame[keyword]

    return change


@pytest.mark.parametrize(
    "keyword", ["PlanePositionSequence", "PixelValueTransformationSequence", "PixelMeasuresSequence"]
)
def test_a_missing_group_is_refused_by_name(tmp_path, keyword):
    path = write(
        tmp_path / "a.dcm",
        enhanced(
            make_slices(stored_values()), shared=keyword != "PixelMeasuresSequence", change=without(keyword)
        ),
    )
    found = run(tmp_path)
    assert [(p.code, p.files) for p in found.refused] == [("E-DCM-005", (str(path),))]
    assert "frame 4" in found.refused[0].measured


def test_no_groups_at_all_and_too_few(tmp_path):
    slices = make_slices(stored_values())
    for name, change in {
        "none": lambda d: d.pop("PerFrameFunctionalGroupsSequence"),
        "few": lambda d: d.PerFrameFunctionalGroupsSequence.pop(),
        "absurd": lambda d: setattr(d, "NumberOfFrames", 1_000_000_000),
    }.items():
        d = enhanced(slices)
        change(d)
        write(tmp_path / name / "a.dcm", d)
        assert codes(tmp_path / name) == ([], ["E-DCM-005"])


def test_another_unit_is_refused(tmp_path):
    def perfusion(_, frame):
        frame.PixelValueTransformationSequence[0].RescaleType = "US"

    write(tmp_path / "a.dcm", enhanced(make_slices(stored_values()), change=perfusion))
    assert codes(tmp_path) == ([], ["E-HU-002"])


@pytest.mark.real
def test_a_real_perfusion_map_is_no_ct(dirty_archive):
    name = "CT0012.fragmented_no_bot_jpeg_baseline.51.dcm"
    path = next(dirty_archive.rglob(name))
    assert ("E-HU-002", (str(path),)) in [(p.code, p.files) for p in run(path.parent).refused]


def test_repeated_positions_are_refused(tmp_path):
    """Two temporal positions: every place twice, and nothing in the header to tell them apart."""
    slices = make_slices(stored_values())
    write(tmp_path / "a.dcm", enhanced([*slices, *slices], range(12)))
    found = run(tmp_path)
    assert [c.problem.code for c in found.cases] == ["E-GEO-002"]
    assert found.cases[0].problem.files == (str(tmp_path / "a.dcm"),)


def test_a_missing_frame_is_refused(tmp_path):
    write(tmp_path / "a.dcm", enhanced(make_slices(stored_values((8, 5, 7))), [0, 1, 2, 4, 5, 6, 7]))
    assert codes(tmp_path)[0] == ["E-GEO-003"]


def test_a_file_cut_short_is_refused(tmp_path):
    path = write(tmp_path / "a.dcm", enhanced(make_slices(stored_values())))
    path.write_bytes(path.read_bytes()[:-30])
    assert codes(tmp_path)[0] == ["E-FILE-002"]


def test_frames_of_another_class_are_refused_by_name(tmp_path):
    simple_series(tmp_path)
    d = enhanced(make_slices(stored_values(), series="1.2.8"))
    d.SOPClassUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    path = write(tmp_path / "z.dcm", d)
    found = run(tmp_path)
    assert [c.problem for c in found.cases] == [None]
    assert [(p.code, p.files) for p in found.refused] == [("E-DCM-005", (str(path),))]


def test_one_series_may_be_one_file_and_single_files(tmp_path):
    """Position decides, not the file: half of the slices are frames."""
    slices = make_slices(stored_values(), places=positions(6))
    write(tmp_path / "a.dcm", enhanced(slices, [0, 2, 4]))
    for k in (1, 3, 5):
        write(tmp_path / f"{k}.dcm", slices[k])
    np.testing.assert_array_equal(whole(opened(run(tmp_path).cases[0]).source), hu(stored_values() - 1024))

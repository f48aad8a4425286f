"""Segmentations come back where highdicom put them, and those that cannot be trusted do not come back."""

import copy
import re
import shutil

import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from tests.archive.dicom_files import AXIAL, CORONAL, OBLIQUE, SAGITTAL, positions
from tests.archive.mask_files import (
    SHAPE,
    blob,
    marked_points,
    nodules,
    points_of,
    write_ct,
    write_seg,
)
from toolkit.archive.dicom_series import SeriesRules
from toolkit.errors import InputError

FLIPPED = ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0))  # prone: rows run to the right, columns to the front


def test_a_mask_is_where_it_was_drawn(tmp_path):
    slices = write_ct(tmp_path)
    mask = blob()
    write_seg(tmp_path / "seg.dcm", slices, mask.astype(np.uint8))
    case, (finding,), notes = nodules(tmp_path)
    assert notes == []
    assert (finding.name, finding.mask_source, finding.label) == ("1", "volume", None)
    np.testing.assert_allclose(marked_points(case, finding), points_of(slices, mask), atol=1e-6)
    assert finding.volume_mm3 == pytest.approx(mask.sum() * 0.8 * 0.8 * 2.5)
    np.testing.assert_allclose(finding.center_lps_mm, points_of(slices, mask).mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("plane", [AXIAL, CORONAL, SAGITTAL, OBLIQUE, FLIPPED])
@pytest.mark.parametrize("feet_first", [False, True])
@pytest.mark.parametrize("tilted", [False, True])
def test_any_orientation_tilt_and_order(tmp_path, plane, feet_first, tilted):
    step = 2.5 * np.cross(*plane) + (0.9 * np.array(plane[1]) if tilted else 0)
    places = positions(SHAPE[0], plane, step)
    slices = write_ct(
        tmp_path, plane=plane, places=places[::-1] if feet_first else places, spacing=(0.7, 0.9)
    )
    mask = blob()
    write_seg(tmp_path / "seg.dcm", slices, mask.astype(np.uint8))
    case, (finding,), _ = nodules(tmp_path)
    np.testing.assert_allclose(marked_points(case, finding), points_of(slices, mask), atol=1e-4)
    assert finding.volume_mm3 == pytest.approx(mask.sum() * 0.7 * 0.9 * 2.5)
    np.testing.assert_allclose(finding.center_lps_mm, points_of(slices, mask).mean(axis=0), atol=1e-4)


def test_an_uneven_stack_counts_slices_by_thickness(tmp_path):
    places = positions(SHAPE[0])
    places[7:] += (0, 0, 1.0)
    slices = write_ct(tmp_path, places=places)
    mask = np.zeros(SHAPE, np.uint8)
    mask[5:8, 10:15, 10:16] = 1
    write_seg(tmp_path / "seg.dcm", slices, mask)
    _, (finding,), _ = nodules(tmp_path, rules=SeriesRules(allow_uneven=True))
    thickness = np.array([2.5, 3.0, 3.0])
    assert finding.volume_mm3 == pytest.approx(30 * thickness.sum() * 0.64)
    assert finding.center_lps_mm[2] == pytest.approx(np.average(places[5:8, 2], weights=thickness))


def test_segments_may_overlap_and_anatomy_is_left(tmp_path):
    slices = write_ct(tmp_path)
    one, two = blob(), np.roll(blob(), 2, axis=2)
    assert (one & two).any()
    masks = np.stack([one, np.ones(SHAPE, bool), two], axis=-1).astype(np.uint8)
    write_seg(tmp_path / "seg.dcm", slices, masks, names=("nodule 1", "Lungs", "nodule 2"))
    case, findings, notes = nodules(tmp_path)
    assert [f.name for f in findings] == ["1", "3"]
    for finding, mask in zip(findings, (one, two), strict=True):
        np.testing.assert_allclose(marked_points(case, finding), points_of(slices, mask), atol=1e-6)
    assert [(n.code, n.measured) for n in notes] == [("W-MASK-002", "1 of 3")]
    _, findings, notes = nodules(tmp_path, pattern="^LUNG|nodule 2")
    assert [f.name for f in findings] == ["2", "3"]
    assert [n.code for n in notes] == ["W-MASK-002"]


def test_only_anatomy_is_no_nodule(tmp_path):
    slices = write_ct(tmp_path)
    write_seg(
        tmp_path / "seg.dcm", slices, blob().astype(np.uint8), names=("Segment 1",), category=codes.SCT.Tissue
    )
    _, findings, notes = nodules(tmp_path)
    assert findings == []
    assert [n.code for n in notes] == ["W-MASK-002"]


def test_shuffled_frames(tmp_path):
    slices = write_ct(tmp_path)
    masks = np.stack([blob(), np.roll(blob(), 9, axis=2)], axis=-1).astype(np.uint8)
    seg = write_seg(tmp_path / "seg.dcm", slices, masks, names=("nodule a", "nodule b"))
    _, before, _ = nodules(tmp_path)
    order = np.random.default_rng(2).permutation(seg.NumberOfFrames)
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
    frames = bits[: seg.NumberOfFrames * 40 * 36].reshape(-1, 40 * 36)[order]
    packed = np.packbits(frames, bitorder="little").tobytes()
    seg.PixelData = packed + b"\0" * (len(packed) % 2)
    seg.PerFrameFunctionalGroupsSequence = [seg.PerFrameFunctionalGroupsSequence[k] for k in order]
    seg.save_as(tmp_path / "seg.dcm")
    _, after, _ = nodules(tmp_path)
    assert len(after) == 2
    for a, b in zip(before, after, strict=True):
        assert a.box == b.box
        np.testing.assert_array_equal(a.mask, b.mask)


def test_frames_need_not_end_on_a_byte(tmp_path):
    shape = (9, 13, 11)
    slices = write_ct(tmp_path, shape=shape)
    mask = np.random.default_rng(0).random(shape) < 0.3
    write_seg(tmp_path / "seg.dcm", slices, mask.astype(np.uint8))
    case, (finding,), notes = nodules(tmp_path)
    np.testing.assert_allclose(marked_points(case, finding), points_of(slices, mask), atol=1e-6)
    assert all(note.code == "W-MASK-003" for note in notes)


def test_fractional(tmp_path):
    slices = write_ct(tmp_path)
    share = np.zeros(SHAPE)
    share[4:8, 10:20, 10:20] = np.linspace(0, 1, 10)
    write_seg(tmp_path / "seg.dcm", slices, share, kind="FRACTIONAL", max_fractional_value=100)
    case, (finding,), notes = nodules(tmp_path)
    stored = np.rint(share * 100)
    np.testing.assert_allclose(marked_points(case, finding), points_of(slices, stored >= 50), atol=1e-6)
    assert [n.code for n in notes] == ["W-SEG-001"]
    assert notes[0].measured == "maximum 100"


def test_label_map(tmp_path):
    slices = write_ct(tmp_path)
    labels = blob().astype(np.uint8)
    labels[10:13, 5:9, 20:30] = 3
    labels[1:3, 5:9, 20:30] = 2
    write_seg(tmp_path / "seg.dcm", slices, labels, kind="LABELMAP", names=("nodule a", "heart", "nodule c"))
    case, findings, _ = nodules(tmp_path)
    assert [f.name for f in findings] == ["1", "3"]
    for finding, value in zip(findings, (1, 3), strict=True):
        np.testing.assert_allclose(
            marked_points(case, finding), points_of(slices, labels == value), atol=1e-6
        )


def test_a_label_that_nothing_describes(tmp_path):
    slices = write_ct(tmp_path)
    seg = write_seg(tmp_path / "seg.dcm", slices, blob().astype(np.uint8), kind="LABELMAP")
    seg.PixelData = seg.PixelData.replace(b"\1", b"\7")
    seg.save_as(tmp_path / "seg.dcm")
    with pytest.raises(InputError, match=r"E-SEG-002.*value 7"):
        nodules(tmp_path)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_other_plain_syntaxes(tmp_path, syntax):
    slices = write_ct(tmp_path)
    mask = blob()
    seg = write_seg(tmp_path / "seg.dcm", slices, mask.astype(np.uint8))
    seg.file_meta.TransferSyntaxUID = syntax
    seg.save_as(tmp_path / "seg.dcm", implicit_vr=syntax.is_implicit_VR, little_endian=True)
    case, (finding,), _ = nodules(tmp_path)
    np.testing.assert_allclose(marked_points(case, finding), points_of(slices, mask), atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "syntax"),
    [("FRACTIONAL", RLELossless), ("LABELMAP", RLELossless), ("FRACTIONAL", JPEG2000Lossless)],
)
def test_compressed_frames(tmp_path, kind, syntax):
    slices = write_ct(tmp_path)
    mask = blob()
    values = mask.astype(float if kind == "FRACTIONAL" else np.uint8)
    write_seg(tmp_path / "seg.dcm", slices, values, kind=kind, transfer_syntax_uid=syntax)
    case, (finding,), _ = nodules(tmp_path)
    np.testing.assert_allclose(marked_points(case, finding), points_of(slices, mask), atol=1e-6)


def changed(tmp_path, change, mask=None, names=("nodule",)):
    """Write a series and a segmentation that `change` spoils."""
    slices = write_ct(tmp_path)
    mask = blob() if mask is None else mask
    seg = write_seg(tmp_path / "seg.dcm", slices, mask.astype(np.uint8), names=names)
    change(seg)
    seg.save_as(tmp_path / "seg.dcm")
    return slices, mask


def groups(seg):
    return seg.PerFrameFunctionalGroupsSequence


def zero_origin(seg):
    for group in groups(seg):
        group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 0]


def flip_z(seg):
    places = [group.PlanePositionSequence[0].ImagePositionPatient for group in groups(seg)]
    for group, place in zip(groups(seg), places[::-1], strict=True):
        group.PlanePositionSequence[0].ImagePositionPatient = place


def no_position(seg):
    for group in groups(seg):
        del group.PlanePositionSequence


def foreign_image(seg):
    groups(seg)[2].DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID = "1.9"


def no_reference(seg):
    for group in groups(seg):
        group.pop("DerivationImageSequence", None)


def coarse(seg):
    seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [1.6, 1.6]


def fewer_rows(seg):
    seg.Rows -= 1


def sideways(seg):
    for group in groups(seg):
        place = group.PlanePositionSequence[0]
        x, y, z = map(float, place.ImagePositionPatient)
        place.ImagePositionPatient = [x + 0.41, y, z]  # 0.51 voxel


def cut_across(seg):
    seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient = [
        1,
        0,
        0,
        0,
        0,
        -1,
    ]


def twice(seg):
    groups(seg)[1].PlanePositionSequence = groups(seg)[0].PlanePositionSequence
    groups(seg)[1].DerivationImageSequence = groups(seg)[0].DerivationImageSequence


def beyond(seg):
    no_reference(seg)
    for group in groups(seg):
        place = group.PlanePositionSequence[0]
        x, y, z = map(float, place.ImagePositionPatient)
        place.ImagePositionPatient = [x, y, z + 40]


def too_many_frames(seg):
    seg.NumberOfFrames = 500


def bomb(seg):
    seg.Rows = seg.Columns = 65535


def no_pixels(seg):
    del seg.PixelData


def other_segment(seg):
    seg.SharedFunctionalGroupsSequence[0].SegmentIdentificationSequence[0].ReferencedSegmentNumber = 4


def surface(seg):
    seg.SegmentationType = "SURFACE"


def not_finite(seg):
    groups(seg)[0].PlanePositionSequence[0].ImagePositionPatient = ["1", "2", "nan"]


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (zero_origin, "E-SEG-004", "mm from the image that it references"),
        (flip_z, "E-SEG-004", "mm from the image that it references"),
        (no_position, "E-SEG-002", "no usable position"),
        (foreign_image, "E-SEG-003", "frame 3"),
        (coarse, "E-MASK-001", "voxels"),
        (fewer_rows, "E-MASK-001", "39 x 36"),
        (sideways, "E-MASK-001", r"0\.51 voxels \(0\.41 mm\)"),
        (cut_across, "E-MASK-001", "cut across"),
        (twice, "E-SEG-006", "frames 1 and 2"),
        (beyond, "E-SEG-005", "from the nearest slice"),
        (too_many_frames, "E-SEG-002", "500"),
        (bomb, "E-FILE-002", "bytes"),
        (no_pixels, "E-DCM-006", "no pixel data"),
        (other_segment, "E-SEG-002", "segment 4"),
        (surface, "E-SEG-002", "SURFACE"),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_what_cannot_be_trusted_is_refused_by_name(tmp_path, change, code, says):
    changed(tmp_path, change)
    with pytest.raises(InputError, match=code) as refused:
        nodules(tmp_path)
    problem = refused.value.problem
    assert re.search(says, f"{problem.what} {problem.measured}")
    assert problem.files == (str(tmp_path / "seg.dcm"),)
    assert "seg.dcm" not in problem.public


def test_zero_origin_without_references_is_refused_too(tmp_path):
    def change(seg):
        zero_origin(seg)
        no_reference(seg)

    changed(tmp_path, change)
    with pytest.raises(InputError, match="E-SEG-005"):
        nodules(tmp_path)


def test_positions_alone_place_a_mask(tmp_path):
    slices, mask = changed(tmp_path, no_reference)
    case, (finding,), _ = nodules(tmp_path)
    np.testing.assert_allclose(marked_points(case, finding), points_of(slices, mask), atol=1e-6)


@pytest.mark.parametrize("axes", [(1,), (2,), (1, 2)])
def test_a_flip_within_the_plane_is_placed_by_position(tmp_path, axes):
    def change(seg):
        shared = seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
        turned = np.array(shared.ImageOrientationPatient, float).reshape(2, 3)
        frames = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
        frames = frames[: seg.NumberOfFrames * 40 * 36].reshape(-1, 40, 36)
        for axis in axes:
            row_or_column = turned[2 - axis]
            shift = row_or_column * 0.8 * (SHAPE[axis] - 1)
            for group in groups(seg):
                place = group.PlanePositionSequence[0]
                place.ImagePositionPatient = (np.array(place.ImagePositionPatient, float) + shift).tolist()
            turned[2 - axis] = -row_or_column
            frames = np.flip(frames, axis)
        shared.ImageOrientationPatient = turned.ravel().tolist()
        packed = np.packbits(frames.ravel(), bitorder="little").tobytes()
        seg.PixelData = packed + b"\0" * (len(packed) % 2)

    slices, mask = changed(tmp_path, change)
    case, (finding,), _ = nodules(tmp_path)
    np.testing.assert_allclose(marked_points(case, finding), points_of(slices, mask), atol=1e-4)


def test_a_frame_between_two_slices_of_a_gap(tmp_path):
    """With --allow-missing a frame in the gap lies on no slice, and one on a slice still does."""
    slices = write_ct(tmp_path)
    mask = np.zeros(SHAPE, np.uint8)
    mask[6:9, 10:20, 10:20] = 1
    seg = write_seg(tmp_path / "seg.dcm", slices, mask)
    no_reference(seg)
    seg.save_as(tmp_path / "seg.dcm")
    lost = next(p for p in tmp_path.glob("0*.dcm") if pydicom.dcmread(p).SOPInstanceUID.endswith("3.8"))
    lost.unlink()
    rules = SeriesRules(allow_missing=True)
    with pytest.raises(InputError, match="E-SEG-005"):
        nodules(tmp_path, rules=rules)
    mask[7] = 0
    write_seg(tmp_path / "seg.dcm", slices, mask)
    _, (finding,), _ = nodules(tmp_path, rules=rules)
    assert finding.volume_mm3 == pytest.approx(200 * 0.64 * 3.75)  # each slice up to the middle of the gap


def test_several_parts_are_one_nodule_and_said(tmp_path):
    slices = write_ct(tmp_path)
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:4, 5:12, 5:12] = mask[9:12, 25:35, 20:30] = 1
    write_seg(tmp_path / "seg.dcm", slices, mask)
    _, (finding,), notes = nodules(tmp_path)
    assert finding.mask.sum() == mask.sum()
    assert [(n.code, n.measured.split()[0]) for n in notes] == [("W-MASK-003", "2")]


def test_a_segment_without_a_voxel_is_left_out(tmp_path):
    slices = write_ct(tmp_path)
    masks = np.stack([blob(), np.zeros(SHAPE, bool)], axis=-1).astype(np.uint8)
    write_seg(tmp_path / "seg.dcm", slices, masks, names=("nodule a", "nodule b"), omit_empty_frames=False)
    _, findings, notes = nodules(tmp_path)
    assert [f.name for f in findings] == ["1"]
    assert [n.code for n in notes] == ["W-SEG-002"]


def test_a_broken_segment_that_is_not_taken_does_no_harm(tmp_path):
    slices = write_ct(tmp_path)
    masks = np.stack([blob(), np.ones(SHAPE, bool)], axis=-1).astype(np.uint8)
    seg = write_seg(tmp_path / "seg.dcm", slices, masks, names=("nodule", "heart"))
    for group in groups(seg):
        if group.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 2:
            group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 0]
    seg.save_as(tmp_path / "seg.dcm")
    _, (finding,), _ = nodules(tmp_path)
    assert finding.mask.sum() == blob().sum()


def test_cut_short(tmp_path):
    slices = write_ct(tmp_path)
    write_seg(tmp_path / "whole.dcm", slices, blob().astype(np.uint8))
    data = (tmp_path / "whole.dcm").read_bytes()
    (tmp_path / "whole.dcm").unlink()
    for length in (len(data) - 2, len(data) - 900):
        (tmp_path / "seg.dcm").write_bytes(data[:length])
        with pytest.raises(InputError, match="E-FILE-002"):
            nodules(tmp_path)


def test_a_deflated_bomb(tmp_path):
    slices = write_ct(tmp_path)
    seg = write_seg(tmp_path / "seg.dcm", slices, blob().astype(np.uint8))
    seg.PixelData = seg.PixelData + bytes(300 << 20)
    seg.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    seg.save_as(tmp_path / "seg.dcm", implicit_vr=False, little_endian=True)
    assert (tmp_path / "seg.dcm").stat().st_size < 1 << 20
    from toolkit.archive.mask_object import read_head

    with pytest.raises(InputError, match="E-VOL-003"):
        read_head("seg", str(tmp_path / "seg.dcm"))


def test_big_endian_bits_are_refused(tmp_path):
    slices = write_ct(tmp_path)
    seg = write_seg(tmp_path / "seg.dcm", slices, blob().astype(np.uint8))
    seg = pydicom.Dataset(copy.deepcopy(seg))
    meta = pydicom.dcmread(tmp_path / "seg.dcm").file_meta
    meta.TransferSyntaxUID = ExplicitVRBigEndian
    seg.file_meta = meta
    seg.save_as(tmp_path / "seg.dcm", implicit_vr=False, little_endian=False)
    with pytest.raises(InputError, match="E-DCM-003"):
        nodules(tmp_path)


def test_the_segmentation_among_the_test_files_of_pydicom(tmp_path):
    """It is of one frame; its series is not here, so it is refused by name, not ignored."""
    from toolkit.archive.catalog import catalog
    from toolkit.archive.index_cache import IndexCache

    write_ct(tmp_path / "ct")
    shutil.copy(pydicom.data.get_testdata_file("liver_1frame.dcm"), tmp_path / "liver.dcm")
    shutil.copy(pydicom.data.get_testdata_file("liver_expb_1frame.dcm"), tmp_path / "big_endian.dcm")
    found = catalog(tmp_path, None, SeriesRules(), IndexCache(None))
    assert len(found.cases) == 1
    assert [(p.code, p.files[0].rpartition("/")[2]) for p in found.refused] == [
        ("E-MASK-002", "big_endian.dcm"),
        ("E-MASK-002", "liver.dcm"),
    ]

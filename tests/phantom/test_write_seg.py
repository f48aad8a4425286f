"""The segmentation, read by highdicom and by pydicom's own unpacking."""

from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.pixels.utils import unpack_bits

from toolkit.phantom.anatomy import PhantomPatient
from toolkit.phantom.write_dicom import series_uid, slice_positions_mm, sop_uid, write_dicom
from toolkit.phantom.write_nifti import label_volume
from toolkit.phantom.write_seg import write_seg

SEED = 5


def written(patient: PhantomPatient, folder: Path) -> Path:
    write_seg(patient, SEED, folder / "seg.dcm")
    return folder / "seg.dcm"


@pytest.mark.parametrize("k", range(4))
def test_highdicom_reads_the_masks_bit_for_bit(
    patients: list[PhantomPatient], tmp_path: Path, k: int
) -> None:
    p = patients[k]
    seg = hd.seg.segread(written(p, tmp_path))
    uids = [sop_uid(p, SEED, n) for n in range(p.hu.shape[0])]
    labels = seg.get_pixels_by_source_instance(
        uids, combine_segments=True, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(labels, label_volume(p))
    assert seg.segmentation_type == hd.seg.SegmentationTypeValues.BINARY
    assert seg.number_of_segments == len(p.nodules)
    for number in seg.segment_numbers:
        segment = seg.get_segment_description(number)
        assert segment.segment_label == f"Nodule {number}"
        assert segment.segmented_property_type.meaning == "Nodule"


@pytest.mark.parametrize("k", range(4))
def test_highdicom_places_them_in_the_patient(patients: list[PhantomPatient], tmp_path: Path, k: int) -> None:
    p = patients[k]
    volume = hd.seg.segread(written(p, tmp_path)).get_volume(combine_segments=True)
    where = np.argwhere(volume.array)
    truth = np.argwhere(label_volume(p))
    expected = p.geometry.to_lps(truth.astype(float))
    found = volume.map_indices_to_reference(where)
    found, expected = (a[np.lexsort(np.round(a, 3).T)] for a in (found, expected))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_frames_are_those_that_hold_something_and_name_their_slice(
    patients: list[PhantomPatient], tmp_path: Path
) -> None:
    orders = set()
    for p in patients[:4]:
        seg = pydicom.dcmread(written(p, tmp_path))
        frames = unpack_bits(seg.PixelData, as_array=True)[: seg.NumberOfFrames * seg.Rows * seg.Columns]
        frames = frames.reshape(seg.NumberOfFrames, seg.Rows, seg.Columns)
        assert frames.any(axis=(1, 2)).all()
        assert seg.NumberOfFrames < p.hu.shape[0]
        assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == series_uid(p, SEED)
        positions = slice_positions_mm(p)
        first = [
            item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            for item in seg.PerFrameFunctionalGroupsSequence
        ]
        orders.add(first == sorted(first))
        for frame, item in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
            nodule = p.nodules[item.SegmentIdentificationSequence[0].ReferencedSegmentNumber - 1]
            z_mm = item.PlanePositionSequence[0].ImagePositionPatient[2]
            k = positions.index(z_mm)
            named = item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
            assert named == sop_uid(p, SEED, k)
            np.testing.assert_array_equal(
                frame[nodule.box.slices[1:]], nodule.mask[k - nodule.box.start_zyx[0]]
            )
            assert frame.sum() == nodule.mask[k - nodule.box.start_zyx[0]].sum()
    assert orders == {True, False}


def test_it_belongs_to_the_series(patients: list[PhantomPatient], tmp_path: Path) -> None:
    p = patients[0]
    write_dicom(p, SEED, tmp_path)
    image = pydicom.dcmread(next(tmp_path.glob("1-*.dcm")))
    seg = pydicom.dcmread(written(p, tmp_path))
    for name in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID", "StudyDate"):
        assert seg[name].value == image[name].value
    assert seg.SeriesInstanceUID != image.SeriesInstanceUID
    held = {path.name: pydicom.dcmread(path).SOPInstanceUID for path in tmp_path.glob("1-*.dcm")}
    named = {
        item.ReferencedSOPInstanceUID for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert named == set(held.values())

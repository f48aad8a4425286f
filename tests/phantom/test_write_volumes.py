"""LUNA16's and Slicer's files, read by SimpleITK and pynrrd."""

from pathlib import Path

import nrrd
import numpy as np
import pytest
import SimpleITK as sitk

from toolkit.phantom.anatomy import PhantomPatient
from toolkit.phantom.write_dicom import series_uid
from toolkit.phantom.write_meta import ANNOTATIONS, CANDIDATES, table_lines, write_meta
from toolkit.phantom.write_nifti import label_volume
from toolkit.phantom.write_nrrd import mask_name, write_nrrd


def same_grid(image: sitk.Image, p: PhantomPatient) -> None:
    for index in ((0, 0, 0), (3, 7, 11), tuple(n - 1 for n in p.hu.shape)):
        expected = p.geometry.to_lps(np.array(index, dtype=float))
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index[::-1]), expected, atol=1e-6)


@pytest.mark.parametrize("k", range(4))
def test_simpleitk_reads_the_metaimage(patients: list[PhantomPatient], tmp_path: Path, k: int) -> None:
    p = patients[k]
    write_meta(p, 5, tmp_path)
    image = sitk.ReadImage(str(tmp_path / f"{series_uid(p, 5)}.mhd"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), p.hu)
    same_grid(image, p)
    assert {path.suffix for path in tmp_path.iterdir()} == {".mhd", (".raw", ".zraw")[k % 2]}


def test_annotations_are_the_nodules_and_candidates_hold_them(patients: list[PhantomPatient]) -> None:
    for p in patients[:4]:
        lines = table_lines(p, 5)
        assert lines == table_lines(p, 5)
        for line, nodule in zip(lines[ANNOTATIONS], p.nodules, strict=True):
            assert line[0] == series_uid(p, 5)
            np.testing.assert_allclose(line[1:4], nodule.center_lps_mm, atol=1e-6)
            assert line[4] == pytest.approx(nodule.diameter_mm, abs=1e-6)
        true = [line[1:4] for line in lines[CANDIDATES] if line[4] == 1]
        assert true == [line[1:4] for line in lines[ANNOTATIONS]]
        labels = label_volume(p)
        false = [line[1:4] for line in lines[CANDIDATES] if line[4] == 0]
        assert len(false) == 8
        for point in false:
            index = tuple(np.rint(p.geometry.to_nominal_index(np.array(point))).astype(int))
            assert labels[index] == 0
            assert -950 < p.hu[index] < -700


@pytest.mark.parametrize("k", range(4))
def test_simpleitk_reads_image_and_labels(patients: list[PhantomPatient], tmp_path: Path, k: int) -> None:
    p = patients[k]
    write_nrrd(p, tmp_path)
    image = sitk.ReadImage(str(tmp_path / f"{p.patient_id}.nrrd"))
    labels = sitk.ReadImage(str(tmp_path / mask_name(p)))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), p.hu)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(labels), label_volume(p))
    assert labels.GetPixelID() == sitk.sitkUInt8
    same_grid(image, p)
    same_grid(labels, p)


def test_spaces_and_names_vary(patients: list[PhantomPatient], tmp_path: Path) -> None:
    spaces = set()
    for p in patients[:2]:
        write_nrrd(p, tmp_path)
        data, header = nrrd.read(str(tmp_path / mask_name(p)))
        spaces.add(header["space"])
        np.testing.assert_array_equal(data.T, label_volume(p))
    assert spaces == {"left-posterior-superior", "right-anterior-superior"}
    assert header["Segment0_Name"] == "Nodule 1"
    assert {path.name for path in tmp_path.iterdir()} == {
        "PHANTOM-0001.nrrd",
        "PHANTOM-0001_label.nrrd",
        "PHANTOM-0002.nrrd",
        "PHANTOM-0002.seg.nrrd",
    }

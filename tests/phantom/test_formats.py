"""Readers that share no code with the writers must see the phantom's own HU where it has them."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from toolkit.phantom.anatomy import PhantomPatient, reconstruction_circle
from toolkit.phantom.write_dicom import PADDING, dicom_style, write_dicom
from toolkit.phantom.write_nifti import label_volume, write_nifti


def world_of(image: sitk.Image, xyz: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(image.TransformIndexToPhysicalPoint(xyz))


@pytest.mark.parametrize("k", range(6))
def test_simpleitk_reads_the_series(patients: list[PhantomPatient], tmp_path: Path, k: int) -> None:
    p = patients[k]
    write_dicom(p, 5, tmp_path)
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
    assert len(names) == p.hu.shape[0]
    image = sitk.ReadImage(names)
    array = sitk.GetArrayFromImage(image)
    style = dicom_style(p)
    seen = np.ones(p.hu.shape[1:], dtype=bool)
    if p.padded:
        seen = reconstruction_circle(p.hu.shape[1:])
        assert np.all(array[:, ~seen] == PADDING + style.intercept)
    np.testing.assert_array_equal(array[:, seen], p.hu[:, seen])
    for index in ((0, 0, 0), (3, 7, 11), tuple(n - 1 for n in p.hu.shape)):
        expected = p.geometry.to_lps(np.array(index, dtype=float))
        np.testing.assert_allclose(world_of(image, index[::-1]), expected, atol=1e-4)


def test_headers_are_whole_and_vary(patients: list[PhantomPatient], tmp_path: Path) -> None:
    styles = {dicom_style(p) for p in patients}
    for field in ("signed", "intercept", "padded", "shuffled_names", "numbering"):
        assert len({getattr(s, field) for s in styles}) > 1, field
    for p in patients[:4]:
        folder = tmp_path / p.patient_id
        folder.mkdir()
        write_dicom(p, 5, folder)
        files = sorted(folder.iterdir())
        slices = [pydicom.dcmread(f) for f in files]
        assert files[0].read_bytes()[:132] == bytes(128) + b"DICM"
        assert len({s.SOPInstanceUID for s in slices}) == len(slices)
        assert len({s.SeriesInstanceUID for s in slices}) == 1
        assert all(pydicom.uid.UID(s.SOPInstanceUID).is_valid for s in slices)
        assert all(s.file_meta.MediaStorageSOPInstanceUID == s.SOPInstanceUID for s in slices)
        assert sorted(s.InstanceNumber for s in slices) == list(range(1, len(slices) + 1))
        in_order = np.all(np.diff([s.ImagePositionPatient[2] for s in slices]) > 0)
        assert in_order != dicom_style(p).shuffled_names
        first = slices[0]
        assert first.PatientID == p.patient_id
        assert ("PixelPaddingValue" in first) == p.padded
        if p.padded:
            assert first["PixelPaddingValue"].VR == "SS"
            assert first.PixelPaddingValue == PADDING
            assert (first.pixel_array == PADDING).any()


def test_nifti_maps_the_same_voxels_to_the_same_place(patients: list[PhantomPatient], tmp_path: Path) -> None:
    codes = set()
    for p in patients[1:10:2]:
        write_nifti(p, tmp_path)
        path, mask_path = (tmp_path / f"{p.patient_id}{end}.nii.gz" for end in ("", "_mask"))
        image, mask = nib.load(path), nib.load(mask_path)
        codes.add(nib.aff2axcodes(image.affine))
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
        assert image.header["qform_code"] == image.header["sform_code"] == 1
        ras = nib.as_closest_canonical(image)
        hu = np.asarray(ras.dataobj)[::-1, ::-1].transpose(2, 1, 0)  # RAS to LPS, xyz to zyx
        np.testing.assert_array_equal(hu, p.hu)
        labels = np.asarray(nib.as_closest_canonical(mask).dataobj)[::-1, ::-1].transpose(2, 1, 0)
        np.testing.assert_array_equal(labels, label_volume(p))
        assert mask.get_data_dtype() == np.uint8
        itk = sitk.ReadImage(str(path))
        for index in ((0, 0, 0), (3, 7, 11), tuple(n - 1 for n in p.hu.shape)):
            world = tuple(float(v) for v in p.geometry.to_lps(np.array(index, dtype=float)))
            assert itk.GetPixel(itk.TransformPhysicalPointToIndex(world)) == p.hu[index]
    assert len(codes) == 5


def test_the_two_formats_hold_one_patient(patients: list[PhantomPatient], tmp_path: Path) -> None:
    p = next(q for q in patients if not q.padded)
    write_nifti(p, tmp_path)
    folder = tmp_path / "dicom"
    folder.mkdir()
    write_dicom(p, 5, folder)
    series = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    nifti = sitk.ReadImage(str(tmp_path / f"{p.patient_id}.nii.gz"))
    nifti = sitk.DICOMOrient(nifti, "LPS")
    np.testing.assert_allclose(series.GetOrigin(), nifti.GetOrigin(), atol=1e-3)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(series), sitk.GetArrayFromImage(nifti))

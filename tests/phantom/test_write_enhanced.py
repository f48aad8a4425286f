"""The multi-frame object, read by highdicom and frame by frame by pydicom."""

from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest

from toolkit.phantom.anatomy import PhantomPatient, reconstruction_circle
from toolkit.phantom.write_dicom import series_uid, slice_positions_mm
from toolkit.phantom.write_enhanced import write_enhanced


@pytest.mark.parametrize("k", range(6))
def test_highdicom_reads_the_volume(patients: list[PhantomPatient], tmp_path: Path, k: int) -> None:
    p = patients[k]
    write_enhanced(p, 5, tmp_path / "e.dcm")
    volume = hd.imread(tmp_path / "e.dcm").get_volume(apply_modality_transform=True)
    volume = volume.to_patient_orientation("HPL")
    seen = np.ones(p.hu.shape[1:], bool)
    if p.padded:
        seen = reconstruction_circle(p.hu.shape[1:])
    np.testing.assert_array_equal(volume.array[:, seen], p.hu[:, seen])
    np.testing.assert_allclose(volume.affine, p.geometry.affine, atol=1e-5)


def test_frames_lie_in_no_order(patients: list[PhantomPatient], tmp_path: Path) -> None:
    for p in patients[:3]:
        write_enhanced(p, 5, tmp_path / "e.dcm")
        image = pydicom.dcmread(tmp_path / "e.dcm")
        places = [
            float(item.PlanePositionSequence[0].ImagePositionPatient[2])
            for item in image.PerFrameFunctionalGroupsSequence
        ]
        assert sorted(places) == slice_positions_mm(p)
        assert places != sorted(places)
        assert image.SeriesInstanceUID == series_uid(p, 5)
        assert image.SOPClassUID == pydicom.uid.EnhancedCTImageStorage
        assert image.NumberOfFrames == p.hu.shape[0] == len(places)
        assert len(image.PixelData) == p.hu.nbytes

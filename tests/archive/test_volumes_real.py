"""Real volumes with traps, each with a stated outcome; independent readers give the values."""

import numpy as np
import pytest
import SimpleITK as sitk

from toolkit.archive.case import MaskFile
from toolkit.archive.geometry import Box
from toolkit.archive.masks import find_nodules
from toolkit.archive.stored import read_boxes
from toolkit.archive.volume import open_labels, open_volume
from toolkit.errors import InputError

pytestmark = pytest.mark.real

READ = (
    "volumes/ct_cropped.nii.gz",
    "volumes/PartSolidLesionCropped.mha",
    "volumes/PartSolidLesionCroppedManualInitialization1.mha",
    "volumes/ct-64.nrrd",
    "volumes/lm-64.nrrd",
    "nrrd/BallBinary30x30x30.nhdr",
    "nrrd/BallBinary30x30x30_gz.nrrd",
    "nrrd/BallBinary30x30x30.nii.gz",
    "nrrd/small.nrrd",
)


@pytest.fixture
def archive(dirty_archive):
    return dirty_archive


@pytest.mark.parametrize("name", READ)
def test_values_and_positions_are_those_of_simpleitk(archive, name):
    path = str(archive / name)
    image, volume = sitk.ReadImage(path), open_volume(path)
    native = volume.header.geometry
    np.testing.assert_array_equal(
        read_boxes(volume.header.stored, [native.box])[0], sitk.GetArrayFromImage(image)
    )
    index = np.random.default_rng(0).integers(0, min(native.shape_zyx), (30, 3))
    expected = [image.TransformIndexToPhysicalPoint(tuple(int(n) for n in row[::-1])) for row in index]
    np.testing.assert_allclose(native.to_lps(index), expected, atol=1e-3)
    oriented = sitk.DICOMOrient(image, "LPS")
    whole = np.clip(np.rint(sitk.GetArrayFromImage(oriented)), -1024, 3071)
    box = Box((3, 4, 5), tuple(n - 2 for n in volume.geometry.shape_zyx))
    np.testing.assert_array_equal(volume.read_boxes([box])[0], whole[box.slices])
    np.testing.assert_allclose(volume.geometry.affine[:3, 3], oriented.GetOrigin(), atol=1e-3)


@pytest.mark.parametrize(
    ("name", "code"), [("nrrd/test2d_ascii.nrrd", "E-VOL-001"), ("nrrd/test_simple4d_raw.nrrd", "E-GEO-001")]
)
def test_what_is_refused(archive, name, code):
    with pytest.raises(InputError) as caught:
        open_volume(str(archive / name))
    assert caught.value.problem.code == code


def test_the_mask_that_contradicts_its_image_is_refused(archive):
    image = open_volume(str(archive / "volumes/PartSolidLesionCropped.mha"))
    path = str(archive / "volumes/PartSolidLesionCroppedManualInitialization1.mha")
    with pytest.raises(InputError) as caught:
        find_nodules(open_labels(path), image.geometry, MaskFile(path, "labels"), 3.0)
    assert caught.value.problem.code == "E-MASK-001"
    assert "100.00 voxels" in caught.value.problem.measured  # turned about z: 101 voxels along y


def test_a_real_label_map(archive):
    image = open_volume(str(archive / "volumes/ct-64.nrrd"))
    path = str(archive / "volumes/lm-64.nrrd")
    findings, notes = find_nodules(open_labels(path), image.geometry, MaskFile(path, "labels"), 3.0)
    array = sitk.GetArrayFromImage(sitk.ReadImage(path))
    values, counts = np.unique(array[array > 0], return_counts=True)
    assert [f.name for f in findings] == [str(v) for v in values]
    np.testing.assert_allclose([f.volume_mm3 for f in findings], counts * image.geometry.voxel_mm3)
    assert notes == []

"""Every volume format against independent readers: values, world positions, orientations, boxes."""

import json
import pickle
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.archive.volume_files import (
    ITK_FORMATS,
    ORIENTATIONS,
    canonical_geometry,
    hu,
    native_of,
    phantom,
    rotation,
    small_turn,
    write_itk,
    write_nifti,
)
from toolkit.archive.geometry import RAS_TO_LPS, Box
from toolkit.archive.stored import StoredArray, iter_slabs, read_boxes
from toolkit.archive.volume import file_volume, open_labels, open_volume, to_hu
from toolkit.archive.volume_header import VolumeHeader
from toolkit.errors import InputError


@pytest.mark.parametrize("name", ITK_FORMATS)
@pytest.mark.parametrize("turned", [False, True], ids=["straight", "oblique"])
def test_all_48_orientations_give_one_canonical_volume(tmp_path, name, turned):
    geometry = canonical_geometry(turn=small_turn() if turned else None)
    values = phantom(geometry.shape_zyx)
    for order, signs in ORIENTATIONS:
        native, affine = native_of(values, geometry, order, signs)
        volume = open_volume(str(write_itk(tmp_path / name, native, affine)))
        assert volume.geometry.shape_zyx == geometry.shape_zyx
        np.testing.assert_allclose(volume.geometry.affine, geometry.affine, atol=3e-5)
        np.testing.assert_array_equal(volume.read_boxes([volume.geometry.box])[0], hu(values))


@pytest.mark.parametrize("name", ITK_FORMATS)
def test_world_positions_are_those_of_simpleitk(tmp_path, name):
    rng = np.random.default_rng(3)
    for seed in range(5):
        affine = np.eye(4)
        affine[:3, :3] = rotation(seed) * rng.uniform(0.4, 3, 3)
        affine[:3, 3] = rng.uniform(-300, 300, 3)
        path = str(write_itk(tmp_path / name, phantom((4, 5, 6)), affine))
        image = sitk.ReadImage(path)
        volume = open_volume(path)
        index = rng.integers(0, 4, (20, 3))
        expected = [image.TransformIndexToPhysicalPoint(tuple(int(n) for n in row[::-1])) for row in index]
        np.testing.assert_allclose(volume.header.geometry.to_lps(index), expected, atol=1e-4)
        native = read_boxes(volume.header.stored, [volume.header.geometry.box])[0]
        np.testing.assert_array_equal(native, sitk.GetArrayFromImage(image))


@pytest.mark.parametrize("name", ["a.mha", "z.mha", "a.nrrd", "z.nrrd", "a.nii", "a.nii.gz"])
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_element_types(tmp_path, name, dtype):
    values = np.clip(phantom(), 0 if dtype[0] == "u" else -120, 120).astype(dtype)
    path = str(write_itk(tmp_path / name, values, canonical_geometry().affine))
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.read_boxes([volume.geometry.box])[0], values.astype(np.int16))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_shear_and_a_slope_as_nibabel_reads_them(tmp_path, name):
    affine = canonical_geometry(turn=small_turn()).affine
    affine[1, 0] += 0.9  # gantry tilt
    values = phantom()
    path = str(write_nifti(tmp_path / name, values, affine, scl_slope=0.37, scl_inter=-24.5))
    image = nib.load(path)
    volume = open_volume(path)
    np.testing.assert_allclose(volume.geometry.affine, affine, rtol=1e-6)
    np.testing.assert_allclose(
        volume.header.geometry.affine[:, [2, 1, 0, 3]], RAS_TO_LPS @ image.affine, rtol=1e-6
    )
    expected = np.clip(np.rint(image.get_fdata().T), -1024, 3071)
    np.testing.assert_array_equal(volume.read_boxes([volume.geometry.box])[0], expected)


def test_nifti_units_are_converted(tmp_path):
    geometry, values = canonical_geometry(), phantom()
    for code, factor in ((1, 1e-3), (3, 1e3), (0, 1.0)):
        affine = geometry.affine.copy()
        affine[:3] *= factor
        volume = open_volume(str(write_nifti(tmp_path / "a.nii", values, affine, xyzt_units=code)))
        np.testing.assert_allclose(volume.geometry.affine, geometry.affine, rtol=1e-5)


def test_big_endian_nifti_2_and_pairs(tmp_path):
    geometry, values = canonical_geometry(), phantom()
    ras = RAS_TO_LPS @ geometry.affine @ np.eye(4)[[2, 1, 0, 3]]
    big = nib.Nifti1Image(values.T, ras, nib.Nifti1Header(endianness=">"))
    for name, image in (
        ("big.nii", big),
        ("two.nii.gz", nib.Nifti2Image(values.T, ras)),
        ("pair.hdr", nib.Nifti1Pair(values.T, ras)),
    ):
        nib.save(image, tmp_path / name)
        volume = open_volume(str(tmp_path / name))
        np.testing.assert_array_equal(volume.read_boxes([volume.geometry.box])[0], hu(values))
        np.testing.assert_allclose(volume.geometry.affine, geometry.affine, rtol=1e-6)
    np.testing.assert_array_equal(
        open_volume(str(tmp_path / "pair.img")).geometry.affine, volume.geometry.affine
    )


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("boxes")
    geometry = canonical_geometry((9, 8, 7))
    values = phantom(geometry.shape_zyx)
    native, affine = native_of(values, geometry, (1, 2, 0), (-1, 1, -1))
    return [
        open_volume(str(write_itk(folder / f"{name[0]}{turn}{name[1:]}", *pair)))
        for name in ("a.mha", "z.mha", "z.nrrd", "a.nii.gz")
        for turn, pair in enumerate(((native, affine), (values, geometry.affine)))
    ], hu(values)


BOXES = st.lists(
    st.tuples(*(st.tuples(st.integers(0, n), st.integers(0, n)).map(sorted) for n in (9, 8, 7))).map(
        lambda ends: Box(tuple(a for a, _ in ends), tuple(b for _, b in ends))
    ),
    max_size=4,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(boxes=BOXES)
def test_boxes_equal_slices_of_the_whole(volumes, boxes):
    for volume in volumes[0]:
        for box, found in zip(boxes, volume.read_boxes(boxes), strict=True):
            assert found.dtype == np.int16
            np.testing.assert_array_equal(found, volumes[1][box.slices])


@pytest.mark.parametrize("slab_bytes", [1, 120, 1000, 1 << 20])
def test_slabs_cover_the_volume_once(volumes, slab_bytes):
    for volume in volumes[0]:
        stored = volume.header.stored
        slabs = [(k, np.array(slab)) for k, slab in iter_slabs(stored, 0, stored.shape_zyx[0], slab_bytes)]
        whole = read_boxes(stored, [volume.header.geometry.box])[0]
        np.testing.assert_array_equal(np.concatenate([slab for _, slab in slabs]), whole)
        assert [k for k, _ in slabs] == np.cumsum([0] + [len(slab) for _, slab in slabs])[:-1].tolist()


def test_box_outside_is_a_mistake_of_the_caller(volumes):
    with pytest.raises(ValueError, match="leaves the volume"):
        volumes[0][0].read_boxes([Box((0, 0, 0), (10, 8, 7))])


def test_json_and_pickle_round_trip(tmp_path, volumes):
    path = tmp_path / "a.mha"
    write_itk(path, phantom(), canonical_geometry(turn=small_turn()).affine)
    bare = path.read_bytes().replace(b"Offset = ", b"Comment = ")
    path.write_bytes(bare)
    for volume in [*volumes[0], open_volume(str(path))]:
        header = VolumeHeader.from_json(json.loads(json.dumps(volume.header.to_json())))
        assert header.stored == volume.header.stored
        assert header.notes == volume.header.notes
        assert header.header_digest == volume.header.header_digest
        for again in (file_volume(header), pickle.loads(pickle.dumps(volume))):
            np.testing.assert_array_equal(again.geometry.affine, volume.geometry.affine)
            box = [volume.geometry.box]
            np.testing.assert_array_equal(again.read_boxes(box)[0], volume.read_boxes(box)[0])
    assert [note.code for note in open_volume(str(path)).header.notes] == ["W-GEO-002"]


@pytest.mark.parametrize("dtype", ["|i1", "|u1", "<i2", ">i2", "<u2", ">u2", "<i4", ">u4", "<i8", "<u8"])
def test_fast_integer_path_equals_the_slow_one(dtype):
    limits = np.iinfo(dtype)
    edges = [limits.min, limits.max, -1025, -1024, -1023, 0, 3070, 3071, 3072, 32768, 65535]
    values = np.array([v for v in edges if limits.min <= v <= limits.max], dtype=dtype).reshape(-1, 1, 1)
    stored = StoredArray("x", dtype, (1, 1, len(values)), 0)
    slow = to_hu(values.astype(np.float64), replace(stored, dtype="<f8"))
    np.testing.assert_array_equal(to_hu(values, stored), slow)


def test_nan_and_infinity_are_counted_and_refused(tmp_path):
    values = phantom().astype(np.float32)
    values[3, 2, 1], values[4, 2, 1], values[4, 2, 2] = np.nan, np.inf, -np.inf
    volume = open_volume(str(write_itk(tmp_path / "a.mha", values, canonical_geometry().affine)))
    with pytest.raises(InputError) as caught:
        volume.read_boxes([volume.geometry.box])
    assert caught.value.problem.code == "E-HU-002"
    assert "3 of 210" in caught.value.problem.measured
    sound = volume.read_boxes([Box((0, 0, 0), (3, 6, 5))])[0]
    np.testing.assert_array_equal(sound, np.clip(np.rint(values[:3]), -1024, 3071))


def test_labels_must_be_whole_and_not_negative(tmp_path):
    base = np.zeros((7, 6, 5))
    for value, dtype, fine in (
        (3, "f4", True), (3, "i2", True), (255, "u1", True), (-1, "i2", False),
        (0.5, "f4", False), (np.nan, "f8", False), (2**31, "u4", False), (-2.0, "f4", False),
    ):  # fmt: skip
        values = base.copy()
        values[2, 3, 1] = value
        path = write_itk(tmp_path / "a.nrrd", values.astype(dtype), canonical_geometry().affine)
        labels = open_labels(str(path))
        for read in (
            lambda source: source.read_boxes([source.geometry.box])[0],
            lambda s: next(s.regions())[1],
        ):
            if fine:
                assert read(labels).max() == value
                continue
            with pytest.raises(InputError) as caught:
                read(labels)
            assert caught.value.problem.code == "E-MASK-003"

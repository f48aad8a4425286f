"""A readable series: order, world points and HU against pydicom and SimpleITK, and what is not touched."""

import os
import pickle

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)
from scipy.spatial import KDTree

from tests.archive import dicom_files as files
from tests.archive.dicom_files import (
    AXIAL,
    CORONAL,
    OBLIQUE,
    SAGITTAL,
    make_slices,
    positions,
    reference,
    series_of,
    stored_values,
    whole,
    write_all,
)
from tests.archive.volume_files import hu
from toolkit.archive.dicom_series import SeriesRules
from toolkit.archive.geometry import Box
from toolkit.errors import InputError

PLANES = {"axial": AXIAL, "coronal": CORONAL, "sagittal": SAGITTAL, "oblique": OBLIQUE}
TILT = (0.0, 0.6, 2.4)


def assert_same_as(series, points, values, atol=1e-6):
    """Each voxel of the volume must be the reference's voxel at the same point of the patient."""
    shape = series.geometry.shape_zyx
    ours = series.geometry.to_lps(np.indices(shape).reshape(3, -1).T)
    distance, index = KDTree(points).query(ours)
    assert distance.max() < atol
    assert len(set(index)) == len(points) == np.prod(shape)
    np.testing.assert_array_equal(whole(series).ravel(), hu(np.rint(values[index])))


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("tilted", [False, True])
def test_values_and_points_of_pydicom(tmp_path, plane, tilted):
    stored = stored_values()
    step = np.cross(*PLANES[plane]) * 2.4 + np.array(PLANES[plane][1]) * 0.6 if tilted else None
    paths = write_all(
        tmp_path, make_slices(stored, PLANES[plane], positions(6, PLANES[plane], step)), [3, 0, 5, 1, 4, 2]
    )
    series = series_of(tmp_path)
    assert_same_as(series, *reference(paths), atol=1e-5)
    assert np.linalg.det(series.geometry.affine[:3, :3]) != 0
    steps = series.geometry.affine[:3, :3]
    assert (np.diag(steps[::-1]) > 0).all()  # towards head, back and left


@pytest.mark.parametrize("plane", PLANES)
def test_values_and_points_of_simpleitk(tmp_path, plane):
    write_all(tmp_path, make_slices(stored_values(), PLANES[plane]), [3, 0, 5, 1, 4, 2])
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    array = sitk.GetArrayFromImage(image)
    points = [image.TransformIndexToPhysicalPoint((i, j, k)) for k, j, i in np.ndindex(*array.shape)]
    assert_same_as(series_of(tmp_path), np.array(points), array.ravel(), atol=1e-4)


def test_tilt_is_kept_as_a_shear(tmp_path):
    write_all(tmp_path, make_slices(stored_values(), places=positions(6, step=TILT)))
    geometry = series_of(tmp_path).geometry
    np.testing.assert_allclose(geometry.affine[:3, 0], TILT, atol=1e-9)
    np.testing.assert_allclose(geometry.affine[:3, 1:3].T, [[0, 0.75, 0], [0.5, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(geometry.affine[:3, 3], files.ORIGIN)
    assert geometry.voxel_mm3 == pytest.approx(0.75 * 0.5 * 2.4)


@pytest.mark.parametrize("plane", PLANES)
def test_names_and_numbers_mean_nothing(tmp_path, plane):
    rng = np.random.default_rng(4)
    found = []
    for attempt in range(3):
        datasets = make_slices(stored_values(), PLANES[plane])
        for k, d in enumerate(datasets):  # rounded differently from slice to slice
            wobble = np.array(d.ImageOrientationPatient, float) + 1e-5 * np.sin(7 * k + np.arange(6))
            d.ImageOrientationPatient = [f"{v:.12f}" for v in wobble]
            d.PixelSpacing = [0.75 + 1e-6 * k, 0.5]
        folder = tmp_path / str(attempt)
        write_all(folder, datasets, rng.permutation(6))
        found.append(series_of(folder))
    for other in found[1:]:
        np.testing.assert_array_equal(whole(other), whole(found[0]))
        np.testing.assert_array_equal(other.geometry.affine, found[0].geometry.affine)
        assert other.slice_by_sop_uid() == found[0].slice_by_sop_uid()


@pytest.mark.parametrize("bits", [(16, 12, 11), (16, 16, 15), (8, 8, 7), (16, 10, 9), (16, 12, 15)])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_bits_signs_and_encodings(tmp_path, bits, signed, syntax):
    stored = stored_values(bits=bits[1], signed=signed)
    write_all(tmp_path, make_slices(stored, bits=bits, signed=signed, intercept=-50), syntax=syntax)
    np.testing.assert_array_equal(whole(series_of(tmp_path)), hu(stored - 50))


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
@pytest.mark.parametrize("bits", [(16, 12, 11), (16, 16, 15), (8, 8, 7)])
@pytest.mark.parametrize("signed", [False, True])
def test_other_transfer_syntaxes_hold_the_same(tmp_path, syntax, bits, signed):
    stored = stored_values(bits=bits[1], signed=signed)
    datasets = make_slices(stored, bits=bits, signed=signed, padding=5)
    if syntax == RLELossless:
        for d in datasets:
            d.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    write_all(tmp_path, datasets, syntax=None if syntax == RLELossless else syntax)
    series = series_of(tmp_path)
    assert {f.header.transfer_syntax for f in series.files} == {syntax}
    truth = np.where(stored == 5, -1024, hu(stored - 1024))
    np.testing.assert_array_equal(whole(series), truth)
    box = Box((1, 2, 3), (4, 4, 6))
    np.testing.assert_array_equal(series.read_boxes([box])[0], truth[box.slices])


def test_rescale_and_padding_of_each_slice(tmp_path):
    stored = stored_values()
    slopes, intercepts = np.array([1, 0.5, 1.25, 2, 1, 1]), np.array([-1024, 0, -500.5, -2000, 10, 0])
    stored[2, 1, 3] = 77
    datasets = make_slices(stored, slope=slopes, intercept=intercepts)
    datasets[2].add_new("PixelPaddingValue", "US", 77)
    write_all(tmp_path, datasets)
    truth = hu(np.rint(stored * slopes[:, None, None] + intercepts[:, None, None]))
    truth[2][stored[2] == 77] = -1024
    np.testing.assert_array_equal(whole(series_of(tmp_path)), truth)


@pytest.fixture(scope="module")
def sagittal(tmp_path_factory):
    """A series whose canonical axes are all exchanged, and its whole volume."""
    folder = tmp_path_factory.mktemp("sagittal")
    write_all(folder, make_slices(stored_values((8, 7, 6)), SAGITTAL), [3, 0, 5, 1, 4, 2, 7, 6])
    series = series_of(folder)
    return series, whole(series)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_boxes_are_parts_of_the_whole(sagittal, data):
    series, complete = sagittal
    boxes = []
    for _ in range(data.draw(st.integers(1, 4))):
        ends = [sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in complete.shape]
        boxes.append(Box(tuple(e[0] for e in ends), tuple(e[1] for e in ends)))
    for box, array in zip(boxes, series.read_boxes(boxes), strict=True):
        np.testing.assert_array_equal(array, complete[box.slices])
        assert array.dtype == np.int16


def test_a_series_travels_to_a_worker(sagittal):
    series, complete = sagittal
    np.testing.assert_array_equal(whole(pickle.loads(pickle.dumps(series))), complete)


def test_only_the_needed_slices_are_opened(tmp_path):
    stored = stored_values()
    paths = write_all(tmp_path, make_slices(stored))
    series = series_of(tmp_path)
    for path in (*paths[:2], *paths[4:]):
        path.unlink()
    box = Box((2, 0, 1), (4, 5, 6))
    np.testing.assert_array_equal(series.read_boxes([box])[0], hu(stored[box.slices] - 1024))
    with pytest.raises(InputError, match="E-FILE-005"):
        series.read_boxes([Box((1, 0, 0), (3, 1, 1))])


def test_only_the_needed_rows_are_read_once(tmp_path, monkeypatch):
    write_all(tmp_path, make_slices(stored_values((6, 40, 7))))
    series = series_of(tmp_path)
    complete, read = whole(series), []
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, count, at: read.append(count) or real(fd, count, at))
    boxes = [Box((1, 10, 0), (3, 12, 7)), Box((2, 11, 2), (4, 15, 5))]
    for box, array in zip(boxes, series.read_boxes(boxes), strict=True):
        np.testing.assert_array_equal(array, complete[box.slices])
    assert read == [2 * 7 * 2, 5 * 7 * 2, 4 * 7 * 2]


def test_a_changed_file_is_refused(tmp_path):
    paths = write_all(tmp_path, make_slices(stored_values()))
    series = series_of(tmp_path)
    os.utime(paths[3], ns=(1, 1))
    series.read_boxes([Box((0, 0, 0), (3, 5, 7))])
    with pytest.raises(InputError, match="E-FILE-006") as refused:
        whole(series)
    assert refused.value.problem.files == (str(paths[3]),)
    assert refused.value.problem.transient


def test_missing_slices_are_sampled_where_their_neighbours_are(tmp_path):
    paths = write_all(tmp_path, make_slices(stored_values((9, 5, 7))))
    for lost in (paths[3], paths[4], paths[6]):
        lost.unlink()
    kept = [p for p in paths if p.exists()]
    series, notes = files.series_and_notes(tmp_path, SeriesRules(allow_missing=True))
    assert [note.code for note in notes] == ["W-GEO-001"]
    assert series.geometry.slice_positions == pytest.approx((0, 1, 2, 5, 7, 8))
    assert_same_as(series, *reference(kept))


def test_uneven_slices_are_sampled_where_they_are(tmp_path):
    places = positions(6) + np.array([0, 0.2, -0.3, 0.4, 0, 0])[:, None] * (0, 0, 1)
    for name, order in (("up", slice(None)), ("down", slice(None, None, -1))):
        plane = AXIAL if name == "up" else (AXIAL[0], (0, -1, 0))
        paths = write_all(tmp_path / name, make_slices(stored_values(), plane, places[order]))
        series, notes = files.series_and_notes(tmp_path / name, SeriesRules(allow_uneven=True))
        assert [note.code for note in notes] == ["W-GEO-001"]
        assert_same_as(series, *reference(paths))
        assert series.geometry.slice_positions[0] == 0


def test_real_scan_against_simpleitk(lidc_scan):
    folder = next(lidc_scan.rglob("*.dcm")).parent
    series = series_of(folder)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    array = sitk.GetArrayFromImage(image)
    np.testing.assert_array_equal(whole(series), hu(array))
    for index in np.random.default_rng(0).integers(0, array.shape, (20, 3)):
        k, j, i = (int(n) for n in index)
        ours = series.geometry.to_lps(np.array([k, j, i]))
        np.testing.assert_allclose(ours, image.TransformIndexToPhysicalPoint((i, j, k)), atol=0.01)
    assert pydicom.dcmread(series.files[0].path).PixelPaddingValue == 63536
    assert series.rules[0].padding == (-2000, -2000)

"""Label volumes to findings against brute force (scipy.ndimage), on every orientation and format."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tests.archive.volume_files import (
    ORIENTATIONS,
    canonical_geometry,
    native_of,
    phantom,
    small_turn,
    write_itk,
    write_nifti,
)
from toolkit.archive import masks
from toolkit.archive.case import MaskFile
from toolkit.archive.geometry import Box, Geometry
from toolkit.archive.masks import find_nodules
from toolkit.archive.runs import components, draw, encode, join
from toolkit.archive.volume import open_labels, open_volume
from toolkit.errors import InputError

TOUCHING = np.ones((3, 3, 3))


class ArrayLabels:
    """A label source in memory that hands out its regions in small pieces."""

    def __init__(self, array, geometry, piece=2):
        self.array, self.geometry, self.piece = array, geometry, piece

    def read_boxes(self, boxes):
        return [self.array[box.slices] for box in boxes]

    def regions(self):
        depth, height, width = self.array.shape
        for x in reversed(range(0, width, self.piece)):  # runs are cut along x and come in any order
            for z in reversed(range(0, depth, self.piece)):
                box = Box((z, 0, x), (min(z + self.piece, depth), height, min(x + self.piece, width)))
                yield box, np.ascontiguousarray(self.array[box.slices])


def blobs(seed=0, shape=(20, 24, 28), level=0.9, labels=1):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.2)
    mask = noise > np.quantile(noise, level)
    values = np.random.default_rng(seed + 1).integers(1, labels + 1, shape) if labels > 1 else 1
    return (mask * values).astype(np.uint8)


def brute(array, geometry, min_diameter_mm):
    """Return (number, box, mask, volume, centre) of each nodule, by the definition."""
    if len(np.unique(array[array > 0])) > 1:
        groups, count = array, int(array.max())
    else:
        groups, count = ndimage.label(array, TOUCHING)
    found, dropped = [], 0
    for number in range(1, count + 1):
        index = np.argwhere(groups == number)
        if not len(index):
            continue
        weights = geometry.slice_weights()[index[:, 0]]
        volume = weights.sum() * geometry.voxel_mm3
        if groups is not array and (6 * volume / np.pi) ** (1 / 3) < min_diameter_mm:
            dropped += 1
            continue
        center = (geometry.to_lps(index) * weights[:, None]).sum(0) / weights.sum()
        box = Box(tuple(index.min(0).tolist()), tuple((index.max(0) + 1).tolist()))
        found.append((number, box, (groups == number)[box.slices], volume, center))
    return found, dropped


def same(findings, expected):
    assert [f.name for f in findings] == [str(e[0]) for e in expected]
    for finding, (_, box, mask, volume, center) in zip(findings, expected, strict=True):
        assert finding.box == box
        assert finding.mask.dtype == np.uint8
        np.testing.assert_array_equal(finding.mask, mask)
        np.testing.assert_allclose(finding.volume_mm3, volume, rtol=1e-12)
        np.testing.assert_allclose(finding.center_lps_mm, center, atol=1e-9)
        np.testing.assert_allclose(finding.diameter_mm, (6 * volume / np.pi) ** (1 / 3), rtol=1e-12)
        assert finding.mask_source == "volume"


@pytest.mark.parametrize("labels", [1, 5])
@pytest.mark.parametrize("seed", range(6))
def test_findings_equal_brute_force(seed, labels):
    array = blobs(seed, labels=labels)
    geometry = canonical_geometry(array.shape, turn=small_turn())
    for piece in (2, 5, 100):
        findings, notes = find_nodules(
            ArrayLabels(array, geometry, piece), geometry, MaskFile("m", "labels"), 3.0
        )
        expected, dropped = brute(array, geometry, 3.0)
        same(findings, expected)
        assert [note.code for note in notes] == ["W-MASK-001"] * (dropped > 0)
        assert not dropped or notes[0].measured.startswith(f"{dropped} of ")


def test_uneven_slices_count_with_their_thickness():
    array = blobs(3)
    even = canonical_geometry(array.shape)
    positions = tuple(np.cumsum([0.0] + [1.0 + 0.5 * (k % 3) for k in range(len(array) - 1)]).tolist())
    geometry = Geometry(even.shape_zyx, even.affine, positions)
    findings, _ = find_nodules(ArrayLabels(array, geometry), geometry, MaskFile("m", "labels"), 3.0)
    same(findings, brute(array, geometry, 3.0)[0])


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(*[st.integers(1, 6)] * 3),
    st.integers(0, 2**32 - 1),
    st.floats(0.02, 0.98),
    st.integers(1, 4),
    st.integers(1, 3),
)
def test_components_equal_ndimage_on_noise(shape, seed, density, piece, labels):
    rng = np.random.default_rng(seed)
    array = ((rng.random(shape) < density) * rng.integers(1, labels + 1, shape)).astype(np.uint8)
    source = ArrayLabels(array, canonical_geometry(shape), piece)
    runs = join([encode(box, part, shape) for box, part in source.regions()], shape)
    assert len(runs) == len(join([encode(Box((0, 0, 0), shape), array, shape)], shape))
    assert int(runs.lengths.sum()) == np.count_nonzero(array)
    if labels > 1 or not len(runs):
        return
    whole = np.zeros(shape, np.int64)
    number = components(runs)
    for component in range(number.max() + 1):
        box, mask = draw(runs.take(number == component))
        whole[box.slices][mask > 0] = component + 1
    np.testing.assert_array_equal(whole, ndimage.label(array, TOUCHING)[0])


@pytest.mark.parametrize("name", ["a.mha", "z.mha", "a.nrrd", "z.nrrd", "a.nii", "a.nii.gz"])
def test_every_orientation_gives_the_same_findings(tmp_path, name):
    array = blobs(1)
    geometry = canonical_geometry(array.shape)
    expected, _ = brute(array, geometry, 3.0)
    assert len(expected) > 3
    for order, signs in ORIENTATIONS:
        path = write_itk(tmp_path / name, *native_of(array, geometry, order, signs))
        findings, _ = find_nodules(open_labels(str(path)), geometry, MaskFile(str(path), "labels"), 3.0)
        same(findings, expected)


def test_names_and_labels_of_a_manifest():
    array = blobs(2, labels=3)
    geometry = canonical_geometry(array.shape)
    mask = MaskFile("m", "labels", names={2: "left", 0: "n"}, labels={1: 1.0, 0: 0.25})
    findings, _ = find_nodules(ArrayLabels(array, geometry), geometry, mask, 3.0)
    assert [(f.name, f.label) for f in findings] == [("n-1", 1.0), ("left", 0.25), ("n-3", 0.25)]
    one = np.zeros_like(array)
    one[4:9, 4:9, 4:9] = 7
    findings, _ = find_nodules(ArrayLabels(one, geometry), geometry, mask, 3.0)
    assert [(f.name, f.label) for f in findings] == [("n", 1.0)]
    findings, _ = find_nodules(ArrayLabels(one, geometry), geometry, MaskFile("m", "labels"), 3.0)
    assert [(f.name, f.label) for f in findings] == [("1", None)]


def test_the_minimum_diameter_never_moves_a_name():
    array = np.zeros((20, 20, 20), np.uint8)
    array[1, 1, 1] = array[5:12, 5:12, 5:12] = 1
    geometry = canonical_geometry(array.shape)
    names = MaskFile("m", "labels", names={2: "the nodule"})
    for diameter, expected in ((3.0, ["the nodule"]), (0.0, ["1", "the nodule"])):
        findings, _ = find_nodules(ArrayLabels(array, geometry), geometry, names, diameter)
        assert [f.name for f in findings] == expected


def test_an_empty_mask_has_no_findings(tmp_path):
    geometry = canonical_geometry()
    path = write_itk(tmp_path / "z.nrrd", np.zeros(geometry.shape_zyx, np.uint8), geometry.affine)
    assert find_nodules(open_labels(str(path)), geometry, MaskFile(str(path), "labels"), 3.0) == ([], [])


def test_a_mask_of_specks_has_no_findings_and_says_so():
    geometry = canonical_geometry()
    array = np.zeros(geometry.shape_zyx, np.uint8)
    array[1, 1, 1] = array[4, 4, 4] = 1
    findings, notes = find_nodules(ArrayLabels(array, geometry), geometry, MaskFile("m", "labels"), 3.0)
    assert findings == []
    assert notes[0].measured == "2 of 2 components below 3 mm"


def refused(labels, geometry):
    with pytest.raises(InputError) as caught:
        find_nodules(labels, geometry, MaskFile("secret-name", "labels"), 3.0)
    assert "secret-name" not in caught.value.problem.public
    return caught.value.problem


def test_a_mask_on_another_grid_is_refused():
    array = blobs()
    image = canonical_geometry(array.shape, turn=small_turn())
    for shift, fine in (((1.0, 0, 0), True), ((1.5, 0, 0), False), ((0, 0, 0.3), False)):
        moved = image.affine.copy()
        moved[:3, 3] += image.affine[:3, :3] @ (np.array(shift) / np.array([2.5, 0.75, 0.5]))
        labels = ArrayLabels(array, Geometry(image.shape_zyx, moved))
        if fine:
            find_nodules(labels, image, MaskFile("m", "labels"), 3.0)
            continue
        problem = refused(labels, image)
        assert problem.code == "E-MASK-001"
        voxels, mm = max(np.array(shift) / (2.5, 0.75, 0.5)), max(shift)
        assert f"{voxels:.2f} voxels ({mm:.2f} mm)" in problem.measured
    other = canonical_geometry((24, 20, 28))
    assert "only after exchanging axes" in refused(ArrayLabels(array, other), image).measured
    assert refused(ArrayLabels(array, canonical_geometry((20, 24, 27))), image).code == "E-MASK-001"
    flipped = image.affine.copy()
    flipped[:, 2] *= -1
    assert refused(ArrayLabels(array, Geometry(image.shape_zyx, flipped)), image).code == "E-MASK-001"


def test_images_and_noise_are_no_masks(monkeypatch):
    geometry = canonical_geometry((12, 12, 12))
    image = np.arange(12**3, dtype=np.int16).reshape(12, 12, 12)
    assert refused(ArrayLabels(image, geometry), geometry).code == "E-MASK-003"
    monkeypatch.setattr(masks, "MAX_RUNS", 100)
    noise = (np.random.default_rng(0).random((12, 12, 12)) < 0.5).astype(np.uint8)
    assert refused(ArrayLabels(noise, geometry), geometry).code == "E-MASK-003"


def test_float_masks_and_slopes(tmp_path):
    array = blobs(4)
    geometry = canonical_geometry(array.shape)
    expected, _ = brute(array, geometry, 3.0)
    for path in (
        write_itk(tmp_path / "f.nrrd", array.astype(np.float32), geometry.affine),
        write_nifti(tmp_path / "s.nii.gz", array * 100, geometry.affine, scl_slope=0.5, scl_inter=0),
    ):
        labels = pickle.loads(pickle.dumps(open_labels(str(path))))
        same(find_nodules(labels, geometry, MaskFile("m", "labels"), 3.0)[0], expected)


def test_an_image_volume_given_as_mask_is_refused(tmp_path):
    geometry = canonical_geometry()
    path = write_itk(tmp_path / "a.mha", phantom(), geometry.affine)
    assert open_volume(str(path)).geometry.shape_zyx == geometry.shape_zyx
    assert refused(open_labels(str(path)), geometry).code == "E-MASK-003"

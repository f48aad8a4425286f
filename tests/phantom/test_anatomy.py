import itertools
import math

import numpy as np
import pytest
from scipy import ndimage

from toolkit.phantom.anatomy import PhantomPatient, make_patient, reconstruction_circle
from toolkit.phantom.nodule import NoduleParams
from toolkit.phantom.surface import depth_mm, make_surface, occupancy
from toolkit.phantom.write_nifti import label_volume

CUBE = np.ones((3, 3, 3))


def test_a_patient_is_a_function_of_seed_and_index(patients: list[PhantomPatient]) -> None:
    again = make_patient(5, 3)
    np.testing.assert_array_equal(again.hu, patients[3].hu)
    assert [n.params for n in again.nodules] == [n.params for n in patients[3].nodules]
    assert not np.array_equal(make_patient(6, 3).hu[:5, :50, :50], again.hu[:5, :50, :50])


def test_scans_look_like_compact_chest_ct(patients: list[PhantomPatient]) -> None:
    assert {len(p.nodules) for p in patients} <= {1, 2, 3, 4}
    assert len({p.padded for p in patients}) == 2
    for p in patients:
        z, y, x = p.geometry.spacing_mm
        assert 0.6 <= z <= 3
        assert 0.6 <= y == x <= 0.9
        assert p.hu.shape == p.geometry.shape_zyx
        assert p.hu.dtype == np.int16
        assert p.hu.min() >= -1024
        assert p.hu.max() <= 3071
        lung = p.hu[(p.hu > -1000) & (p.hu < -700)]
        assert lung.size > 0.2 * p.hu.size
        assert -900 < np.median(lung) < -800


def test_masks_lie_inside_apart_and_in_one_piece(patients: list[PhantomPatient]) -> None:
    for p in patients:
        labels = label_volume(p)
        for k, n in enumerate(p.nodules, start=1):
            mask = labels == k
            assert ndimage.label(mask, CUBE)[1] == 1
            assert np.array_equal(mask[n.box.slices], n.mask.astype(bool))
            assert mask.sum() == n.mask.sum()
            assert set(np.unique(labels[ndimage.binary_dilation(mask, CUBE)])) == {0, k}
            assert min(n.box.start_zyx) >= 2
            assert all(b <= s - 2 for b, s in zip(n.box.stop_zyx, p.hu.shape, strict=True))
            if p.padded:
                assert reconstruction_circle(p.hu.shape[1:])[n.box.slices[1:]].all()


def test_measures_follow_from_the_mask(patients: list[PhantomPatient]) -> None:
    for p in patients:
        for n in p.nodules:
            where = np.argwhere(n.mask) + n.box.start_zyx
            np.testing.assert_allclose(p.geometry.to_lps(where.mean(0)), n.center_lps_mm, atol=1e-6)
            assert n.volume_mm3 == pytest.approx(len(where) * p.geometry.voxel_mm3)
            assert n.volume_mm3 == pytest.approx(math.pi / 6 * n.diameter_mm**3)
            assert 3 <= n.diameter_mm <= 31


def test_volumes_agree_with_the_surface(patients: list[PhantomPatient]) -> None:
    ratios = [n.volume_mm3 / (math.pi / 6 * n.params.diameter_mm**3) for p in patients for n in p.nodules]
    assert np.median(ratios) == pytest.approx(1, abs=0.03)
    assert min(ratios) > 0.75  # a nodule against the pleura loses what lies in the wall
    assert max(ratios) < 1.3


def test_nodules_have_the_hu_of_their_texture(patients: list[PhantomPatient]) -> None:
    seen = set()
    for p, n in ((q, nodule) for q in patients for nodule in q.nodules):
        depth = ndimage.distance_transform_edt(np.pad(n.mask, 1), p.geometry.spacing_mm)[1:-1, 1:-1, 1:-1]
        core = p.hu[n.box.slices][depth > 2.0]
        if len(core) < 20:
            continue
        seen.add(n.params.texture)
        if n.params.texture == "solid":
            assert -120 < np.median(core) < 100
        elif n.params.texture == "ground-glass":
            assert -750 < np.median(core) < -350
    assert len(seen) >= 2


SHAPES = [
    NoduleParams(d, lobulation, spiculation, 0.0, "solid", 1.0, 20.0, -600.0, "free", seed)
    for seed, (d, lobulation, spiculation) in enumerate(
        itertools.product((6.0, 15.0), (0.0, 1.0), (0.0, 1.0))
    )
]


@pytest.mark.parametrize("params", SHAPES)
def test_surface_encloses_the_volume_of_its_diameter(params: NoduleParams) -> None:
    surface = make_surface(params)
    truth = math.pi / 6 * params.diameter_mm**3
    axis = np.arange(-60, 61, dtype=np.float32) * np.float32(surface.largest_mm / 55)
    step = float(axis[1] - axis[0])
    inside = depth_mm(surface, (axis, axis, axis)) > 0
    assert inside.sum() * step**3 == pytest.approx(truth, rel=0.01)
    # A thick slice holds the same tissue.
    z = np.arange(-20, 21, dtype=np.float32) * 1.5
    share = occupancy(surface, 0.5, (z, axis, axis), (1.5, step, step))
    assert share.sum() * step**2 * 1.5 == pytest.approx(truth, rel=0.05)


def test_margin_is_visible_in_the_surface() -> None:
    def roughness(lobulation: float, spiculation: float) -> float:
        shapes = [
            NoduleParams(12.0, lobulation, spiculation, 0.0, "solid", 1.0, 20.0, -600.0, "free", seed)
            for seed in range(8)
        ]
        return float(np.mean([np.log(make_surface(p).radius_mm).std() for p in shapes]))

    assert roughness(0, 0.1) < roughness(0, 0.5) < roughness(0, 1)
    assert roughness(0, 0) < roughness(0.5, 0) < roughness(1, 0)

"""Rows: a function of (seed, epoch, draw number), within what the settings say, or the identity."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from toolkit.errors import UsageError
from toolkit.loading.augment import PRESETS, AugmentConfig, Probability, margin_voxels, preset
from toolkit.loading.draw import CropGeometry, draw
from toolkit.preprocess.plan import default_margin

GEOMETRY = CropGeometry(side=40, size=24, spacing_mm=0.8)
COLUMNS = ("matrix", "low_hu", "width_hu", "gamma", "gain", "bias", "noise_sigma", "noise_key", "elastic")


def rows(config, count=2000, seed=7, epoch=3, numbers=None, geometry=GEOMETRY):
    numbers = np.arange(count) if numbers is None else np.asarray(numbers)
    return draw(config, geometry, np.zeros(len(numbers), np.int64), seed, epoch, numbers)


@pytest.mark.parametrize("name", PRESETS)
def test_a_row_depends_on_its_number_alone(name):
    numbers = [5, 2**40 + 1, 0, 17, 5]
    together = rows(PRESETS[name], numbers=numbers)
    for k, number in enumerate(numbers):
        alone = rows(PRESETS[name], numbers=[number])
        for column in COLUMNS:
            whole, one = getattr(together, column), getattr(alone, column)
            assert (whole is None) == (one is None)
            if whole is not None:
                np.testing.assert_array_equal(whole[k], one[0])


def test_other_seeds_epochs_and_numbers_give_other_rows():
    one = rows(preset("strong"), 1)
    others = [
        rows(preset("strong"), 1, seed=8),
        rows(preset("strong"), 1, seed=7 + 2**32),
        rows(preset("strong"), 1, epoch=4),
        rows(preset("strong"), numbers=[1]),
        rows(preset("strong"), numbers=[2**32]),
    ]
    keys = {int(each.noise_key[0]) for each in (one, *others)}
    angles = {float(each.matrix[0, 0, 0]) for each in (one, *others)}
    assert len(keys) == len(angles) == 6


def test_none_is_a_copy_of_the_middle():
    for size in (24, 23):
        table = rows(preset("none"), 50, geometry=CropGeometry(40, size, 0.8))
        whole = np.column_stack([np.eye(3), np.full(3, (40 - size) // 2)])
        np.testing.assert_array_equal(table.matrix, np.tile(whole, (50, 1, 1)))
        assert np.all(table.gamma == 1)
        assert np.all(table.gain == 1)
        assert not table.bias.any()
        assert not table.noise_sigma.any()
        assert table.elastic is None
        assert np.all(table.low_hu == -1000)
        assert np.all(table.width_hu == 1400)
    assert not rows(AugmentConfig(window_hu=None), 5).width_hu.any()


def test_switching_one_operation_leaves_the_others():
    without = replace(preset("strong"), rotation_degrees=0.0, elastic_amplitude_mm=0.0)
    for column in ("low_hu", "gamma", "gain", "bias", "noise_sigma", "noise_key"):
        np.testing.assert_array_equal(getattr(rows(without), column), getattr(rows(preset("strong")), column))


def test_rotations_are_rotations_about_any_axis_up_to_the_angle():
    linear = rows(AugmentConfig(rotation_degrees=30)).matrix[:, :, :3].astype(float)
    np.testing.assert_allclose(
        linear @ linear.transpose(0, 2, 1), np.tile(np.eye(3), (2000, 1, 1)), atol=1e-6
    )
    assert np.all(np.linalg.det(linear) > 0)
    angle = np.rad2deg(np.arccos(np.clip((np.trace(linear, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    assert angle.max() <= 30.001
    assert stats.kstest(angle / 30, "uniform").pvalue > 1e-4
    axis = np.stack([linear[:, 2, 1] - linear[:, 1, 2], linear[:, 0, 2] - linear[:, 2, 0],
                     linear[:, 1, 0] - linear[:, 0, 1]], axis=1)  # fmt: skip
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    for k in range(3):  # a coordinate of a point on the sphere is uniform (Archimedes)
        assert stats.kstest((axis[:, k] + 1) / 2, "uniform").pvalue > 1e-4


def test_scales_shears_flips_and_shifts_are_as_asked():
    scaled = rows(AugmentConfig(scale=(0.8, 1.25))).matrix[:, [0, 1, 2], [0, 1, 2]]
    np.testing.assert_array_equal(scaled[:, 0], scaled[:, 1])
    assert stats.kstest(np.log(scaled[:, 0] * 1.25) / np.log(1.25 / 0.8), "uniform").pvalue > 1e-4
    each = rows(AugmentConfig(anisotropic_scale=1.2)).matrix[:, [0, 1, 2], [0, 1, 2]]
    assert np.all((each >= 1 / 1.2 - 1e-6) & (each <= 1.2 + 1e-6))
    assert abs(np.corrcoef(each[:, 0], each[:, 1])[0, 1]) < 0.1
    sheared = rows(AugmentConfig(shear=0.2)).matrix[:, :, :3] - np.eye(3)
    assert 0.19 < np.abs(sheared).max() <= 0.2
    assert not sheared[:, [0, 1, 2], [0, 1, 2]].any()
    flipped = rows(AugmentConfig(flip_probability=(0.0, 0.5, 1.0))).matrix[:, [0, 1, 2], [0, 1, 2]]
    assert np.all(flipped[:, 0] == 1)
    assert abs(np.mean(flipped[:, 1])) < 0.1
    assert np.all(flipped[:, 2] == -1)
    shifted = rows(AugmentConfig(shift_mm=2.0)).matrix[:, :, 3] - 8
    assert 2.4 < np.abs(shifted).max() <= 2.5
    assert stats.kstest((shifted.ravel() + 2.5) / 5, "uniform").pvalue > 1e-4


def test_the_middle_of_the_patch_stays_in_the_middle_of_the_crop():
    table = rows(replace(preset("strong"), shift_mm=0.0))
    middle = table.matrix[:, :, :3] @ np.full(3, 11.5, np.float32) + table.matrix[:, :, 3]
    np.testing.assert_allclose(middle, 19.5, atol=1e-4)


def test_intensities_are_within_their_ranges_and_as_often_as_asked():
    config = AugmentConfig(
        window_jitter_hu=50, gamma=(0.5, 2), gain=(0.9, 1.2), bias=(-0.1, 0.3), noise_sigma=(0.1, 0.2),
        probability=Probability(gamma=0.3, noise=0.6),
    )  # fmt: skip
    table = rows(config)
    low, high = table.low_hu, table.low_hu + table.width_hu
    assert np.all((np.abs(low + 1000) <= 50) & (np.abs(high - 400) <= 50.001))
    assert abs(np.corrcoef(low, high)[0, 1]) < 0.1
    assert abs(np.mean(table.gamma != 1) - 0.3) < 0.05
    changed = np.log2(table.gamma[table.gamma != 1])
    assert stats.kstest((changed + 1) / 2, "uniform").pvalue > 1e-4
    assert abs(np.mean(table.noise_sigma > 0) - 0.6) < 0.05
    assert np.all((table.gain >= 0.9) & (table.gain <= 1.2))
    assert np.all((table.bias >= -0.1) & (table.bias <= 0.3))
    assert len(np.unique(table.noise_key)) == 2000


def test_elastic_grids_are_spaced_and_bounded_in_millimetres():
    config = AugmentConfig(
        elastic_spacing_mm=6, elastic_amplitude_mm=1.6, probability=Probability(elastic=0.5)
    )
    table = rows(config, 200)
    assert table.elastic.shape == (200, 3, 6, 6, 6)  # 23 steps of 0.8 mm are three spacings of 6 mm
    bent = table.elastic.any(axis=(1, 2, 3, 4))
    assert 60 < bent.sum() < 140
    assert stats.kstest(table.elastic[bent].ravel() / 4 + 0.5, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("name", ["none", "light", "default"])
def test_stored_margins_hold_every_draw_of_the_modest_presets(name):
    """By drawing: no corner of a patch leaves a crop with the margin that preprocessing adds by default."""
    size, spacing = 64, 0.7
    margin = default_margin(size, spacing)
    assert margin_voxels(PRESETS[name], size, spacing) <= margin
    table = rows(PRESETS[name], 5000, geometry=CropGeometry(size + 2 * margin, size, spacing))
    corners = np.array(list(np.ndindex(2, 2, 2))) * (size - 1)
    at = np.einsum("bij,cj->bci", table.matrix[:, :, :3], corners) + table.matrix[:, None, :, 3]
    assert at.min() >= 0
    assert at.max() <= size + 2 * margin - 1


def test_a_patch_larger_than_the_crop_is_refused():
    with pytest.raises(UsageError, match=r"E-AUG-003 size .*41 voxels, 1 to 40"):
        CropGeometry(40, 41, 0.8)


def test_an_edge_wider_than_the_kernels_reach_is_refused():
    with pytest.raises(UsageError, match="E-AUG-001 setting edge_mm"):
        rows(AugmentConfig(mask_mode="soft", edge_mm=12.1), 1)

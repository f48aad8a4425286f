"""Measured features against crops whose answers are known."""

import math
from pathlib import Path

import numpy as np
import pytest

from toolkit.errors import UsageError
from toolkit.models.measured import FEATURES, Scaling, measure, measure_crop
from toolkit.store import Nodule, Store

SPACING = 0.8
SIDE = 41


def nodule(diameter: float | None, volume: float | None, source: str = "reader", number: int = 0) -> Nodule:
    return Nodule(f"n{number}", f"c{number}", f"p{number}", 1.0, diameter, volume, (0, 0, 0), 0.1, source)


def ball(side: int, radius_mm: float) -> np.ndarray:
    """Share of each voxel within a sphere at the centre, 0-255, by 6^3 points a voxel."""
    fine = (np.arange(side * 6) + 0.5) / 6 - side / 2
    squared = fine**2
    inside = (squared[:, None, None] + squared[:, None] + squared) * SPACING**2 <= radius_mm**2
    share = inside.reshape(side, 6, side, 6, side, 6).mean((1, 3, 5))
    return np.round(share * 255).astype(np.uint8)


def test_features_of_a_part_solid_nodule() -> None:
    """Ground glass of -600 HU, diameter 20 mm, around a core of 40 HU, diameter 10 mm: an eighth is solid."""
    mask = ball(SIDE, 10.0)
    image = np.full(mask.shape, -900, np.int16)
    image[mask > 0] = -600
    image[ball(SIDE, 5.0) > 127] = 40
    volume = math.pi / 6 * 20**3
    found = dict(
        zip(FEATURES, measure_crop(nodule(20.0, volume), image, mask, SPACING, FEATURES), strict=True)
    )
    assert found["diameter"] == math.log(20)
    assert found["volume"] == math.log(volume)
    assert found["solid_share"] == pytest.approx(
        1 / 8, rel=0.02
    )  # 1,023 voxels, give or take some at the edge
    assert found["mean_hu"] == pytest.approx(-600 + 640 / 8, abs=640 / 8 * 0.02)


def test_voxels_count_by_how_much_of_them_is_nodule() -> None:
    image = np.zeros((5, 5, 5), np.int16)
    mask = np.zeros((5, 5, 5), np.uint8)
    image[0, 0, :4] = [-300, -301, 100, 3000]
    mask[0, 0, :4] = [255, 51, 204, 0]
    hu, solid = measure_crop(nodule(3.0, 9.0), image, mask, 1.0, ("mean_hu", "solid_share"))
    assert hu == pytest.approx((-300 * 255 - 301 * 51 + 100 * 204) / 510, rel=1e-15)
    assert solid == pytest.approx((255 + 204) / 510, rel=1e-15)  # -300 HU itself is solid


@pytest.mark.parametrize("side", [41, 42, 9])
def test_without_a_mask_the_stated_sphere_is_taken(side: int) -> None:
    """On a ramp around the centre the mean is the centre's; on a radial profile it is the ball's own mean."""
    axis = np.arange(side) - (side - 1) / 2
    ramp = np.broadcast_to((20 * axis)[:, None, None] + 7 * axis, (side,) * 3).round().astype(np.int16)
    nothing = np.zeros(ramp.shape, np.uint8)
    found = measure_crop(nodule(12.0, None, "none"), ramp, nothing, SPACING, FEATURES)
    assert found[0] == math.log(12)
    assert found[1] == math.log(math.pi / 6 * 12**3)
    assert abs(found[2]) < 0.5
    if side > 9:
        distance = np.sqrt(sum(np.meshgrid(axis**2, axis**2, axis**2))) * SPACING
        radial = (-20 * distance).round().astype(np.int16)
        assert measure_crop(nodule(12.0, None, "none"), radial, nothing, SPACING, ("mean_hu",))[0] == (
            pytest.approx(
                -20 * 0.75 * 6, rel=0.03
            )  # the mean distance in a ball is three quarters of its radius
        )


@pytest.mark.parametrize(
    "bare", [nodule(None, None, "none"), nodule(0.0, 0.0, "none"), nodule(math.nan, math.nan, "reader")]
)
def test_what_cannot_be_measured_is_nan(bare: Nodule) -> None:
    image = np.zeros((9, 9, 9), np.int16)
    assert np.isnan(measure_crop(bare, image, np.zeros((9, 9, 9), np.uint8), SPACING, FEATURES)).all()


def test_features_of_a_store(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(-1000, 400, (6, 20, 20, 20)).astype(np.int16)
    masks = np.where(rng.random(images.shape) < 0.1, rng.integers(1, 256, images.shape), 0).astype(np.uint8)
    records = [nodule(4.0 + i, 30.0 + i, number=i) for i in range(6)]
    store = Store.create(tmp_path / "s", records, images, masks, SPACING, margin=4)
    index = np.array([4, 0, 4, 5])
    told = []
    found = measure(store, index, ("mean_hu", "diameter"), told.append)
    assert told == [1, 1, 1, 1]
    expected = [np.average(images[i], weights=masks[i]) for i in index]
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-12)
    np.testing.assert_array_equal(found[:, 1], np.log(4.0 + index))
    assert measure(store, index, ()).shape == (4, 0)


def test_unknown_names_are_refused() -> None:
    crop = np.zeros((4, 4, 4), np.int16), np.zeros((4, 4, 4), np.uint8)
    for names, told in ((("mean_hu", "texture"), "'texture'"), (("volume", "volume"), "comes twice")):
        with pytest.raises(UsageError, match=rf"E-MODEL-004.*{told}.*solid_share"):
            measure_crop(nodule(3.0, 9.0), *crop, 1.0, names)


def test_scaling_is_that_of_the_known_values() -> None:
    values = np.random.default_rng(1).normal((2, -600, 1), (0.5, 200, 0), (1000, 3))
    values[::7, 1] = np.nan
    scaling = Scaling.fit(("diameter", "mean_hu", "solid_share"), values)
    scaled = scaling.apply(values)
    assert (scaled.dtype, scaled.shape) == (np.float32, values.shape)
    known = ~np.isnan(values[:, 1])
    np.testing.assert_allclose(scaled[known].mean(0), 0, atol=0.1)
    np.testing.assert_allclose(scaled[:, 0].std(), 1, rtol=1e-5)
    np.testing.assert_allclose(scaled[known, 1].std(), 1, rtol=1e-5)
    assert (scaled[~known, 1] == 0).all()  # unknown: at the centre
    assert (scaled[:, 2] == 0).all()  # the same everywhere: no scale of its own
    assert Scaling.of(scaling.names, dict(reversed(scaling.stored.items()))) == scaling
    nowhere = Scaling.fit(("volume",), np.full((4, 1), np.nan))
    assert nowhere == Scaling(("volume",), (0.0,), (1.0,))

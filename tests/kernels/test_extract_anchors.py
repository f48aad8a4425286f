"""Extraction agrees with libraries that share no author with it: SciPy and SimpleITK."""

import numpy as np
import pytest
from scipy import ndimage

from kernels import Brick, extract, pack
from tests import tolerances
from tests.kernels.batches import brick

FINER = {
    "aligned": {"ratio": (0.5, 0.8, 0.31)},
    "rotated": {"ratio": (1, 1, 1), "degrees": (25, -60, 110)},
    "oblique": {"ratio": (0.9, 0.6, 0.4), "degrees": (5, 15, -20)},
    "flipped": {"ratio": (0.7, 1, 0.7), "flip": (-1, 1, -1)},
    "tilted": {"ratio": (0.8, 0.8, 0.8), "tilt": 0.4},
    "border": {"ratio": (0.9, 0.9, 0.9), "shift": (3.17, -4.71, 5.13)},
}
SIZE = 11


def _assert_inside_equal(packed, expected, outside):
    error = tolerances.extraction(packed, 0, SIZE)[0]
    ok = ~tolerances.undecided(packed, 0, SIZE) & ~outside.ravel()
    image = extract(packed, SIZE)[0][0].ravel()
    assert ok.sum() > 50
    assert np.all(np.abs(image - expected.ravel())[ok] <= 0.5 + error[ok])
    assert np.all(image[outside.ravel() & ~tolerances.undecided(packed, 0, SIZE)] == -1024)


def _positions(packed):
    target = np.stack(np.meshgrid(*[np.arange(SIZE)] * 3, indexing="ij"))
    matrix = packed.matrix[0].astype(np.float64)
    return np.tensordot(matrix[:, :3], target, 1) + matrix[:, 3, None, None, None]


@pytest.mark.parametrize("name", FINER)
def test_scipy_map_coordinates(name):
    source = brick((9, 11, 10), SIZE, **FINER[name])
    packed = pack([source], SIZE)
    p = _positions(packed)
    last = np.array(source.hu.shape)[:, None, None, None] - 1
    outside = np.any((p < -0.5) | (p > last + 0.5), axis=0)
    expected = ndimage.map_coordinates(source.hu.astype(float), p, order=1, mode="nearest")
    _assert_inside_equal(packed, expected, outside)


@pytest.mark.parametrize("name", FINER)
def test_simpleitk_linear_resampling(name):
    sitk = pytest.importorskip("SimpleITK")
    source = brick((9, 11, 10), SIZE, **FINER[name])
    packed = pack([source], SIZE)
    matrix = packed.matrix[0].astype(np.float64)
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix[::-1, 2::-1].ravel().tolist())
    transform.SetTranslation(matrix[::-1, 3].tolist())
    resampled = sitk.Resample(
        sitk.GetImageFromArray(source.hu.astype(np.float64)),
        [SIZE] * 3,
        transform,
        sitk.sitkLinear,
        (0.0, 0.0, 0.0),
        (1.0, 1.0, 1.0),
        np.eye(3).ravel().tolist(),
        -5000.0,
        sitk.sitkFloat64,
    )
    expected = sitk.GetArrayFromImage(resampled)
    _assert_inside_equal(packed, expected, expected == -5000)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_coarser_by_an_integer_is_a_convolution_with_a_tent(factor):
    """Smooth with the tent's taps, divide by what of it lay inside, keep every n-th voxel."""
    hu = np.random.default_rng(factor).integers(-1024, 3072, (12, 13, 14), np.int16)
    taps = 1 - np.abs(np.arange(-factor, factor + 1)) / factor
    expected = hu.astype(float)
    for axis in range(3):
        part = ndimage.convolve1d(expected, taps, axis=axis, mode="constant")
        expected = part / ndimage.convolve1d(np.ones(hu.shape), taps, axis=axis, mode="constant")
    size = 12 // factor
    packed = pack([Brick(hu, None, factor * np.eye(3, 4))], size)
    step = slice(0, size * factor, factor)
    error = tolerances.extraction(packed, 0, size)[0].reshape(size, size, size)
    assert np.all(np.abs(extract(packed, size)[0][0] - expected[step, step, step]) <= 0.5 + error)


def test_uneven_slices_are_linear_interpolation_over_their_positions():
    slices = np.array([0, 0.7, 2, 3.1, 4.6, 5])
    hu = np.random.default_rng(0).integers(-1024, 3072, 6, np.int16)
    matrix = np.eye(3, 4)
    matrix[0] = 0.4, 0, 0, 0.05
    packed = pack([Brick(hu.reshape(6, 1, 1), None, matrix, slices)], 13)
    z = packed.matrix[0, 0, 0].astype(float) * np.arange(13) + packed.matrix[0, 0, 3].astype(float)
    error = tolerances.extraction(packed, 0, 13)[0].reshape(13, 13, 13)[:, 0, 0]
    expected = np.interp(z, packed.positions.astype(float), hu)  # holds the last value beyond the end
    fine = packed.norm[0, 0] <= np.interp(z, slices[:-1], np.diff(slices))
    image = extract(packed, 13)[0][0, :, 0, 0]
    assert np.count_nonzero(fine) > 8
    assert np.all(np.abs(image - expected)[fine] <= 0.5 + error[fine])

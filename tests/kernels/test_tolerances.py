"""The two constants of `tests.tolerances` that come from a scan instead of algebra."""

import numpy as np
import pytest

from kernels.bricks import MAX_HALF_WIDTH
from tests import tolerances

WIDTHS = np.concatenate([[1.0], np.linspace(1.001, 4, 100), np.linspace(4, MAX_HALF_WIDTH, 34)])


def _raw_weights(count, width, step):
    position = np.arange(-0.5, count - 0.5 + step / 2, step)
    distance = np.abs(np.arange(count) - position[:, None])
    return distance, np.maximum(0, 1 - distance / width)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 33])
def test_taps_per_weight(count):
    for width in WIDTHS:
        distance, tent = _raw_weights(count, width, 1 / 64)
        assert np.max(np.sum(distance <= width, axis=1) / tent.sum(axis=1)) <= tolerances.TAPS_PER_WEIGHT


@pytest.mark.parametrize("count", [1, 2, 3, 7, 33])
def test_steepest_change_of_normalised_weights(count):
    step = 1 / 256
    for width in WIDTHS:
        _, tent = _raw_weights(count, width, step)
        change = np.abs(np.diff(tent / tent.sum(axis=1, keepdims=True), axis=0)).sum(axis=1) / step
        assert change.max() <= tolerances.STEEPEST_L1 + 1e-9

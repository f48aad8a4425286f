"""Intervals that know that nodules of one patient belong together: patients are drawn, not nodules."""

import numpy as np
from numpy.typing import NDArray

from toolkit.evaluation.results import Interval

Floats = NDArray[np.float64]
LOW, HIGH = 0.025, 0.975
UNDEFINED_AT_MOST = 0.05


def patient_weights(patient: NDArray[np.generic], draws: int, seed: int) -> NDArray[np.int32]:
    """Return how often each nodule was drawn, int32 (draws, n).

    Each draw takes as many patients as there are, with replacement; a nodule counts as often as its patient.
    `patient` (n,) are names or numbers; the draws depend on their order among themselves, not on that of the
    lines. The seed decides all.
    """
    raise NotImplementedError


def interval(value: float, drawn: Floats) -> Interval:
    """Return an estimate with the 2.5 % and 97.5 % percentiles of its draws, (draws,).

    Draws in which it is not defined (NaN; no positive was drawn) are left out; where they are more than 5 %,
    or the estimate itself is NaN, the ends are NaN.
    """
    raise NotImplementedError

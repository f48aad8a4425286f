"""How well probabilities agree with what is observed: calibration, and what it is worth."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.evaluation.results import Interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """Nodules of neighbouring probabilities; `observed` is their share of positives (Wilson interval)."""

    low: float
    high: float
    mean_probability: float
    observed: Interval
    nodules: int


@dataclass(frozen=True)
class Quality:
    """Calibration of given probabilities.

    Attributes
    ----------
    intercept
        Calibration in the large: what must be added to every logit for the mean to be right; 0 is perfect,
        below 0 the probabilities are too high.
    slope
        Of the observed log-odds over the given ones; 1 is perfect, below 1 the probabilities are too extreme.
    brier, brier_skill
        Mean squared error, and 1 - that over the error of always saying the observed share; above 0 helps.
    ece
        Expected calibration error: `estimator` says which.
    ece_by_chance
        (mean, 2.5 %, 97.5 %) of what perfectly calibrated probabilities of these values would show on as many
        nodules: an `ece` within it is no evidence of miscalibration.
    bins
        Of equal mass, for the reliability plot.
    """

    intercept: Interval
    slope: Interval
    brier: Interval
    brier_skill: Interval
    ece: float
    ece_by_chance: Interval
    estimator: str
    bins: tuple[Bin, ...]


def quality(logit: Floats, label: Floats, patient: NDArray[np.generic], draws: int, seed: int) -> Quality:
    """Return the calibration of sigmoid(`logit`), (n,), against classes 0 and 1, NaN left out."""
    raise NotImplementedError

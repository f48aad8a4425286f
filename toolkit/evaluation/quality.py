"""How well probabilities agree with what is observed: calibration, and what it is worth."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from toolkit.evaluation.bootstrap import HIGH, LOW, intervals, resample
from toolkit.evaluation.calibration import sigmoid
from toolkit.evaluation.logistic import fit_line
from toolkit.evaluation.metrics import ratio
from toolkit.evaluation.results import Interval

Floats = NDArray[np.float64]
BINS = 10
ESTIMATOR = (
    f"{BINS} bins of equal mass, |mean probability - observed share| weighted by nodules (L1); above 0 by "
    "chance alone"
)
CHANCE_DRAWS = 400
NORMAL_95 = 1.959963984540054


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
        nodules: an `ece` within it is no evidence of miscalibration. Nodules count as independent here.
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


def quality(
    logit: Floats,
    label: Floats,
    patient: NDArray[np.generic],
    draws: int,
    seed: int,
    once: NDArray[np.bool_] | None = None,
) -> Quality:
    """Return the calibration of sigmoid(`logit`), (n,), against classes 0 and 1.

    Where a nodule has several lines (repeats), its patient is drawn with all of them; `once`, bool (n,), says
    which lines make bins and `ece`, in which each nodule must count once.
    """
    probability = sigmoid(logit)
    error = (probability - label) ** 2

    def statistic(weights: Floats) -> Floats:
        total = weights.sum(axis=1)
        share = ratio(weights @ label, total)
        brier = ratio(weights @ error, total)
        skill = 1 - ratio(brier, share * (1 - share))
        intercept = fit_line(logit, label, weights, slope=1.0)[1]
        slope = fit_line(logit, label, weights)[0]
        return np.stack([intercept, slope, brier, skill], axis=1)

    intercept, slope, brier, skill = intervals(*resample(statistic, patient, draws, seed))
    lines = np.arange(len(label)) if once is None else np.flatnonzero(once)
    lines = lines[np.argsort(probability[lines], kind="stable")]
    rising, label = probability[lines], label[lines]
    ends = equal_mass(rising, BINS)
    drawn = np.random.default_rng(seed).random((CHANCE_DRAWS, len(rising))) < rising
    chance = expected_error(rising, drawn.astype(np.float64), ends)
    low, high = np.quantile(chance, (LOW, HIGH))
    by_chance = Interval(float(chance.mean()), float(low), float(high))
    ece = float(expected_error(rising, label[None], ends)[0])
    bins = _bins(rising, label, ends)
    return Quality(intercept, slope, brier, skill, ece, by_chance, ESTIMATOR, bins)


def equal_mass(rising: Floats, bins: int) -> NDArray[np.int64]:
    """Return the ends of at most `bins` bins of about as many rising values; equal values stay together."""
    ends = np.round(np.arange(1, bins + 1) * len(rising) / bins).astype(np.int64)
    return np.unique(np.searchsorted(rising, rising[ends[ends > 0] - 1], side="right")).astype(np.int64)


def expected_error(rising: Floats, labels: Floats, ends: NDArray[np.int64]) -> Floats:
    """Return the expected calibration error of rising probabilities, (n,), for rows of labels, (draws, n)."""
    starts = np.concatenate([[0], ends[:-1]])
    gaps = np.add.reduceat(labels - rising, starts, axis=1)
    mean: Floats = np.abs(gaps).sum(axis=1) / len(rising)
    return mean


def wilson(positives: float, n: float) -> Interval:
    """Return a share with its 95 % interval (Wilson 1927)."""
    if n <= 0:
        return Interval(np.nan, np.nan, np.nan)
    share, z = positives / n, NORMAL_95
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))


def _bins(rising: Floats, label: Floats, ends: NDArray[np.int64]) -> tuple[Bin, ...]:
    told = []
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        some = rising[start:end]
        observed = wilson(float(label[start:end].sum()), len(some))
        told.append(Bin(float(some[0]), float(some[-1]), float(some.mean()), observed, len(some)))
    return tuple(told)

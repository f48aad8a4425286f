"""From a raw logit to a probability: calibrated on validation, then moved to a declared prevalence."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.evaluation.logistic import fit_line, smoothed

Floats = NDArray[np.float64]
FEWEST = 10
"""Nodules of either class that a slope needs."""


@dataclass(frozen=True)
class Calibration:
    """A straight line on the raw logit, and the prevalence at which it holds.

    Attributes
    ----------
    slope, intercept
        Calibrated logit = slope x raw logit + intercept; the slope is above 0, so that ranks stay.
    prevalence
        Of the nodules that it was fitted on, in (0, 1).
    method
        ``platt``: both were fitted; ``shift``: too few nodules for a slope, the effective prior of training
        was exchanged for `prevalence`; ``none``: the members of an ensemble are calibrated already.
    """

    slope: float
    intercept: float
    prevalence: float
    method: Literal["platt", "shift", "none"]

    def logit(self, raw: Floats, prevalence: float | None = None) -> Floats:
        """Return calibrated logits, float64 (n,), at another prevalence where one is given."""
        line = self.slope * np.asarray(raw, np.float64) + self.intercept
        return line if prevalence is None else line + log_odds(prevalence) - log_odds(self.prevalence)

    def probability(self, raw: Floats, prevalence: float | None = None) -> Floats:
        """Return calibrated probabilities, float64 (n,), at another prevalence where one is given."""
        return sigmoid(self.logit(raw, prevalence))


def log_odds(probability: float) -> float:
    """Return log(p / (1 - p))."""
    return math.log(probability) - math.log1p(-probability)


def sigmoid(logit: Floats) -> Floats:
    """Return 1 / (1 + exp(-x)) without overflow, float64."""
    from scipy.special import expit

    return np.asarray(expit(np.asarray(logit, np.float64)), np.float64)


def fit(raw: Floats, label: Floats, plain_prior: float, effective_prior: float) -> Calibration:
    """Fit a calibration on validation nodules, (n,); NaN labels are left out.

    A line with smoothed targets (Platt 1999). Where a class has fewer than `FEWEST`
    nodules, or ranks would be turned, no slope is fitted: the prior of training is exchanged alone.

    Parameters
    ----------
    raw, label
        Raw logits and classes, 1 or 0.
    plain_prior, effective_prior
        Share of positives among the training nodules, and the one that training effectively had.
    """
    known = ~np.isnan(label)
    raw, label = np.asarray(raw, np.float64)[known], np.asarray(label, np.float64)[known]
    positives = int(label.sum())
    negatives = len(label) - positives
    if min(positives, negatives) >= FEWEST:
        (slope,), (intercept,) = fit_line(raw, smoothed(label))
        if slope > 0:
            return Calibration(float(slope), float(intercept), positives / len(label), "platt")
    shift = log_odds(plain_prior) - log_odds(effective_prior)
    return Calibration(1.0, shift, plain_prior, "shift")


def prior_shift(logit: Floats, prior_from: float, prior_to: float) -> Floats:
    """Return logits moved from one share of positives to another; ranks stay (Saerens 2002)."""
    return np.asarray(logit, np.float64) + log_odds(prior_to) - log_odds(prior_from)

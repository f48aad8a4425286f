"""What size alone knows: a logistic regression of log diameter, the result that a network must beat."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import Problem, UsageError
from toolkit.evaluation.calibration import log_odds
from toolkit.evaluation.logistic import fit_line, smoothed

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DiameterModel:
    """Logit = slope x log(diameter in mm) + intercept; `median_mm` stands in where nobody measured."""

    slope: float
    intercept: float
    median_mm: float

    def logit(self, diameter_mm: Floats) -> Floats:
        """Return logits, float64 (n,), at the prevalence of training."""
        filled = np.where(diameter_mm > 0, diameter_mm, self.median_mm)
        return self.slope * np.log(filled) + self.intercept


def fit_diameter(diameter_mm: Floats, label: Floats) -> DiameterModel:
    """Fit on training nodules, (n,): NaN diameters take the median, NaN labels are left out.

    Raises `UsageError` E-EVAL-001 where a class is missing. Without two different diameters the slope is 0.
    Where diameters separate the classes of a small side, Platt's smoothed targets keep it finite.
    """
    known = ~np.isnan(label)
    diameter_mm, label = diameter_mm[known], label[known]
    positives = int((label == 1).sum())
    if not 0 < positives < len(label):
        measured = f"{positives} malignant and {len(label) - positives} benign nodules"
        what = "too few nodules for the diameter baseline"
        raise UsageError(Problem("E-EVAL-001", what, measured, "at least 1 of each"))
    stated = diameter_mm[diameter_mm > 0]
    median = float(np.median(stated)) if len(stated) else 1.0
    x = np.log(np.where(diameter_mm > 0, diameter_mm, median))
    (slope,), (intercept,) = fit_line(x, label)
    if np.isnan(slope):
        (slope,), (intercept,) = fit_line(x, smoothed(label))
    if np.isnan(slope):
        return DiameterModel(0.0, log_odds(positives / len(label)), median)
    return DiameterModel(float(slope), float(intercept), median)

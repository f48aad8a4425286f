"""What size alone knows: a logistic regression of log diameter, the result that a network must beat."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DiameterModel:
    """Logit = slope x log(diameter in mm) + intercept; `median_mm` stands in where nobody measured."""

    slope: float
    intercept: float
    median_mm: float

    def logit(self, diameter_mm: Floats) -> Floats:
        """Return logits, float64 (n,), at the prevalence of training."""
        raise NotImplementedError


def fit_diameter(diameter_mm: Floats, label: Floats) -> DiameterModel:
    """Fit on training nodules, (n,): NaN diameters take the median, NaN labels are left out.

    Raises `UsageError` E-EVAL-001 where a class is missing. Without any diameter the slope is 0.
    """
    raise NotImplementedError

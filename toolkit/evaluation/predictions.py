"""Predictions of one side of one or more partitions, in memory and as ``predictions_<side>.csv``."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Predictions:
    """n predictions.

    Attributes
    ----------
    partition
        Names of partitions, (n,): in repeated cross-validation a nodule has one line a repeat.
    nodule_id, case_id, patient_id
        Keyed hashes, (n,).
    target
        In [0, 1]; NaN where unknown.
    label
        1 malignant, 0 benign, NaN not scored.
    logit
        Raw logit of the model; thresholds refer to it.
    probability
        Calibrated, at the declared prevalence.
    decision
        1 where the raw logit reaches the frozen threshold of its model.
    threshold
        That threshold.
    calibrated
        Calibrated logit at the prevalence of training, which can be compared between folds; the raw logits
        of two models cannot.
    diameter_mm
        NaN where nobody measured it.
    """

    partition: NDArray[np.str_]
    nodule_id: NDArray[np.str_]
    case_id: NDArray[np.str_]
    patient_id: NDArray[np.str_]
    target: Floats
    label: Floats
    logit: Floats
    calibrated: Floats
    probability: Floats
    threshold: Floats
    decision: NDArray[np.int64]
    diameter_mm: Floats

    def __len__(self) -> int:
        return len(self.nodule_id)


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write predictions as a csv file in one step: floats in full, NaN as an empty field."""
    raise NotImplementedError


def read_predictions(path: Path) -> Predictions:
    """Return exactly what `write_predictions` wrote.

    Raises `UsageError` E-EVAL-002 with the line where it is missing or damaged.
    """
    raise NotImplementedError

"""One look at one side: everything that is to be known of it, from its predictions."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from toolkit.evaluation.evaluation import Evaluation
from toolkit.evaluation.predictions import Predictions
from toolkit.evaluation.thresholds import Goal

Floats = NDArray[np.float64]


def evaluate(
    predictions: Predictions,
    *,
    baseline: Floats,
    goal: Goal,
    beta: float,
    prevalence: float,
    plain_prior: float,
    prior: float,
    spacing_mm: Mapping[str, tuple[float, float]] | None = None,
    solid_share: Floats | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Evaluation:
    """Evaluate the predictions of one side, or of all folds of a cross-validation.

    Parameters
    ----------
    predictions
        n lines; ``calibrated`` is at `plain_prior`, ``probability`` at `prevalence`. Partitions named
        ``repeat r fold f`` are pooled by repeat; all others are one repeat.
    baseline
        Logits of the diameter-only model (`toolkit.evaluation.baseline`) for the same lines, (n,).
    goal, beta
        Of the frozen threshold, and of the F-beta that is told beside it.
    prevalence, plain_prior, prior
        The declared one, that of the training nodules, and the one that training effectively had.
    spacing_mm
        By case id: distance between slices, and between pixels.
    solid_share
        Share of each nodule that is solid, (n,), NaN where unknown.

    Raises
    ------
    UsageError
        E-EVAL-001 where a class has fewer than 2 nodules, E-EVAL-002 where lines contradict each other.
    """
    raise NotImplementedError

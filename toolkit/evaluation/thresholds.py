"""Thresholds by a named goal; they live on the raw logit, so that no declared prevalence moves a decision."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.evaluation.results import Interval

Floats = NDArray[np.float64]

GoalName = Literal["sensitivity", "specificity", "balanced_accuracy", "f_beta", "cost"]


@dataclass(frozen=True)
class Goal:
    """What a threshold is chosen for.

    Attributes
    ----------
    name
        ``sensitivity`` (recall) or ``specificity`` of at least `at`, with the other as high as it gets;
        largest ``balanced_accuracy``; largest ``f_beta``; least expected ``cost``.
    at
        For the first two, in (0, 1).
    beta
        Of F-beta: recall counts beta times as much as precision, so 2 favours recall and 0.5 precision.
    miss_cost
        What a missed malignant nodule costs, in false alarms.
    """

    name: GoalName = "balanced_accuracy"
    at: float = 0.9
    beta: float = 2.0
    miss_cost: float = 10.0

    @property
    def words(self) -> str:
        """The goal in words."""
        return {
            "sensitivity": f"sensitivity of at least {self.at:g}",
            "specificity": f"specificity of at least {self.at:g}",
            "balanced_accuracy": "largest balanced accuracy",
            "f_beta": f"largest F-beta, beta {self.beta:g}",
            "cost": f"least cost, a miss as dear as {self.miss_cost:g} false alarms",
        }[self.name]


@dataclass(frozen=True)
class Chosen:
    """A threshold and how sure it is.

    Attributes
    ----------
    threshold
        On the logit that was given; a nodule is called malignant where its logit is at least that.
    interval
        The threshold again, and its 95 % interval over the patient bootstrap.
    recall, specificity
        On the nodules that it was chosen on, so a little too good.
    warnings
        In plain words.
    """

    threshold: float
    interval: Interval
    recall: float
    specificity: float
    warnings: tuple[str, ...] = ()


def choose(
    goal: Goal,
    logit: Floats,
    label: Floats,
    patient: NDArray[np.generic],
    prevalence: float | None = None,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Chosen:
    """Return the threshold that serves a goal best on these nodules, (n,); NaN labels are left out.

    ``f_beta`` and ``cost`` depend on how common malignant nodules are: at `prevalence`, or as they are here.
    Raises `UsageError` E-EVAL-001 where a class is missing.
    """
    raise NotImplementedError


def explain_goal(goal: Goal, wish: Literal["recall", "precision"] | None, prevalence: float) -> str | None:
    """Return why a goal works against a wish, with numbers at this prevalence; None where it does not."""
    raise NotImplementedError

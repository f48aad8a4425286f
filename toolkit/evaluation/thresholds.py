"""Thresholds by a named goal; they live on the raw logit, so that no declared prevalence moves a decision."""

from dataclasses import dataclass
from typing import Literal

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

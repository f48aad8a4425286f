"""What is learned and what is scored: targets in [0, 1], and a named hard rule that makes classes of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.store import Nodule


@dataclass(frozen=True)
class LabelRule:
    """How a target is found and which targets are scored.

    Attributes
    ----------
    source
        ``label``: the store's label; ``rating``: the readers' mean rating r, 1 to 5, as (r - 1) / 4.
    benign_to, malignant_from
        Targets up to the one are benign, from the other on malignant; those between teach without being
        scored. Equal ends leave nothing between: what lies on them is malignant.
    """

    source: Literal["label", "rating"] = "label"
    benign_to: float = 0.5
    malignant_from: float = 0.5

    @property
    def name(self) -> str:
        """The rule in words."""
        what = "label" if self.source == "label" else "(mean rating - 1) / 4"
        if self.benign_to == self.malignant_from:
            return f"malignant where {what} is at least {self.malignant_from:g}"
        return (
            f"malignant where {what} is at least {self.malignant_from:g}, benign up to {self.benign_to:g}, "
            "not scored between"
        )

    def targets(self, nodules: Sequence[Nodule]) -> NDArray[np.float64]:
        """Return the target of each nodule, float64 (n,) in [0, 1]; NaN where unknown."""
        if self.source == "label":
            known = [math.nan if nodule.label is None else nodule.label for nodule in nodules]
        else:
            known = [math.nan if nodule.rating is None else (nodule.rating - 1) / 4 for nodule in nodules]
        return np.array(known, np.float64)

    def classes(self, targets: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return 1 malignant, 0 benign, NaN not scored, float64 (n,)."""
        classes = np.full(len(targets), np.nan)
        classes[targets <= self.benign_to] = 0.0
        classes[targets >= self.malignant_from] = 1.0
        return classes

"""Did a curve move, or was it noise: two epochs of a smoothed curve, compared."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.evaluation.influence import Floats, MetricName, influence, standard_error
from toolkit.evaluation.results import Interval
from toolkit.training.stopping import restlessness, smooth, spread

WINDOW = 5
ERRORS = 2.0
FROM_BEST_ERRORS = 3.0  # the best of many epochs is luckier than any other
ENDS = 2 * 1.959963984540054  # standard errors between the ends of a 95 % interval


@dataclass(frozen=True)
class Change:
    """Means over the `WINDOW` epochs that end at two epochs, from 1, and what is noise between them."""

    then: int
    now: int
    before: float
    after: float
    noise: float

    @property
    def step(self) -> float:
        """After minus before."""
        return self.after - self.before

    @property
    def fell(self) -> bool:
        """True where the fall is beyond the noise."""
        return self.before - self.after > self.noise

    @property
    def rose(self) -> bool:
        """True where the rise is beyond the noise."""
        return self.after - self.before > self.noise

    def words(self, name: str) -> str:
        """Return the change as a sentence."""
        if self.then == self.now:
            return f"{name} is best at the end: {self.after:.3f} at epoch {self.now}."
        verb = "fell" if self.fell else "rose" if self.rose else "stayed"
        told = f"{name} {verb}: {self.before:.3f} at epoch {self.then}, {self.after:.3f} at epoch {self.now}"
        return f"{told} (less than {self.noise:.3f} is noise)."


@dataclass(frozen=True, eq=False)
class Validation:
    """Logits of validation after every epoch, (epochs, n), with labels and patients, (n,)."""

    logits: NDArray[np.floating]
    label: Floats
    patient: NDArray[np.generic]


def change(
    curve: Sequence[float], then: int, now: int, errors: float = ERRORS, sample_error: float = 0.0
) -> Change:
    """Compare two epochs, counted from 1, of a curve of single epochs.

    Noise is `errors` times the larger of `sample_error` and the error that the curve's own restlessness
    gives.
    """
    values = np.asarray(curve, np.float64)
    level = smooth(values, WINDOW)
    own = restlessness(values[:now]) * spread(now - 1, then - 1, WINDOW)
    return Change(then, now, float(level[then - 1]), float(level[now - 1]), errors * max(own, sample_error))


def best(curve: Sequence[float]) -> int:
    """Return the epoch, from 1, that ends the best whole window of a curve of which higher is better."""
    level = smooth(curve, WINDOW)
    first = min(WINDOW, len(level)) - 1
    known = level[first:]
    return len(level) if np.isnan(known).all() else first + int(np.nanargmax(known)) + 1


def error_of(interval: Interval) -> float:
    """Return the standard error that a 95 % interval tells; 0 where it is not defined."""
    width = interval.high - interval.low
    return 0.0 if math.isnan(width) else width / ENDS


def paired_error(
    of: Validation, metric: MetricName, thresholds: Sequence[float], then: int, now: int
) -> float:
    """Return the standard error of the difference of two smoothed epochs, counted from 1, over patients."""

    def moves(epoch: int) -> Floats:
        window = range(max(epoch - WINDOW, 0), epoch)
        each = [
            influence(metric, of.logits[k], of.label, of.patient, threshold=thresholds[k]) for k in window
        ]
        return np.asarray(np.mean(each, axis=0), np.float64)

    error = standard_error(moves(now) - moves(then))
    return 0.0 if math.isnan(error) else error

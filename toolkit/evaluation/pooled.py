"""The scored lines of a side, in one or more repeats, and the bootstrap that keeps patients whole."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import Problem, UsageError
from toolkit.evaluation.bootstrap import distinct, intervals, resample
from toolkit.evaluation.metrics import Counts
from toolkit.evaluation.predictions import Predictions
from toolkit.evaluation.results import Interval

Floats = NDArray[np.float64]
Lines = NDArray[np.intp]
OfRepeat = Callable[[Lines, Floats], Floats]
"""From the lines of a repeat, (m,), and weights, (draws, m), to values, (draws, k)."""
FEWEST = 2


@dataclass(frozen=True, eq=False)
class Side:
    """n scored lines.

    Attributes
    ----------
    lines
        The predictions of nodules that have a class.
    baseline
        Logits of the diameter-only model, (n,).
    repeats
        The lines of each repeat; a nodule has one line in each.
    draws, seed
        Of the bootstrap.
    """

    lines: Predictions
    baseline: Floats
    repeats: tuple[Lines, ...]
    draws: int
    seed: int

    @property
    def first(self) -> NDArray[np.bool_]:
        """Which lines are of the first repeat, bool (n,)."""
        once = np.zeros(len(self.lines), np.bool_)
        once[self.repeats[0]] = True
        return once

    def resample(self, statistic: OfRepeat) -> tuple[Floats, Floats]:
        """Return the mean over repeats, (k,), and that of each draw of patients, (draws, k)."""

        def mean(weights: Floats) -> Floats:
            total = sum(statistic(lines, weights[:, lines]) for lines in self.repeats)
            return np.asarray(total / len(self.repeats), np.float64)

        return resample(mean, self.lines.patient_id, self.draws, self.seed)

    def patients(self, inside: NDArray[np.bool_]) -> int:
        """Return how many patients have a line among those inside, bool (n,)."""
        return distinct(self.lines.patient_id, inside)

    def tally(self, called: NDArray[np.bool_]) -> Counts:
        """Return right and wrong decisions for m ways to call nodules malignant, bool (n, m).

        Counts are (1 + draws, m), mean over repeats; the first row is of the nodules as they are.
        """
        ways = called.shape[1]

        def statistic(lines: Lines, weights: Floats) -> Floats:
            positive = (self.lines.label[lines] == 1)[:, None]
            some = called[lines]
            sets = [positive & some, positive & ~some, ~positive & some, ~positive & ~some]
            return weights @ np.concatenate(sets, axis=1).astype(np.float64)

        value, drawn = self.resample(statistic)
        table = np.concatenate([value[None], drawn])
        return Counts(*(table[:, k * ways : (k + 1) * ways] for k in range(4)))


def columns(table: Floats, patients: Sequence[int] | None = None) -> list[Interval]:
    """Return intervals of what was derived from a tally, (1 + draws, m)."""
    return intervals(table[0], table[1:], patients)


def take(predictions: Predictions, lines: NDArray[np.generic]) -> Predictions:
    """Return some lines, by number or by mask."""
    return Predictions(*(getattr(predictions, name)[lines] for name in Predictions.__dataclass_fields__))


def pool(predictions: Predictions, baseline: Floats, draws: int, seed: int) -> Side:
    """Return the scored lines of a side after checking that they fit together.

    Raises `UsageError` E-EVAL-001 where a class has fewer than 2 nodules, E-EVAL-002 where a nodule has two
    lines in one repeat, a decision that is not that of its threshold, or two classes or patients.
    """
    known = ~np.isnan(predictions.label)
    lines = take(predictions, known)
    positives = len(np.unique(lines.nodule_id[lines.label == 1]))
    negatives = len(np.unique(lines.nodule_id[lines.label == 0]))
    if min(positives, negatives) < FEWEST:
        measured = f"{positives} malignant and {negatives} benign nodules"
        what = "too few nodules of a class to evaluate"
        raise UsageError(Problem("E-EVAL-001", what, measured, f"at least {FEWEST} of each"))
    if ((lines.logit >= lines.threshold) != (lines.decision == 1)).any():
        raise _contradiction("a decision is not that of its logit and threshold")
    names, nodule = np.unique(lines.nodule_id, return_inverse=True)
    for column, what in ((lines.label, "classes"), (lines.patient_id, "patients")):
        code = np.unique(column, return_inverse=True)[1]
        if len(np.unique(nodule * (code.max() + 1) + code)) != len(names):
            raise _contradiction(f"a nodule has two {what}")
    repeat = np.unique([_repeat(name) for name in lines.partition.tolist()], return_inverse=True)[1]
    repeats = tuple(np.flatnonzero(repeat == k) for k in range(int(repeat.max()) + 1))
    if any(len(np.unique(nodule[each])) != len(each) for each in repeats):
        raise _contradiction("a nodule has two lines in one repeat")
    return Side(lines, np.asarray(baseline, np.float64)[known], repeats, draws, seed)


def _repeat(partition: str) -> int:
    """Return the number of a repeat (named so by `toolkit.loading.split.Partition`), 0 for all else."""
    found = re.fullmatch(r"repeat (\d+) fold \d+", partition)
    return int(found[1]) if found else 0


def _contradiction(measured: str) -> UsageError:
    action = "Make them again with toolkit evaluate (or train)"
    return UsageError(Problem("E-EVAL-002", "predictions contradict each other", measured, "", action))

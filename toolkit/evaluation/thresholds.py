"""Thresholds by a named goal; they live on the raw logit, so that no declared prevalence moves a decision."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import Problem, UsageError
from toolkit.evaluation.bootstrap import interval, resample
from toolkit.evaluation.metrics import Counts, count, ratio, steps
from toolkit.evaluation.results import Interval

Floats = NDArray[np.float64]
FEW = 30
"""Nodules of a class below which a threshold is told to rest on few."""
ROUNDING = 1e-12

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

    It lies midway between two neighbouring logits, or 1 beyond the largest (no nodule is called malignant) or
    below the least (all are). Where several serve equally well, the lowest is taken; for a sensitivity or a
    specificity, the one with most of the other. ``f_beta`` and ``cost`` depend on how common malignant
    nodules are: at `prevalence`, or as they are here.

    Raises `UsageError` E-EVAL-001 where a class is missing.
    """
    known = ~np.isnan(label)
    logit, label = np.asarray(logit, np.float64)[known], np.asarray(label, np.float64)[known]
    positives = int(label.sum())
    if not 0 < positives < len(label):
        measured = f"{positives} malignant and {len(label) - positives} benign nodules"
        problem = Problem("E-EVAL-001", "too few nodules for a threshold", measured, "at least 1 of each")
        raise UsageError(problem)
    share = positives / len(label) if prevalence is None else prevalence

    def statistic(weights: Floats) -> Floats:
        falling, found, alarms = steps(logit, label, weights)
        cuts = _between(falling)
        both = (found[:, -1] > 0) & (alarms[:, -1] > 0)
        threshold: Floats = np.where(both, cuts[_best(goal, found, alarms, share)], np.nan)
        return threshold[:, None]

    (threshold,), drawn = resample(statistic, patient[known], draws, seed)
    counts = count(logit >= threshold, label)
    told = tuple(_warnings(goal, counts, positives, len(label) - positives))
    recall, specificity = float(counts.recall[0]), float(counts.specificity[0])
    return Chosen(float(threshold), interval(threshold, drawn[:, 0]), recall, specificity, told)


def _between(logits: Floats) -> Floats:
    """Return the thresholds that part falling logits, (g,), (g + 1,): the k-th calls k of them malignant."""
    middle = logits[1:] + (logits[:-1] - logits[1:]) / 2
    # halfway between neighbouring floats is one of them; the upper one is still called malignant
    middle = np.where(middle > logits[1:], middle, logits[:-1])
    return np.concatenate([[logits[0] + 1], middle, [logits[-1] - 1]])


def _best(goal: Goal, found: Floats, alarms: Floats, share: float) -> NDArray[np.intp]:
    """Return which threshold serves the goal, (draws,), from true and false positives at each."""
    recall = ratio(found, np.broadcast_to(found[:, -1:], found.shape))
    alarm = ratio(alarms, np.broadcast_to(alarms[:, -1:], alarms.shape))
    if goal.name == "sensitivity":  # the first that reaches it, and on while no false alarm is added
        first = np.argmax(recall >= goal.at - ROUNDING, axis=1)[:, None]
        return _last(alarms == np.take_along_axis(alarms, first, 1))
    if goal.name == "specificity":  # the last that keeps it, and back while no hit is lost
        end = _last(1 - alarm >= goal.at - ROUNDING)[:, None]
        return np.asarray(np.argmax(found == np.take_along_axis(found, end, 1), axis=1))
    if goal.name == "balanced_accuracy":
        worth = recall - alarm
    elif goal.name == "f_beta":
        hits = (1 + goal.beta**2) * share * recall
        worth = hits / (goal.beta**2 * share + share * recall + (1 - share) * alarm)
    else:
        worth = share * goal.miss_cost * recall - (1 - share) * alarm
    largest = np.nanmax(np.where(np.isnan(worth), -np.inf, worth), axis=1, keepdims=True)
    return _last(worth >= largest - ROUNDING)


def _last(true: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the last column that is true in each row."""
    return np.asarray(true.shape[1] - 1 - np.argmax(true[:, ::-1], axis=1))


def _warnings(goal: Goal, counts: Counts, positives: int, negatives: int) -> Iterator[str]:
    called = counts.true_positive[0] + counts.false_positive[0]
    if called == positives + negatives:
        yield f"only calling every nodule malignant gives the {goal.words}"
    if called == 0:
        yield f"only calling no nodule malignant gives the {goal.words}"
    for name, n in (("malignant", positives), ("benign", negatives)):
        if n < FEW:
            yield f"it rests on {n} {name} nodules, each of which is {100 / n:.0f} % of them"


@dataclass(frozen=True)
class Example:
    """A way to decide, by its recall (sensitivity) and specificity."""

    recall: float
    specificity: float

    def precision(self, prevalence: float) -> float:
        """Share of alarms that are right where this share of nodules is malignant."""
        hits = prevalence * self.recall
        return hits / (hits + (1 - prevalence) * (1 - self.specificity))

    def f_beta(self, beta: float, prevalence: float) -> float:
        """F-beta = (1 + beta^2) P R / (beta^2 P + R)."""
        precision = self.precision(prevalence)
        return (1 + beta**2) * precision * self.recall / (beta**2 * precision + self.recall)


EAGER, CAREFUL = Example(0.9, 0.7), Example(0.5, 0.97)
"""One finds nine of ten malignant nodules with many false alarms, the other half of them with few."""


def explain_goal(goal: Goal, wish: Literal["recall", "precision"] | None, prevalence: float) -> str | None:
    """Return why a goal works against a wish, with numbers at this prevalence; None where it does not."""
    dear = f"A miss is said to cost {goal.miss_cost:g} false alarms: "
    fair = (1 - prevalence) / prevalence
    if wish == "recall":
        advice = "For recall, ask for a sensitivity."
        if goal.name == "f_beta" and goal.beta < 1:
            return f"{_about_beta(goal.beta, 2.0, prevalence)} {advice}"
        if goal.name == "specificity":
            return f"A specificity limits false alarms; recall is what is left. {advice}"
        if goal.name == "cost" and goal.miss_cost < 1:
            return f"{dear}the threshold spares alarms, not misses. {advice}"
    if wish == "precision":
        advice = "For precision, ask for a specificity."
        if goal.name == "f_beta" and goal.beta > 1:
            return f"{_about_beta(goal.beta, 0.5, prevalence)} {advice}"
        if goal.name == "sensitivity":
            return f"A sensitivity of {goal.at:g} is bought with as many false alarms as it takes. {advice}"
        if goal.name == "balanced_accuracy" and fair > 1:
            rare = f"where {_percent(prevalence)} of nodules are malignant"
            told = f"{rare}, a miss counts as much as {fair:.3g} false alarms"
            return f"Balanced accuracy weighs both classes alike: {told}. {advice}"
        if goal.name == "cost" and goal.miss_cost > 1:
            return f"{dear}the threshold spares misses, not alarms. {advice}"
    return None


def _about_beta(beta: float, other: float, prevalence: float) -> str:
    """Tell what a beta favours, against another one, by two ways to decide."""
    scores = {b: (EAGER.f_beta(b, prevalence), CAREFUL.f_beta(b, prevalence)) for b in (beta, other)}
    told = {b: f"F{b:g} gives {eager:.2g} and {careful:.2g}" for b, (eager, careful) in scores.items()}
    prefers = "first" if scores[beta][0] > scores[beta][1] else "second"
    text = (
        f"F-beta with beta {beta:g} favours {'precision' if beta < 1 else 'recall'}: recall counts {beta:g} "
        f"times as much as precision. Say {_percent(prevalence)} of nodules are malignant. Finding 90 % of "
        f"those with 30 % of the benign ones has a precision of {EAGER.precision(prevalence):.2g}, finding "
        f"50 % with 3 % one of {CAREFUL.precision(prevalence):.2g}. {told[beta]}, so it takes the {prefers}; "
        f"{told[other]}."
    )
    if beta < 1 and scores[other][0] < scores[other][1]:
        text += f" So few are malignant here that even F{other:g} takes the second."
    return text


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"

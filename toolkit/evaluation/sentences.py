"""Findings in plain words, each with its numbers; nothing is said that the intervals do not carry."""

from collections.abc import Iterator
from math import isnan

from toolkit.evaluation.evaluation import Evaluation
from toolkit.evaluation.results import Interval
from toolkit.evaluation.thresholds import Goal

FEW = 50
"""Malignant nodules below which the sentences warn."""


def sentences(found: Evaluation, goal: Goal) -> tuple[str, ...]:
    """Return what an evaluation says, most important first."""
    return tuple(
        each
        for part in (_ranking, _frozen, _aim, _predictive, _size, _calibration, _benefit, _groups, _few)
        for each in part(found, goal)
    )


def against_size(difference: Interval, measured: bool) -> str:
    """Return the verdict on model against diameter alone, from the paired difference of AUROC."""
    if not measured:
        return "Nobody measured a diameter, so size alone knows nothing here."
    if isnan(difference.low):
        return "There are too few patients to compare the model with size alone."
    told = f"AUROC {_signed(difference)} against diameter alone"
    if difference.low > 0:
        return f"The image adds to size: {told}."
    if difference.high < 0:
        return f"The model is worse than size alone: {told}."
    return f"It is not shown that the image adds to size: {told}."


def _ranking(found: Evaluation, _: Goal) -> Iterator[str]:
    yield (
        "Of a malignant and a benign nodule the model gives the malignant one the higher score in "
        f"{_percents(found.auroc)} of pairs (AUROC)."
    )


def _frozen(found: Evaluation, _: Goal) -> Iterator[str]:
    at = found.frozen
    yield (
        f"The threshold frozen on validation finds {_percents(at.recall)} of malignant nodules and clears "
        f"{_percents(at.specificity)} of benign ones."
    )


def _aim(found: Evaluation, goal: Goal) -> Iterator[str]:
    """Say where a frozen threshold misses the recall or specificity that it was chosen for."""
    if goal.name in ("sensitivity", "specificity"):
        got = found.frozen.recall if goal.name == "sensitivity" else found.frozen.specificity
        if got.high < goal.at:
            yield f"It was chosen for a {goal.name} of at least {goal.at:g} and does not keep that here."
        elif got.low < goal.at:
            yield f"It was chosen for a {goal.name} of at least {goal.at:g}: neither proved nor refuted here."


def _predictive(found: Evaluation, _: Goal) -> Iterator[str]:
    (at,) = (each for each in found.predictive if each.prevalence == found.prevalence)
    missed = Interval(*(1 - each for each in (at.negative.value, at.negative.high, at.negative.low)))
    told = [
        f"{_percents(share)} of {what}"
        for share, what in ((at.positive, "alarms are right"), (missed, "cleared nodules are malignant"))
        if not isnan(share.value)  # no nodule is called so
    ]
    yield f"Where {100 * at.prevalence:.3g} % of nodules are malignant, {' and '.join(told)}."


def _size(found: Evaluation, _: Goal) -> Iterator[str]:
    yield found.baseline.verdict


def _calibration(found: Evaluation, _: Goal) -> Iterator[str]:
    told = found.calibration["calibrated"]
    if isnan(told.intercept.low) or isnan(told.slope.low):
        yield "Too few nodules overlap to judge the calibration of probabilities."
        return
    if told.intercept.low > 0 or told.intercept.high < 0:
        way = "low" if told.intercept.low > 0 else "high"
        yield f"Probabilities are too {way} on the whole (intercept {_numbers(told.intercept)}; 0 is right)."
    if told.slope.low > 1 or told.slope.high < 1:
        way = "timid" if told.slope.low > 1 else "extreme"
        yield f"Probabilities are too {way} (slope {_numbers(told.slope)}; 1 is right)."
    if told.intercept.low <= 0 <= told.intercept.high and told.slope.low <= 1 <= told.slope.high:
        yield (
            f"Probabilities are not shown to be off: intercept {_numbers(told.intercept)}, slope "
            f"{_numbers(told.slope)}."
        )


def _benefit(found: Evaluation, _: Goal) -> Iterator[str]:
    """Say where the model beats acting on all and on none, in one unbroken range of thresholds."""
    curve = found.decision_curve
    better = [model.value > max(0.0, rest) for model, rest in zip(curve.model, curve.treat_all, strict=True)]
    sure = [model.low > max(0.0, rest) for model, rest in zip(curve.model, curve.treat_all, strict=True)]
    if not any(better):
        yield "At no threshold is acting on the model better than acting on all nodules or on none."
        return
    at = [threshold for threshold, yes in zip(curve.thresholds, better, strict=True) if yes]
    yield (
        f"Acting on the model beats acting on all nodules and on none at {len(at)} of {len(better)} "
        f"thresholds of probability, from {100 * at[0]:.3g} % to {100 * at[-1]:.3g} %; beyond chance at "
        f"{sum(sure)}."
    )


def _groups(found: Evaluation, _: Goal) -> Iterator[str]:
    measured = [each for each in found.subgroups if not each.note]
    for each in measured:
        if each.auroc.high < found.auroc.value:
            yield (
                f"Within one group, {each.by} {each.name}, ranking is harder: AUROC {_numbers(each.auroc)}, "
                f"{each.positives} malignant of {each.nodules}."
            )
    few = len(found.subgroups) - len(measured)
    if few:
        yield f"Subgroups with too few nodules of a class for a statement: {few} of {len(found.subgroups)}."


def _few(found: Evaluation, _: Goal) -> Iterator[str]:
    if found.positives < FEW:
        yield f"All this rests on {found.positives} malignant nodules: every number here is uncertain."


def _percents(interval: Interval) -> str:
    value, low, high = (f"{100 * each:.3g}" for each in interval)
    return f"{value} % ({low} to {high})" if not isnan(interval.low) else f"{value} %"


def _numbers(interval: Interval) -> str:
    return f"{interval.value:.2f} ({interval.low:.2f} to {interval.high:.2f})"


def _signed(interval: Interval) -> str:
    return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"

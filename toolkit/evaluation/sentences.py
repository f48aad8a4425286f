"""Findings in plain words, each with its numbers; nothing is said that the intervals do not carry."""

from collections.abc import Iterator

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
    told = f"AUROC {_signed(difference)} against diameter alone"
    if difference.low > 0:
        return f"The image adds to size: {told}."
    if difference.high < 0:
        return f"The model is worse than size alone: {told}."
    return f"It is not shown that the image adds to size: {told}."


def _ranking(found: Evaluation, _: Goal) -> Iterator[str]:
    yield (
        f"Of a malignant and a benign nodule the model gives the malignant one the higher score in "
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
            yield f"It was chosen for a {goal.name} of at least {goal.at:g}; this side can neither prove nor refute that."


def _predictive(found: Evaluation, _: Goal) -> Iterator[str]:
    (at,) = (each for each in found.predictive if each.prevalence == found.prevalence)
    missed = Interval(*(1 - each for each in (at.negative.value, at.negative.high, at.negative.low)))
    yield (
        f"Where {100 * at.prevalence:.3g} % of nodules are malignant, {_percents(at.positive)} of alarms are "
        f"right and {_percents(missed)} of cleared nodules are malignant."
    )


def _size(found: Evaluation, _: Goal) -> Iterator[str]:
    yield found.baseline.verdict


def _calibration(found: Evaluation, _: Goal) -> Iterator[str]:
    told = found.calibration["calibrated"]
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
        yield "At no threshold of probability is acting on the model better than acting on all nodules or on none."
        return
    at = [threshold for threshold, yes in zip(curve.thresholds, better, strict=True) if yes]
    yield (
        f"Acting on the model beats acting on all nodules and on none at {len(at)} of {len(better)} thresholds "
        f"of probability, from {100 * at[0]:.3g} % to {100 * at[-1]:.3g} %; beyond chance at {sum(sure)}."
    )


def _groups(found: Evaluation, _: Goal) -> Iterator[str]:
    measured = [each for each in found.subgroups if each.auroc.low == each.auroc.low]
    for each in measured:
        if each.auroc.high < found.auroc.value:
            yield (
                f"It ranks worse within {each.by} {each.name}: AUROC {_numbers(each.auroc)}, "
                f"{each.positives} malignant of {each.nodules}."
            )
    few = len(found.subgroups) - len(measured)
    if few:
        yield f"{few} of {len(found.subgroups)} subgroups have too few nodules of a class for any statement."


def _few(found: Evaluation, _: Goal) -> Iterator[str]:
    if found.positives < FEW:
        yield f"All this rests on {found.positives} malignant nodules: every number here is uncertain."


def _percents(interval: Interval) -> str:
    value, low, high = (f"{100 * each:.3g}" for each in interval)
    return f"{value} % ({low} to {high})" if interval.low == interval.low else f"{value} %"


def _numbers(interval: Interval) -> str:
    return f"{interval.value:.2f} ({interval.low:.2f} to {interval.high:.2f})"


def _signed(interval: Interval) -> str:
    return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"

"""What thresholds give: the frozen one, others for illustration, predictive values, net benefit."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from toolkit.evaluation.calibration import log_odds, prior_shift, sigmoid
from toolkit.evaluation.evaluation import DecisionCurve, OperatingPoint, Predictive
from toolkit.evaluation.metrics import Counts, ratio
from toolkit.evaluation.pooled import Floats, Side, columns
from toolkit.evaluation.results import Interval
from toolkit.evaluation.thresholds import Chosen, Goal, choose

PREVALENCES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
ACT_AT = tuple(k / 100 for k in (*range(1, 10), *range(10, 51, 2)))
THRESHOLD_DRAWS = 400
NOWHERE = Interval(np.nan, np.nan, np.nan)


def goals(miss_cost: float) -> tuple[Goal, ...]:
    """Return the goals whose thresholds are shown for illustration."""
    return (
        *(Goal("sensitivity", at=at) for at in (0.9, 0.95)),
        *(Goal("specificity", at=at) for at in (0.9, 0.95)),
        Goal("balanced_accuracy"),
        *(Goal("f_beta", beta=beta) for beta in (2.0, 0.5)),
        Goal("cost", miss_cost=miss_cost),
    )


def operating_points(
    side: Side, frozen: Goal, beta: float, shift: float
) -> tuple[OperatingPoint, list[OperatingPoint], Counts]:
    """Return the frozen threshold's point, those chosen on this side, and the frozen one's tally.

    `shift` moves a calibrated logit to the declared prevalence.
    """
    lines = side.lines
    shown = goals(frozen.miss_cost)
    draws = min(side.draws, THRESHOLD_DRAWS)
    chosen = [
        choose(goal, lines.calibrated, lines.label, lines.patient_id, draws=draws, seed=side.seed)
        for goal in shown
    ]
    called = [lines.decision == 1, *(lines.calibrated >= each.threshold for each in chosen)]
    tally = side.tally(np.stack(called, axis=1))
    betas = [beta, *(goal.beta if goal.name == "f_beta" else beta for goal in shown)]
    first, *others = _points(tally, [frozen, *shown], [None, *chosen], betas, shift)
    return first, others, tally


def _points(
    tally: Counts, goals: Sequence[Goal], chosen: Sequence[Chosen | None], betas: list[float], shift: float
) -> list[OperatingPoint]:
    names = ("recall", "specificity", "precision", "negative_predictive_value", "balanced_accuracy")
    measured = {name: columns(getattr(tally, name)) for name in names}
    points = []
    for k, (goal, found, beta) in enumerate(zip(goals, chosen, betas, strict=True)):
        probability = np.nan if found is None else float(sigmoid(np.array(found.threshold + shift)))
        points.append(
            OperatingPoint(
                goal=goal.words,
                basis="validation" if found is None else "this side",
                threshold=NOWHERE if found is None else found.interval,
                probability=probability,
                true_positive=float(tally.true_positive[0, k]),
                false_negative=float(tally.false_negative[0, k]),
                false_positive=float(tally.false_positive[0, k]),
                true_negative=float(tally.true_negative[0, k]),
                beta=beta,
                f_beta=columns(tally.f_beta(beta))[k],
                **{name: each[k] for name, each in measured.items()},
            )
        )
    return points


def predictive(tally: Counts, prevalences: Sequence[float]) -> tuple[Predictive, ...]:
    """Return predictive values of the first decision of a tally at other prevalences (Bayes)."""
    recall, specificity = tally.recall[:, :1], tally.specificity[:, :1]
    told = []
    for share in prevalences:
        hits, alarms = share * recall, (1 - share) * (1 - specificity)
        cleared, missed = (1 - share) * specificity, share * (1 - recall)
        (positive,) = columns(ratio(hits, hits + alarms))
        (negative,) = columns(ratio(cleared, cleared + missed))
        told.append(Predictive(share, positive, negative))
    return tuple(told)


def decision_curve(side: Side, prevalence: float, plain_prior: float) -> DecisionCurve:
    """Return net benefits at the declared prevalence (Vickers 2006)."""
    at = np.array(ACT_AT)
    cut = np.array([log_odds(each) for each in ACT_AT])
    baseline = prior_shift(side.baseline, plain_prior, prevalence)
    odds = at / (1 - at)

    def benefit(called: NDArray[np.bool_]) -> tuple[Interval, ...]:
        tally = side.tally(called)
        worth: Floats = prevalence * tally.recall - (1 - prevalence) * (1 - tally.specificity) * odds
        return tuple(columns(worth))

    model = benefit(side.lines.probability[:, None] >= at)
    size = benefit(baseline[:, None] >= cut)
    everyone = tuple(float(each) for each in prevalence - (1 - prevalence) * odds)
    return DecisionCurve(prevalence, ACT_AT, model, size, everyone)

"""What thresholds give: the frozen one, others for illustration, predictive values, net benefit."""

from collections.abc import Mapping, Sequence

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
    ways = np.stack(called, axis=1)
    tally = side.tally(ways)
    betas = [beta, *(goal.beta if goal.name == "f_beta" else beta for goal in shown)]
    behind = _behind(side, ways)
    first, *others = _points(tally, behind, [frozen, *shown], [None, *chosen], betas, shift)
    return first, others, tally


def _behind(side: Side, called: NDArray[np.bool_]) -> dict[str, list[int]]:
    """Return how many patients stand behind each share, for m ways to call nodules malignant."""
    malignant, benign = (side.patients(side.lines.label == k) for k in (1, 0))
    ways = called.shape[1]
    return {
        "recall": [malignant] * ways,
        "specificity": [benign] * ways,
        "precision": [side.patients(some) for some in called.T],
        "negative_predictive_value": [side.patients(~some) for some in called.T],
        "balanced_accuracy": [min(malignant, benign)] * ways,
    }


def _points(
    tally: Counts,
    behind: Mapping[str, list[int]],
    goals: Sequence[Goal],
    chosen: Sequence[Chosen | None],
    betas: list[float],
    shift: float,
) -> list[OperatingPoint]:
    measured = {name: columns(getattr(tally, name), patients) for name, patients in behind.items()}
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
                f_beta=columns(tally.f_beta(beta), behind["balanced_accuracy"])[k],
                **{name: each[k] for name, each in measured.items()},
            )
        )
    return points


def predictive(tally: Counts, frozen: OperatingPoint, prevalences: Sequence[float]) -> tuple[Predictive, ...]:
    """Return predictive values of the frozen threshold, a tally's first decision, at other prevalences.

    Where no nodule was missed (or none called falsely) no draw differs; the low end is then that of the low
    end of recall (or of specificity).
    """
    recall, specificity = tally.recall[:, :1], tally.specificity[:, :1]
    told = []
    for share in prevalences:
        (positive,) = columns(_right(share * recall, (1 - share) * (1 - specificity)))
        (negative,) = columns(_right((1 - share) * specificity, share * (1 - recall)))
        if positive.low == 1:
            hits, alarms = share * frozen.recall.value, (1 - share) * (1 - frozen.specificity.low)
            positive = positive._replace(low=hits / (hits + alarms))
        if negative.low == 1:
            cleared, missed = (1 - share) * frozen.specificity.value, share * (1 - frozen.recall.low)
            negative = negative._replace(low=cleared / (cleared + missed))
        told.append(Predictive(share, positive, negative))
    return tuple(told)


def _right(right: Floats, wrong: Floats) -> Floats:
    return ratio(right, right + wrong)


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

"""Thresholds: the best of all that there are, in the right place, and moved by nothing that should not."""

from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, fbeta_score, recall_score

from tests.evaluation.sides import Floats, side
from toolkit.errors import UsageError
from toolkit.evaluation.calibration import Calibration
from toolkit.evaluation.thresholds import CAREFUL, EAGER, Goal, GoalName, choose, explain_goal

NAMES = get_args(GoalName)


def every_threshold(logit: Floats) -> list[float]:
    values = sorted(set(logit.tolist()))
    return [values[0] - 1, *((a + b) / 2 for a, b in pairwise(values)), values[-1] + 1]


def rates(logit: Floats, label: Floats, threshold: float) -> tuple[float, float]:
    called = logit >= threshold
    return recall_score(label, called), recall_score(1 - label, ~called)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("at", [0.5, 0.9, 1 - 1e-9])
def test_sensitivity_is_kept_with_the_highest_specificity(at: float, ties: bool) -> None:
    logit, label, patient = side(1, 150, ties=ties)
    found = choose(Goal("sensitivity", at=at), logit, label, patient, draws=20)
    all_rates = [rates(logit, label, cut) for cut in every_threshold(logit)]
    best = max((specificity, recall) for recall, specificity in all_rates if recall >= at)
    assert (found.specificity, found.recall) == pytest.approx(best)
    assert rates(logit, label, found.threshold) == pytest.approx((found.recall, found.specificity))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("at", [0.5, 0.9, 1 - 1e-9])
def test_specificity_is_kept_with_the_highest_recall(at: float, ties: bool) -> None:
    logit, label, patient = side(2, 150, ties=ties)
    found = choose(Goal("specificity", at=at), logit, label, patient, draws=20)
    best = max(each for each in (rates(logit, label, cut) for cut in every_threshold(logit)) if each[1] >= at)
    assert (found.recall, found.specificity) == pytest.approx(best)


@pytest.mark.parametrize("ties", [False, True])
def test_balanced_accuracy_f_beta_and_cost_are_the_best_of_all(ties: bool) -> None:
    logit, label, patient = side(3, 150, ties=ties)
    cuts = every_threshold(logit)
    found = choose(Goal("balanced_accuracy"), logit, label, patient, draws=20).threshold
    scores = [balanced_accuracy_score(label, logit >= cut) for cut in cuts]
    assert balanced_accuracy_score(label, logit >= found) == pytest.approx(max(scores))
    for beta in (0.5, 2.0):
        found = choose(Goal("f_beta", beta=beta), logit, label, patient, draws=20).threshold
        scores = [fbeta_score(label, logit >= cut, beta=beta) for cut in cuts]
        assert fbeta_score(label, logit >= found, beta=beta) == pytest.approx(max(scores))

    def cost(cut: float) -> float:
        called = logit >= cut
        return float(7 * (label * ~called).sum() + ((1 - label) * called).sum())

    found = choose(Goal("cost", miss_cost=7), logit, label, patient, draws=20).threshold
    assert cost(found) == pytest.approx(min(map(cost, cuts)))


def test_f_beta_at_another_prevalence_is_that_of_nodules_weighted_to_it() -> None:
    logit, label, patient = side(4, 200)
    share = label.mean()
    weight = np.where(label == 1, 0.02 / share, 0.98 / (1 - share))
    found = choose(Goal("f_beta", beta=1), logit, label, patient, 0.02, draws=20).threshold
    scores = [
        fbeta_score(label, logit >= cut, beta=1, sample_weight=weight) for cut in every_threshold(logit)
    ]
    got = fbeta_score(label, logit >= found, beta=1, sample_weight=weight)
    assert got == pytest.approx(max(scores))
    assert found > choose(Goal("f_beta", beta=1), logit, label, patient, 0.5, draws=20).threshold


def test_a_threshold_lies_midway_between_neighbours() -> None:
    logit, label = np.array([*range(-8, 2), *range(3, 13)], float), np.repeat([0.0, 1], 10)
    found = choose(Goal("balanced_accuracy"), logit, label, np.arange(20), draws=200)
    assert found.threshold == 2.0
    assert (found.recall, found.specificity) == (1, 1)
    assert found.interval.low <= 2 <= found.interval.high


def test_between_neighbouring_floats_the_upper_one_is_still_called() -> None:
    low = 1.0
    high = np.nextafter(low, 2)
    found = choose(
        Goal("balanced_accuracy"), np.array([low, high]), np.array([0.0, 1]), np.arange(2), draws=5
    )
    assert (found.recall, found.specificity) == (1, 1)


def test_a_goal_that_only_an_end_reaches_is_told() -> None:
    logit, label = np.array([0.0, 5.0, 6.0]), np.array([1.0, 0, 0])  # the malignant one ranks last
    found = choose(Goal("sensitivity", at=0.9), logit, label, np.arange(3), draws=20)
    assert found.threshold == -1.0
    assert "every nodule" in found.warnings[0]
    found = choose(Goal("specificity", at=0.9), logit, label, np.arange(3), draws=20)
    assert found.threshold == 7.0
    assert "no nodule" in found.warnings[0]
    assert any("1 malignant" in each for each in found.warnings)


@pytest.mark.parametrize("label", [np.zeros(4), np.ones(4), np.full(4, np.nan)])
def test_a_missing_class_is_refused(label: Floats) -> None:
    with pytest.raises(UsageError, match="E-EVAL-001"):
        choose(Goal(), np.arange(4.0), label, np.arange(4))


@pytest.mark.parametrize("name", NAMES)
def test_a_decision_is_not_moved_by_a_declared_prevalence_or_by_a_calibration(name: GoalName) -> None:
    """The threshold lives on the raw logit; what is declared later moves probabilities only."""
    logit, label, patient = side(5, 200)
    threshold = choose(Goal(name), logit, label, patient, draws=5).threshold
    decided = logit >= threshold
    line = Calibration(0.7, -1.0, 0.2, "platt")
    cuts = {share: line.probability(np.array([threshold]), share)[0] for share in (0.01, 0.2, 0.6)}
    assert cuts[0.01] < cuts[0.2] < cuts[0.6]
    for share, cut in cuts.items():
        np.testing.assert_array_equal(line.probability(logit, share) >= cut, decided)


@given(st.integers(0, 10_000), st.sampled_from(NAMES))
def test_a_rising_map_of_logits_changes_no_decision(seed: int, name: GoalName) -> None:
    logit, label, patient = side(seed, 40, ties=seed % 2 == 0)
    goal = Goal(name)
    one = logit >= choose(goal, logit, label, patient, draws=0).threshold
    warped = np.exp(logit / 3) + logit
    other = warped >= choose(goal, warped, label, patient, draws=0).threshold
    np.testing.assert_array_equal(one, other)


def test_the_interval_holds_the_true_threshold_about_as_often_as_it_says() -> None:
    """Specificity 0.9 of a standard normal lies at 1.2816."""
    held = 0
    for seed in range(200):
        logit, label, patient = side(seed, 250)
        found = choose(Goal("specificity", at=0.9), logit, label, patient, draws=200, seed=seed).interval
        held += found.low <= 1.2815515655 <= found.high
    assert 0.88 <= held / 200 <= 0.99


def test_f_beta_of_examples_equals_scikit_learn() -> None:
    """1,000 nodules at 10 %: EAGER finds 90 of 100 with 270 false alarms, CAREFUL 50 with 27."""
    for example, found, alarms in ((EAGER, 90, 270), (CAREFUL, 50, 27)):
        label = np.repeat([1, 0], [100, 900])
        called = np.concatenate([np.arange(100) < found, np.arange(900) < alarms])
        for beta in (0.5, 2.0):
            expected = fbeta_score(label, called, beta=beta)
            assert example.f_beta(beta, 0.1) == pytest.approx(expected, rel=1e-12)


def test_a_beta_below_1_with_a_wish_for_recall_is_explained_with_numbers() -> None:
    told = explain_goal(Goal("f_beta", beta=0.5), "recall", 0.1)
    assert told is not None
    for part in (
        "favours precision",
        "F0.5 gives 0.29 and 0.61, so it takes the second",
        "F2 gives 0.59 and 0.52",
    ):
        assert part in told
    rare = explain_goal(Goal("f_beta", beta=0.5), "recall", 0.01)
    assert rare is not None
    assert "even F2 takes the second" in rare


@pytest.mark.parametrize(
    ("goal", "wish", "said"),
    [
        (Goal("f_beta", beta=2), "precision", "favours recall"),
        (Goal("f_beta", beta=2), "recall", None),
        (Goal("f_beta", beta=0.5), "precision", None),
        (Goal("f_beta", beta=0.5), None, None),
        (Goal("sensitivity"), "precision", "as many false alarms as it takes"),
        (Goal("sensitivity"), "recall", None),
        (Goal("specificity"), "recall", "recall is what is left"),
        (Goal("specificity"), "precision", None),
        (Goal("balanced_accuracy"), "precision", "a miss counts as much as 9 false alarms"),
        (Goal("balanced_accuracy"), "recall", None),
        (Goal("cost", miss_cost=10), "precision", "spares misses"),
        (Goal("cost", miss_cost=0.5), "recall", "spares alarms"),
    ],
)
def test_goals_against_wishes(goal: Goal, wish: str, said: str | None) -> None:
    told = explain_goal(goal, wish, 0.1)  # type: ignore[arg-type]
    assert told is None if said is None else told is not None and said in told

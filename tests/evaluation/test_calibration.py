"""Calibration against scikit-learn and simulated truth."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from tests.evaluation.sides import Floats, side
from toolkit.evaluation.bootstrap import patient_weights
from toolkit.evaluation.calibration import fit, log_odds, prior_shift
from toolkit.evaluation.logistic import fit_line, smoothed
from toolkit.evaluation.quality import equal_mass, expected_error, quality, wilson


def reference(x: Floats, target: Floats, weight: Floats | None = None) -> tuple[float, float]:
    """Fit fractional targets by counting each nodule for both classes."""
    weight = np.ones_like(x) if weight is None else weight
    model = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000, solver="newton-cholesky")
    both = np.concatenate([target, 1 - target]) * np.concatenate([weight, weight])
    model.fit(np.concatenate([x, x])[:, None], np.repeat([1, 0], len(x)), both)
    return float(model.coef_[0, 0]), float(model.intercept_[0])


@pytest.mark.parametrize("seed", range(3))
def test_lines_equal_scikit_learn_for_every_draw(seed: int) -> None:
    logit, label, patient = side(seed, 120)
    weights = patient_weights(patient, 8, seed).astype(np.float64)
    slopes, intercepts = fit_line(5 * logit + 100, label, weights)
    for slope, intercept, weight in zip(slopes, intercepts, weights, strict=True):
        expected = reference(logit, label, weight)
        assert slope * 5 == pytest.approx(expected[0], rel=1e-6)
        assert intercept + 100 * slope == pytest.approx(expected[1], rel=1e-6)


def test_platt_equals_scikit_learn_on_smoothed_targets() -> None:
    logit, label, _ = side(4, 200)
    n, positives = len(label), label.sum()
    target = np.where(label == 1, (positives + 1) / (positives + 2), 1 / (n - positives + 2))
    found = fit(logit, label, 0.1, 0.5)
    assert (found.method, found.prevalence) == ("platt", pytest.approx(positives / n))
    assert (found.slope, found.intercept) == pytest.approx(reference(logit, target), rel=1e-6)


def test_a_known_line_is_found_again() -> None:
    random = np.random.default_rng(5)
    logit = random.normal(scale=2, size=200_000)
    label = (random.random(len(logit)) < expit(0.6 * logit - 1.5)).astype(float)
    found = fit(logit, label, 0.1, 0.5)
    # standard errors are below 0.01
    assert found.slope == pytest.approx(0.6, abs=0.03)
    assert found.intercept == pytest.approx(-1.5, abs=0.03)


def test_separated_classes_keep_a_finite_slope() -> None:
    logit = np.concatenate([np.linspace(-3, -1, 30), np.linspace(1, 3, 12)])
    label = np.repeat([0.0, 1], [30, 12])
    found = fit(logit, label, 0.2, 0.5)
    assert found.method == "platt"
    assert (found.slope, found.intercept) == pytest.approx(reference(logit, smoothed(label)), rel=1e-6)
    assert np.isnan(fit_line(logit, label)).all()


@pytest.mark.parametrize(("positives", "method"), [(9, "shift"), (10, "platt")])
def test_too_few_nodules_exchange_the_prior_alone(positives: int, method: str) -> None:
    label = np.repeat([1.0, 0, np.nan], [positives, 40, 5])
    logit = np.random.default_rng(6).normal(size=len(label)) + np.nan_to_num(label)
    found = fit(logit, label, 0.1, 0.5)
    assert found.method == method
    if method == "shift":
        assert (found.slope, found.prevalence) == (1, 0.1)
        assert found.intercept == pytest.approx(-np.log(9))


def test_ranks_are_never_turned() -> None:
    logit, label, _ = side(7, 200)
    assert fit(-logit, label, 0.1, 0.5).method == "shift"
    assert fit(np.zeros(200), label, 0.1, 0.5).method == "shift"


def test_after_prior_correction_probabilities_are_calibrated_at_another_prevalence() -> None:
    """Two normal classes one apart: the log likelihood ratio is x - 1/2, exactly."""
    random = np.random.default_rng(8)

    def draw(n: int, share: float) -> tuple[Floats, Floats]:
        label = (random.random(n) < share).astype(float)
        return random.normal(size=n) + label, label

    x, label = draw(50_000, 0.3)
    found = fit(3 * x + 5, label, 0.3, 0.5)
    x, label = draw(50_000, 0.02)
    told = quality(found.logit(3 * x + 5, 0.02), label, np.arange(len(x)), 30, 0)
    # 1,000 positives: standard errors of about 0.03, those of the fit are smaller
    assert told.intercept.value == pytest.approx(0, abs=0.1)
    assert told.slope.value == pytest.approx(1, abs=0.1)
    uncorrected = quality(found.logit(3 * x + 5), label, np.arange(len(x)), 2, 0)
    assert uncorrected.intercept.value == pytest.approx(log_odds(0.02) - log_odds(0.3), abs=0.15)
    np.testing.assert_allclose(prior_shift(x, 0.5, 0.02), x + np.log(0.02 / 0.98), rtol=1e-12)


def test_quality_of_a_shifted_and_stretched_truth() -> None:
    random = np.random.default_rng(9)
    truth = random.normal(size=20_000) - 1
    label = (random.random(len(truth)) < expit(truth)).astype(float)
    told = quality(2 * truth + 1, label, np.arange(len(truth)), 60, 0)
    assert told.slope.low < 0.5 < told.slope.high
    assert told.slope.value == pytest.approx(reference(2 * truth + 1, label)[0], rel=1e-6)
    assert told.intercept.high < 0
    right = quality(truth, label, np.arange(len(truth)), 60, 0)
    assert right.brier.value == pytest.approx(brier_score_loss(label, expit(truth)), rel=1e-12)
    share = label.mean()
    skill = 1 - right.brier.value / (share * (1 - share))
    assert right.brier_skill.value == pytest.approx(skill)
    assert right.ece_by_chance.low <= right.ece <= right.ece_by_chance.high
    assert told.ece > told.ece_by_chance.high


def test_calibration_in_the_large_moves_the_mean_to_the_observed_share() -> None:
    logit, label, patient = side(10, 400)
    moved = quality(logit, label, patient, 5, 0).intercept.value
    assert expit(logit + moved).mean() == pytest.approx(label.mean(), abs=1e-9)


def test_expected_error_equals_a_naive_loop() -> None:
    random = np.random.default_rng(11)
    rising = np.sort(np.round(random.random(203), 1))
    label = (random.random(203) < rising).astype(float)
    ends = equal_mass(rising, 7)
    total, start = 0.0, 0
    for end in ends:
        some = slice(start, end)
        total += abs(rising[some].mean() - label[some].mean()) * (end - start) / len(rising)
        start = end
    assert start == len(rising)
    assert expected_error(rising, label[None], ends)[0] == pytest.approx(total)
    for a, b in zip(ends[:-1], ends[:-1], strict=True):
        assert rising[a - 1] < rising[b]  # equal probabilities share a bin


def test_bins_have_equal_mass_where_values_differ() -> None:
    assert np.diff(equal_mass(np.arange(1000.0), 10), prepend=0).tolist() == [100] * 10
    assert equal_mass(np.zeros(5), 10).tolist() == [5]


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (17, 400)])
def test_wilson_equals_scipy(k: int, n: int) -> None:
    expected = binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == pytest.approx((k / n, expected.low, expected.high), abs=1e-12)

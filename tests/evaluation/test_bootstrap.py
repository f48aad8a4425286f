"""The bootstrap of patients: what is drawn, and whether its intervals hold the truth as often as they say."""

import numpy as np
import pytest
from scipy.stats import binom, norm

from toolkit.evaluation.bootstrap import interval, patient_counts, patient_weights, resample
from toolkit.evaluation.metrics import auroc


def test_nodules_of_a_patient_are_drawn_together_and_each_draw_is_as_large() -> None:
    patient = np.array(["b", "a", "b", "c", "a", "a"])
    weights = patient_weights(patient, 500, 3)
    assert weights.shape == (500, 6)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 1], weights[:, 4])
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(axis=1), 3)


def test_draws_do_not_depend_on_the_order_of_lines_or_on_the_kind_of_name() -> None:
    patient = np.array([4, 2, 9, 2, 4])
    turned = np.array([3, 1, 4, 0, 2])
    weights = patient_weights(patient, 40, 1)
    np.testing.assert_array_equal(patient_weights(patient[turned], 40, 1), weights[:, turned])
    np.testing.assert_array_equal(patient_weights(patient.astype(np.str_), 40, 1), weights)
    assert (patient_weights(patient, 40, 2) != weights).any()


def test_counts_are_those_of_draws_with_replacement() -> None:
    counts = patient_counts(20, 20_000, 5)
    assert (counts.sum(axis=1) == 20).all()
    for times in range(4):
        expected = binom.pmf(times, 20, 1 / 20)
        # 400,000 counts; correlation within a row is slight
        assert (counts == times).mean() == pytest.approx(expected, abs=0.005)


def test_chunks_of_draws_are_the_draws() -> None:
    patient = np.random.default_rng(0).integers(0, 3000, 9000)
    weights = patient_weights(patient, 300, 4)  # more than is held at once

    def first(some: np.ndarray) -> np.ndarray:
        return some[:, :2]

    value, drawn = resample(first, patient, 300, 4)
    np.testing.assert_array_equal(value, [1, 1])
    np.testing.assert_array_equal(drawn, weights[:, :2])


def test_interval_takes_percentiles_and_leaves_out_what_is_not_defined() -> None:
    drawn = np.arange(1001, dtype=float)
    assert interval(500, drawn) == (500, 25, 975)
    some = drawn.copy()
    some[:50] = np.nan
    assert interval(500, some) == pytest.approx((500, 50 + 0.025 * 950, 50 + 0.975 * 950))
    some[:52] = np.nan
    assert np.isnan(interval(500, some)[1:]).all()
    assert np.isnan(interval(np.nan, drawn)).all()
    assert np.isnan(interval(1, np.empty(0))[1:]).all()


def test_95_percent_intervals_hold_the_truth_about_as_often() -> None:
    """Each patient has three nodules of one class that share most of their logit; the truth is analytic."""
    random = np.random.default_rng(11)
    share, gap, runs, patients = 0.8, 1.4, 250, 80
    truth = norm.cdf(gap / np.sqrt(2))
    held = naive = 0
    for run in range(runs):
        patient = np.repeat(np.arange(patients), 3)
        label = np.repeat(np.arange(patients) % 3 == 0, 3).astype(float)
        common = np.repeat(random.normal(size=patients), 3) * np.sqrt(share)
        logit = gap * label + common + random.normal(size=3 * patients) * np.sqrt(1 - share)
        for who in (patient, np.arange(len(patient))):
            value, drawn = resample(lambda w, x=logit, y=label: auroc(x, y, w)[:, None], who, 300, run)
            found = interval(value[0], drawn[:, 0])
            inside = found.low <= truth <= found.high
            if who is patient:
                held += inside
            else:
                naive += inside
    assert 0.90 <= held / runs <= 0.98
    assert naive / runs < 0.85  # drawing nodules, as if they were independent, promises too much

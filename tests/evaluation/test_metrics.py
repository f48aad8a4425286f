"""Metrics against scikit-learn and naive loops; speed is told by nobody here."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from tests.evaluation.sides import Floats, side
from toolkit.evaluation.bootstrap import patient_weights
from toolkit.evaluation.metrics import (
    auroc,
    average_precision,
    count,
    measure,
    paired,
    ranking,
    summarize,
    within_noise,
)
from toolkit.evaluation.results import to_json

CLOSE = 1e-12  # sums of at most a few hundred terms of size 1 in float64


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_metrics_equal_scikit_learn_with_weights(seed: int, ties: bool) -> None:
    logit, label, patient = side(seed, 200, ties=ties)
    weights = patient_weights(patient, 12, seed).astype(np.float64)
    area, precision = ranking(logit, label, weights)
    counts = count(logit >= 0.3, label, weights)
    for k, weight in enumerate(weights):
        how = {"sample_weight": weight}
        called = (logit >= 0.3).astype(int)
        assert area[k] == pytest.approx(reference.roc_auc_score(label, logit, **how), abs=CLOSE)
        expected = reference.average_precision_score(label, logit, **how)
        assert precision[k] == pytest.approx(expected, abs=CLOSE)
        assert counts.recall[k] == pytest.approx(reference.recall_score(label, called, **how), abs=CLOSE)
        specificity = reference.recall_score(1 - label, 1 - called, **how)
        assert counts.specificity[k] == pytest.approx(specificity, abs=CLOSE)
        assert counts.precision[k] == pytest.approx(
            reference.precision_score(label, called, **how), abs=CLOSE
        )
        balanced = reference.balanced_accuracy_score(label, called, **how)
        assert counts.balanced_accuracy[k] == pytest.approx(balanced, abs=CLOSE)
        for beta in (0.5, 1.0, 2.0):
            f_beta = reference.fbeta_score(label, called, beta=beta, **how)
            assert counts.f_beta(beta)[k] == pytest.approx(f_beta, abs=CLOSE)
        negative = reference.precision_score(1 - label, 1 - called, **how)
        assert counts.negative_predictive_value[k] == pytest.approx(negative, abs=CLOSE)


def test_loss_equals_scikit_learn() -> None:
    logit, label, _ = side(1)
    expected = reference.log_loss(label, 1 / (1 + np.exp(-logit)))
    assert measure("loss", logit, label)[0] == pytest.approx(expected, rel=1e-12)


def naive_auroc(logit: Floats, label: Floats, weight: Floats) -> float:
    won = total = 0.0
    for x, is_malignant, w in zip(logit, label, weight, strict=True):
        for y, other, v in zip(logit, label, weight, strict=True):
            if is_malignant == 1 and other == 0:
                won += w * v * (1.0 if x > y else 0.5 if x == y else 0.0)
                total += w * v
    return won / total if total else np.nan


def naive_average_precision(logit: Floats, label: Floats, weight: Floats) -> float:
    positives = (weight * label).sum()
    area = last = 0.0
    for cut in sorted(set(logit), reverse=True):
        called = logit >= cut
        found, all_called = (weight * label * called).sum(), (weight * called).sum()
        if all_called:
            area += (found / positives - last) * found / all_called
            last = found / positives
    return area


nodules = st.lists(
    st.tuples(st.integers(-3, 3), st.integers(0, 1), st.integers(0, 3)), min_size=1, max_size=12
)


@given(nodules)
def test_ranking_equals_naive_loops(lines: list[tuple[int, int, int]]) -> None:
    logit, label, weight = (np.array(column, np.float64) for column in zip(*lines, strict=True))
    area, precision = ranking(logit, label, weight[None])
    assert area[0] == pytest.approx(naive_auroc(logit, label, weight), abs=CLOSE, nan_ok=True)
    if (weight * label).sum():
        assert precision[0] == pytest.approx(naive_average_precision(logit, label, weight), abs=CLOSE)
    else:
        assert np.isnan(precision[0])


@given(nodules)
def test_counts_equal_naive_loops(lines: list[tuple[int, int, int]]) -> None:
    logit, label, weight = (np.array(column, np.float64) for column in zip(*lines, strict=True))
    counts = count(logit >= 1, label, weight[None])
    told = {"true_positive": 0, "false_negative": 0, "false_positive": 0, "true_negative": 0}
    names = {(1, True): "true_positive", (1, False): "false_negative", (0, True): "false_positive"}
    for x, y, w in lines:
        told[names.get((y, x >= 1), "true_negative")] += w
    assert {name: getattr(counts, name)[0] for name in told} == told


def test_rank_metrics_do_not_change_under_a_monotone_map() -> None:
    logit, label, patient = side(2)
    weights = patient_weights(patient, 20, 0).astype(np.float64)
    for metric in (auroc, average_precision):
        np.testing.assert_array_equal(
            metric(logit, label, weights), metric(np.exp(3 * logit), label, weights)
        )
    np.testing.assert_allclose(auroc(-logit, label, weights), 1 - auroc(logit, label, weights), atol=CLOSE)


def test_order_of_lines_changes_nothing() -> None:
    logit, label, patient = side(3, ties=True)
    turned = np.random.default_rng(0).permutation(len(logit))
    settings = {"threshold": 0.4, "prior": 0.5, "beta": 2.0, "draws": 50}
    one = summarize(logit, label, patient, **settings)
    other = summarize(logit[turned], label[turned], patient[turned], **settings)
    assert other.auroc == pytest.approx(one.auroc, abs=CLOSE)
    assert other.at_threshold.f_beta == pytest.approx(one.at_threshold.f_beta, abs=CLOSE)


def test_summary_says_what_scikit_learn_says() -> None:
    logit, label, patient = side(4)
    label[5:9] = np.nan
    told = summarize(logit, label, patient, threshold=0.7, prior=0.5, beta=0.5)
    known = ~np.isnan(label)
    x, y = logit[known], label[known]
    assert (told.nodules, told.positives) == (len(y), int(y.sum()))
    assert told.patients == len(set(patient[known].tolist()))
    assert told.auroc.value == pytest.approx(reference.roc_auc_score(y, x), abs=CLOSE)
    assert told.auroc.low < told.auroc.value < told.auroc.high
    assert told.at_half.recall.value == pytest.approx(reference.recall_score(y, x >= 0), abs=CLOSE)
    assert told.at_threshold.threshold == 0.7
    expected = reference.fbeta_score(y, x >= 0.7, beta=0.5)
    assert told.at_threshold.f_beta.value == pytest.approx(expected, abs=CLOSE)
    loss = [reference.log_loss(y[y == k], 1 / (1 + np.exp(-x[y == k])), labels=[0, 1]) for k in (1, 0)]
    assert told.loss_positive == pytest.approx(loss[0])
    assert told.loss_negative == pytest.approx(loss[1])
    assert told.loss == pytest.approx(sum(loss) / 2)


@pytest.mark.parametrize("label", [0.0, 1.0, None])
def test_one_class_or_none_gives_nan_and_no_exception(label: float | None) -> None:
    n = 0 if label is None else 5
    told = summarize(
        np.arange(n, dtype=float), np.full(n, label, float), np.arange(n), threshold=1, prior=0.5, beta=2
    )
    assert np.isnan([*told.auroc, told.loss, *told.at_half.balanced_accuracy]).all()
    assert '"auroc": [null, null, null]' in json.dumps(to_json(told), allow_nan=False)


def test_equal_seeds_give_equal_summaries() -> None:
    logit, label, patient = side(5)
    one, same, other = (
        to_json(summarize(logit, label, patient, threshold=0, prior=0.5, beta=2, draws=99, seed=seed))
        for seed in (7, 7, 8)
    )
    assert one == same
    assert one != other


def test_large_logits_overflow_nowhere() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = summarize(
            np.array([1e5, -1e5, 3.0, -1e5]),
            np.array([0.0, 1, 1, 0]),
            np.arange(4),
            threshold=0,
            prior=0.5,
            beta=1,
        )
    assert told.loss_negative == pytest.approx(5e4)


def test_paired_difference_of_equal_logits_is_nothing() -> None:
    logit, label, patient = side(6)
    assert paired("auroc", logit, 2 * logit, label, patient, 100) == (0, 0, 0)


def test_pairing_narrows_the_interval() -> None:
    logit, label, patient = side(7, 600)
    other = logit + np.random.default_rng(1).normal(scale=0.2, size=len(logit))
    apart = paired("auroc", logit, other, label, patient, 500)
    alone = summarize(logit, label, patient, threshold=0, prior=0.5, beta=2, draws=500).auroc
    expected = reference.roc_auc_score(label, logit) - reference.roc_auc_score(label, other)
    assert apart.value == pytest.approx(expected, abs=CLOSE)
    assert apart.high - apart.low < 0.5 * (alone.high - alone.low)


def test_paired_interval_of_auroc_agrees_with_delong() -> None:
    """DeLong, DeLong and Clarke-Pearson 1988, with every nodule its own patient."""
    logit, label, _ = side(8, 800, 0.3)
    other = logit + np.random.default_rng(2).normal(size=len(logit))
    malignant = label == 1
    placed = []
    for x in (logit, other):
        wins = (x[malignant][:, None] > x[~malignant][None]).astype(float)
        placed.append((wins.mean(axis=1), wins.mean(axis=0)))
    variance = sum(np.var(placed[0][k] - placed[1][k], ddof=1) / len(placed[0][k]) for k in (0, 1))
    got = paired("auroc", logit, other, label, np.arange(len(label)), 4000)
    # the width of a percentile interval from 4,000 draws is known to about 2 %
    assert (got.high - got.low) / (2 * 1.96) == pytest.approx(np.sqrt(variance), rel=0.06)


def test_a_lucky_peak_lies_within_the_noise_and_a_worse_epoch_does_not() -> None:
    logit, label, patient = side(9, 500)
    random = np.random.default_rng(3)
    epochs = np.stack([logit + random.normal(scale=0.05, size=len(logit)) for _ in range(6)])
    epochs[0] = random.normal(size=len(logit))
    best = int(np.argmax([reference.roc_auc_score(label, each) for each in epochs]))
    inside = within_noise(epochs.astype(np.float32), label, patient, best)
    assert inside.tolist() == [False] + [True] * 5
    assert paired("auroc", epochs[best], epochs[0], label, patient).low > 0

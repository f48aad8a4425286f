"""Influence against derivatives of scikit-learn's weighted metrics, and its errors against simulation."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, fbeta_score, log_loss, recall_score, roc_auc_score

from toolkit.evaluation.influence import MetricName, influence, standard_error

METRICS: list[MetricName] = ["auroc", "average_precision", "balanced_accuracy", "f_beta", "recall", "loss"]
THRESHOLD, BETA, PRIOR = 0.3, 1.5, 0.4
Floats = NDArray[np.float64]


def nodules(
    seed: int, count: int = 120, *, ties: bool = True
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    label = (rng.random(count) < 0.3).astype(np.int64)
    logit = rng.normal(size=count) + label
    return np.round(logit, 1) if ties else logit, label, rng.integers(0, count // 3, count)


def reference(metric: MetricName, logit: Floats, label: NDArray[np.int64], weight: Floats) -> float:
    called = logit >= THRESHOLD
    if metric == "auroc":
        return float(roc_auc_score(label, logit, sample_weight=weight))
    if metric == "average_precision":
        return float(average_precision_score(label, logit, sample_weight=weight))
    if metric == "f_beta":
        return float(fbeta_score(label, called, beta=BETA, sample_weight=weight))
    if metric == "recall":
        return float(recall_score(label, called, sample_weight=weight))
    if metric == "balanced_accuracy":
        both = [recall_score(label, called, sample_weight=weight, pos_label=side) for side in (0, 1)]
        return float(np.mean(both))
    probability = 1 / (1 + np.exp(-logit))
    of = [
        log_loss(
            label[label == side],
            probability[label == side],
            sample_weight=weight[label == side],
            labels=[0, 1],
        )
        for side in (0, 1)
    ]
    return float(-(PRIOR * of[1] + (1 - PRIOR) * of[0]))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("ties", [False, True])
def test_is_the_derivative_by_a_patients_weight(metric: MetricName, ties: bool) -> None:
    logit, label, patient = nodules(3, ties=ties)
    found = influence(metric, logit, label, patient, threshold=THRESHOLD, beta=BETA, prior=PRIOR)
    step = 1e-5
    for index, name in enumerate(np.unique(patient)):
        mine = (patient == name).astype(np.float64)
        up, down = (reference(metric, logit, label, 1 + sign * step * mine) for sign in (1, -1))
        # a central difference is off by step^2 and by rounding / step
        assert found[index] == pytest.approx((up - down) / (2 * step), abs=1e-9)
    assert found.sum() == pytest.approx(0, abs=1e-12)


def test_is_delong_where_each_patient_has_one_nodule() -> None:
    logit, label, _ = nodules(1)
    moves = influence("auroc", logit, label, np.arange(len(label)))
    malignant, benign = logit[label == 1], logit[label == 0]
    beats = np.sign(malignant[:, None] - benign[None]) / 2 + 0.5
    delong = beats.mean(1).var() / len(malignant) + beats.mean(0).var() / len(benign)
    count = len(label)
    assert standard_error(moves) ** 2 == pytest.approx(delong * count / (count - 1), rel=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_error_is_the_spread_over_samples_of_patients(metric: MetricName) -> None:
    """Nodules of a patient resemble each other: an error that ignored it would be a third too small."""
    rng = np.random.default_rng(5)
    values, errors, naive = [], [], []
    for _ in range(300):
        patient = np.repeat(np.arange(80), 4)
        label = (rng.random(80) < 0.4).astype(np.int64)[patient]
        logit = 1.2 * label + 1.2 * rng.normal(size=80)[patient] + 0.5 * rng.normal(size=320)
        values.append(reference(metric, logit, label, np.ones(320)))
        settings = {"threshold": THRESHOLD, "beta": BETA, "prior": PRIOR}
        errors.append(standard_error(influence(metric, logit, label, patient, **settings)))
        naive.append(standard_error(influence(metric, logit, label, np.arange(320), **settings)))
    # the spread of 300 samples is known to 4 % (one standard error): three of them
    assert np.mean(errors) / np.std(values) == pytest.approx(1, abs=0.12)
    assert np.mean(naive) < 0.75 * np.std(values)


def test_a_paired_difference_needs_no_draws() -> None:
    """Two models that agree differ by less than their own errors say."""
    rng = np.random.default_rng(7)
    differences, errors, alone = [], [], []
    for _ in range(300):
        label = (np.arange(200) < 50).astype(np.int64)
        base = rng.normal(size=200) + label
        one, two = (base + 0.3 * rng.normal(size=200) for _ in range(2))
        differences.append(roc_auc_score(label, one) - roc_auc_score(label, two))
        a, b = (influence("auroc", logit, label, np.arange(200)) for logit in (one, two))
        errors.append(standard_error(a - b))
        alone.append(standard_error(a))
    assert np.mean(errors) / np.std(differences) == pytest.approx(1, abs=0.12)
    assert np.mean(alone) > 2 * np.mean(errors)


def test_what_is_not_scored_moves_nothing() -> None:
    logit, label, patient = nodules(2)
    known = np.where(np.arange(len(label)) % 5 == 0, np.nan, label)
    found = influence("auroc", logit, known, patient)
    kept = ~np.isnan(known)
    less = influence("auroc", logit[kept], known[kept], patient[kept])
    assert found[np.isin(np.unique(patient), np.unique(patient[kept]))] == pytest.approx(less, abs=0)


@pytest.mark.parametrize("metric", METRICS)
def test_one_class_is_not_defined(metric: MetricName) -> None:
    assert np.isnan(influence(metric, [0.1, 0.2], [1, 1], ["a", "b"])).all()

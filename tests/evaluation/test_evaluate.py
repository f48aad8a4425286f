"""The evaluation of a side, against scikit-learn, Bayes and nodules whose answer is known."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn import metrics as reference

from tests.evaluation.sides import Floats
from toolkit.errors import UsageError
from toolkit.evaluation.baseline import fit_diameter
from toolkit.evaluation.calibration import log_odds
from toolkit.evaluation.evaluate import evaluate
from toolkit.evaluation.evaluation import Evaluation, read_evaluation, write_evaluation
from toolkit.evaluation.pooled import take
from toolkit.evaluation.predictions import Predictions
from toolkit.evaluation.results import to_json
from toolkit.evaluation.thresholds import Goal

PLAIN, PREVALENCE, THRESHOLD = 0.2, 0.05, 0.4


def predicted(
    n: int = 400, repeats: int = 0, seed: int = 0, image: float = 1.0, size: float = 1.0
) -> Predictions:
    """Return predictions of n nodules; `image` and `size` are what the score knows beyond size and of it.

    The calibrated logit is 1.2 x raw - 1. Nobody measured one diameter in 17.
    """
    random = np.random.default_rng(seed)
    label = (random.random(n) < PLAIN).astype(float)
    diameter = np.exp(random.normal(2, 0.4, n) + 0.5 * label)
    patient = np.array([f"p{k:04d}" for k in random.integers(0, 2 * n // 3, n)])
    name = np.array([f"n{k:04d}" for k in range(n)])
    parts = []
    for repeat in range(max(repeats, 1)):
        logit = random.normal(size=n) + image * label + size * (np.log(diameter) - 2)
        fold = [f"repeat {repeat + 1} fold {k % 5 + 1}" if repeats else "holdout" for k in range(n)]
        calibrated = 1.2 * logit - 1
        chance = expit(calibrated + log_odds(PREVALENCE) - log_odds(PLAIN))
        decision = (logit >= THRESHOLD).astype(np.int64)
        known = np.where(np.arange(n) % 17 == 3, np.nan, diameter)
        parts.append(
            (np.array(fold), name, patient, patient, label, label, logit, calibrated, chance,
             np.full(n, THRESHOLD), decision, known)
        )  # fmt: skip
    return Predictions(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def size_logit(lines: Predictions) -> Floats:
    return fit_diameter(lines.diameter_mm, lines.label).logit(lines.diameter_mm)


def evaluated(lines: Predictions, **settings: object) -> Evaluation:
    how = {
        "baseline": size_logit(lines), "goal": Goal("sensitivity"), "beta": 2.0, "prevalence": PREVALENCE,
        "plain_prior": PLAIN, "prior": 0.5, "draws": 200,
    }  # fmt: skip
    return evaluate(lines, **{**how, **settings})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def lines() -> Predictions:
    return predicted()


@pytest.fixture(scope="module")
def found(lines: Predictions) -> Evaluation:
    share = np.linspace(0, 1, len(lines))
    spacing = {
        case: (1.25 if k % 2 else 5.0, 0.7) for k, case in enumerate(sorted({*lines.case_id.tolist()}))
    }
    return evaluated(lines, solid_share=share, spacing_mm=spacing)


def test_headline_numbers_equal_scikit_learn(lines: Predictions, found: Evaluation) -> None:
    assert (found.nodules, found.positives, found.unscored) == (400, int(lines.label.sum()), 0)
    assert found.patients == len({*lines.patient_id.tolist()})
    assert found.auroc.value == pytest.approx(reference.roc_auc_score(lines.label, lines.logit))
    precision = reference.average_precision_score(lines.label, lines.logit)
    assert found.average_precision.value == pytest.approx(precision)
    size = reference.roc_auc_score(lines.label, size_logit(lines))
    assert found.baseline.auroc.value == pytest.approx(size)
    assert found.baseline.auroc_difference.value == pytest.approx(found.auroc.value - size)
    assert found.auroc.low < found.auroc.value < found.auroc.high


def test_the_frozen_threshold_is_the_decision_column(lines: Predictions, found: Evaluation) -> None:
    (true_negative, false_positive), (false_negative, true_positive) = reference.confusion_matrix(
        lines.label, lines.decision
    )
    at = found.frozen
    told = (at.true_negative, at.false_positive, at.false_negative, at.true_positive)
    assert told == (true_negative, false_positive, false_negative, true_positive)
    assert at.basis == "validation"
    assert at.recall.value == pytest.approx(true_positive / (true_positive + false_negative))
    assert at.negative_predictive_value.value == pytest.approx(
        true_negative / (true_negative + false_negative)
    )
    assert at.f_beta.value == pytest.approx(reference.fbeta_score(lines.label, lines.decision, beta=2))
    assert found.parts[0].threshold == THRESHOLD


def test_points_for_illustration_serve_their_goals(lines: Predictions, found: Evaluation) -> None:
    assert {each.basis for each in found.points} == {"this side"}
    by_goal = {each.goal: each for each in found.points}
    assert by_goal["sensitivity of at least 0.95"].recall.value >= 0.95
    assert by_goal["specificity of at least 0.9"].specificity.value >= 0.9
    assert by_goal["largest F-beta, beta 0.5"].beta == 0.5
    for each in found.points:
        called = lines.calibrated >= each.threshold.value
        assert each.recall.value == pytest.approx(reference.recall_score(lines.label, called))
        assert ((lines.probability >= each.probability) == called).all()


def test_a_declared_prevalence_moves_no_decision(lines: Predictions, found: Evaluation) -> None:
    shift = log_odds(0.5) - log_odds(PREVALENCE)
    other = evaluated(
        replace(lines, probability=expit(np.log(lines.probability / (1 - lines.probability)) + shift)),
        prevalence=0.5,
    )
    assert to_json(other.frozen) == to_json(found.frozen)
    assert [each.threshold for each in other.points] == [each.threshold for each in found.points]


def test_predictive_values_are_those_of_bayes(found: Evaluation) -> None:
    recall, specificity = found.frozen.recall.value, found.frozen.specificity.value
    assert [each.prevalence for each in found.predictive] == [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5]
    for each in found.predictive:
        share = each.prevalence
        right = share * recall / (share * recall + (1 - share) * (1 - specificity))
        assert each.positive.value == pytest.approx(right)
        cleared = (1 - share) * specificity
        assert each.negative.value == pytest.approx(cleared / (cleared + share * (1 - recall)))
        assert each.positive.low < each.positive.value < each.positive.high


def test_net_benefit_equals_its_definition_on_nodules_weighted_to_the_prevalence(
    lines: Predictions, found: Evaluation
) -> None:
    curve = found.decision_curve
    share = lines.label.mean()
    weight = np.where(lines.label == 1, PREVALENCE / share, (1 - PREVALENCE) / (1 - share)) / len(lines)
    for at, model, everyone in zip(curve.thresholds, curve.model, curve.treat_all, strict=True):
        called = lines.probability >= at
        odds = at / (1 - at)
        expected = (weight * called * np.where(lines.label == 1, 1, -odds)).sum()
        assert model.value == pytest.approx(expected, abs=1e-12)
        assert everyone == pytest.approx(PREVALENCE - (1 - PREVALENCE) * odds)
    assert max(curve.thresholds) == 0.5


def test_curves_hold_the_areas_and_lie_in_their_bands(lines: Predictions, found: Evaluation) -> None:
    assert len(found.roc.x) <= 400
    area = np.trapezoid(found.roc.y, found.roc.x)
    assert area == pytest.approx(found.auroc.value, abs=1e-9)  # few enough nodules to keep every corner
    assert (found.roc.x[0], found.roc.y[0], found.roc.x[-1], found.roc.y[-1]) == (0, 0, 1, 1)
    for curve in (found.roc, found.precision_recall):
        assert all(each.low <= each.value <= each.high for each in curve.band)
    precision, recall, _ = reference.precision_recall_curve(lines.label, lines.logit)
    for x, each in zip(found.precision_recall.grid, found.precision_recall.band, strict=True):
        highest = max(k for k in range(len(recall)) if recall[k] >= x - 1e-9)
        assert each.value == pytest.approx(precision[highest])


def test_subgroups_equal_scikit_learn_and_few_are_said_to_be_few(
    lines: Predictions, found: Evaluation
) -> None:
    by = {(each.by, each.name): each for each in found.subgroups}
    inside = (lines.diameter_mm >= 8) & (lines.diameter_mm < 15)
    told = by["diameter", "8 to 15 mm"]
    assert (told.nodules, told.positives) == (int(inside.sum()), int(lines.label[inside].sum()))
    assert told.auroc.value == pytest.approx(
        reference.roc_auc_score(lines.label[inside], lines.logit[inside])
    )
    called = lines.decision[inside]
    assert told.recall.value == pytest.approx(reference.recall_score(lines.label[inside], called))
    few = [each for each in found.subgroups if each.note]
    assert few
    for each in few:
        assert each.note.startswith("too few: ")
        assert np.isnan(each.auroc).all()
    unknown = by["diameter", "unknown"]
    assert unknown.nodules == int(np.isnan(lines.diameter_mm).sum())
    for name in ("diameter", "solidity", "slice spacing"):
        assert sum(each.nodules for each in found.subgroups if each.by == name) == 400
    assert {name for by, name in by if by == "slice spacing"} == {"up to 1.25 mm", "above 2.5 mm"}


def test_worst_misses_are_the_surest_wrong_ones(lines: Predictions, found: Evaluation) -> None:
    missed = np.flatnonzero((lines.label == 1) & (lines.decision == 0))
    expected = lines.nodule_id[missed[np.argsort(lines.logit[missed])]][:12].tolist()
    assert [each.nodule_id for each in found.false_negatives] == expected
    assert [each.label for each in found.false_positives] == [0] * 12
    chances = [each.probability for each in found.false_positives]
    assert chances == sorted(chances, reverse=True)


def test_calibration_before_and_after(found: Evaluation) -> None:
    raw, moved, after = (found.calibration[name] for name in ("raw", "prior corrected", "calibrated"))
    assert moved.slope == pytest.approx(raw.slope, rel=1e-6)
    shift = log_odds(0.5) - log_odds(PLAIN)
    assert moved.slope.value / 1.2 == pytest.approx(after.slope.value, rel=1e-6)
    assert raw.intercept.value < moved.intercept.value < raw.intercept.value + shift + 0.5


@pytest.mark.parametrize(
    ("image", "size", "said"), [(1.5, 1.0, "The image adds"), (-1.0, 0.0, "The model is worse than size")]
)
def test_the_verdict_on_size(image: float, size: float, said: str) -> None:
    told = evaluated(predicted(500, image=image, size=size))
    assert told.baseline.verdict.startswith(said)
    assert told.baseline.verdict in told.sentences


def test_a_model_that_knows_only_size_is_not_said_to_add_anything(lines: Predictions) -> None:
    logit = 3 * size_logit(lines)
    decision = (logit >= THRESHOLD).astype(np.int64)
    told = evaluated(replace(lines, logit=logit, calibrated=logit, decision=decision))
    assert told.baseline.auroc_difference == (0, 0, 0)
    assert told.baseline.verdict.startswith("It is not shown")
    nobody = replace(lines, diameter_mm=np.full(len(lines), np.nan))
    assert evaluated(nobody).baseline.verdict.startswith("Nobody measured")


def test_repeats_are_pooled_each_and_then_averaged() -> None:
    lines = predicted(300, repeats=3)
    told = evaluated(lines)
    assert (told.nodules, told.repeats, len(told.parts)) == (300, 3, 15)
    areas = []
    for repeat in range(3):
        some = np.char.startswith(lines.partition, f"repeat {repeat + 1} ")
        areas.append(reference.roc_auc_score(lines.label[some], lines.calibrated[some]))
    assert told.auroc.value == pytest.approx(np.mean(areas))
    fold = lines.partition == "repeat 2 fold 4"
    part = next(each for each in told.parts if each.partition == "repeat 2 fold 4")
    assert part.auroc == pytest.approx(reference.roc_auc_score(lines.label[fold], lines.logit[fold]))
    counted = told.frozen.true_positive + told.frozen.false_negative
    assert counted == pytest.approx(told.positives)
    assert sum(each.nodules for each in told.calibration["raw"].bins) == 300
    assert len({each.nodule_id for each in told.false_negatives}) == len(told.false_negatives)


def test_the_same_repeat_twice_makes_no_interval_narrower() -> None:
    once = predicted(200)
    twice = Predictions(
        *(np.concatenate([getattr(once, name)] * 2) for name in Predictions.__dataclass_fields__)
    )
    names = np.repeat(["repeat 1 fold 1", "repeat 2 fold 1"], 200)
    one, two = evaluated(once), evaluated(replace(twice, partition=names))
    assert two.auroc == pytest.approx(one.auroc)
    assert two.frozen.recall == pytest.approx(one.frozen.recall)
    assert two.calibration["raw"].slope == pytest.approx(one.calibration["raw"].slope)
    assert two.calibration["raw"].bins == one.calibration["raw"].bins


def test_a_perfect_side_promises_no_more_than_its_patients_can(lines: Predictions) -> None:
    """None of 60 missed: 3 / 60 may still be, by the rule of three (3.7 at 2.5 %)."""
    n = 120
    label = np.repeat([1.0, 0.0], 60)
    some = take(lines, np.arange(n))
    logit = np.where(label == 1, 2.0, -2.0) + np.linspace(0, 0.1, n)
    perfect = replace(
        some, label=label, logit=logit, calibrated=logit, probability=expit(logit),
        decision=(logit >= THRESHOLD).astype(np.int64), patient_id=some.nodule_id,
    )  # fmt: skip
    told = evaluated(perfect, baseline=np.zeros(n), prevalence=0.2)
    low = 0.025 ** (1 / 60)
    for each in (told.auroc, told.frozen.recall, told.frozen.specificity, told.frozen.precision):
        assert each == pytest.approx((1, low, 1))
    (at,) = (each for each in told.predictive if each.prevalence == 0.2)
    assert at.negative.low == pytest.approx(0.8 / (0.8 + 0.2 * (1 - low)))
    assert np.isnan(told.calibration["raw"].slope.value)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(6, 30), st.booleans(), st.integers(0, 2))
def test_small_and_degenerate_sides_end_in_a_file(seed: int, n: int, ties: bool, repeats: int) -> None:
    """As few as two nodules of a class, equal logits, all of one patient: warnings are errors here."""
    lines = predicted(n, repeats, seed)
    label = np.tile((np.arange(n) % max(2, n // 2) < 1).astype(float), max(repeats, 1))
    label[np.isin(lines.nodule_id, ["n0001"])] = 1
    logit = np.round(lines.logit) * (0 if ties else 1)
    some = replace(
        lines, label=label, logit=logit, calibrated=logit, probability=expit(logit),
        decision=(logit >= THRESHOLD).astype(np.int64),
        patient_id=np.full(len(lines), "p") if seed % 3 == 0 else lines.patient_id,
    )  # fmt: skip
    told = evaluated(some, baseline=np.zeros(len(some)), draws=20)
    json.dumps(to_json(told), allow_nan=False)
    assert not re.search(r"\bnan\b", " ".join(told.sentences))


def test_unscored_lines_are_counted_and_left_out(lines: Predictions, found: Evaluation) -> None:
    more = Predictions(
        *(
            np.concatenate([getattr(lines, name)[:7], getattr(lines, name)])
            for name in Predictions.__dataclass_fields__
        )
    )
    label = more.label.copy()
    label[:7] = np.nan
    names = more.nodule_id.copy()
    names[:7] = [f"x{k}" for k in range(7)]
    share = np.concatenate([np.full(7, 0.5), np.linspace(0, 1, 400)])
    told = evaluated(
        replace(more, label=label, nodule_id=names),
        baseline=np.concatenate([np.zeros(7), size_logit(lines)]),
        solid_share=share,
    )
    assert told.unscored == 7
    assert told.auroc == found.auroc
    solid = [each for each in told.subgroups if each.by == "solidity"]
    assert solid == [each for each in found.subgroups if each.by == "solidity"]


def test_too_few_of_a_class_is_refused_with_counts(lines: Predictions) -> None:
    first = int(np.flatnonzero(lines.label == 1)[0])
    some = take(lines, (lines.label == 0) | (np.arange(len(lines)) == first))
    with pytest.raises(UsageError, match=r"E-EVAL-001 .*1 malignant and"):
        evaluated(some, baseline=np.zeros(len(some)))


def test_contradictions_are_refused(lines: Predictions) -> None:
    turned = replace(lines, decision=1 - lines.decision)
    with pytest.raises(UsageError, match=r"E-EVAL-002 .*a decision is not"):
        evaluated(turned)
    names = lines.nodule_id.copy()
    names[1] = names[0]
    with pytest.raises(UsageError, match=r"E-EVAL-002 .*a nodule has two"):
        evaluated(replace(lines, nodule_id=names))
    threshold = lines.threshold.copy()
    threshold[0] += 1e-9
    with pytest.raises(UsageError, match=r"E-EVAL-002 .*2 thresholds in one partition"):
        evaluated(replace(lines, threshold=threshold))


def test_the_file_comes_back_and_equal_evaluations_give_equal_bytes(
    tmp_path: Path, lines: Predictions, found: Evaluation
) -> None:
    path = tmp_path / "evaluation.json"
    write_evaluation(path, found)
    value = read_evaluation(path)
    assert value["auroc"] == list(found.auroc)
    assert value["frozen"]["threshold"] == [None, None, None]
    assert value["calibration"]["raw"]["bins"][0]["nodules"] == 40
    first = path.read_bytes()
    turned = np.random.default_rng(1).permutation(len(lines))
    share = np.linspace(0, 1, len(lines))[turned]
    spacing = {
        case: (1.25 if k % 2 else 5.0, 0.7) for k, case in enumerate(sorted({*lines.case_id.tolist()}))
    }
    again = evaluated(lines, solid_share=np.linspace(0, 1, len(lines)), spacing_mm=spacing)
    write_evaluation(path, again)
    assert path.read_bytes() == first
    other = evaluated(
        take(lines, turned), baseline=size_logit(lines)[turned], solid_share=share, spacing_mm=spacing
    )
    assert other.auroc == pytest.approx(found.auroc, abs=1e-12)
    assert other.frozen.recall == pytest.approx(found.frozen.recall, abs=1e-12)


@pytest.mark.parametrize("spoil", [lambda data: data[:-9], lambda data: data.replace(b"auroc", b"euroc", 1)])
def test_a_damaged_evaluation_is_refused(tmp_path: Path, found: Evaluation, spoil: object) -> None:
    path = tmp_path / "evaluation.json"
    write_evaluation(path, found)
    path.write_bytes(spoil(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(UsageError, match="E-EVAL-004"):
        read_evaluation(path)
    path.unlink()
    with pytest.raises(UsageError, match="E-EVAL-004"):
        read_evaluation(path)


def test_the_diameter_model_equals_scikit_learn_and_knows_what_to_do_without_a_diameter() -> None:
    from sklearn.linear_model import LogisticRegression

    lines = predicted(300)
    filled = np.where(np.isnan(lines.diameter_mm), np.nanmedian(lines.diameter_mm), lines.diameter_mm)
    model = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(np.log(filled)[:, None], lines.label)
    told = fit_diameter(lines.diameter_mm, lines.label)
    expected = model.decision_function(np.log(filled)[:, None])
    np.testing.assert_allclose(told.logit(lines.diameter_mm), expected, rtol=1e-4, atol=1e-5)
    nothing = fit_diameter(np.full(10, np.nan), np.repeat([0.0, 1], [8, 2]))
    np.testing.assert_allclose(nothing.logit(np.array([np.nan, 5.0])), np.log(0.2 / 0.8))
    apart = fit_diameter(np.array([3.0, 4, 5, 20, 30]), np.array([0.0, 0, 0, 1, 1]))
    assert np.isfinite(apart.slope)
    assert apart.slope > 0
    with pytest.raises(UsageError, match="E-EVAL-001"):
        fit_diameter(np.ones(3), np.zeros(3))

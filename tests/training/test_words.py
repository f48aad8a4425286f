"""Plain words about runs whose truth is known."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, fbeta_score, recall_score, roc_auc_score

from tests.training.curves import records, summary
from toolkit.evaluation.influence import influence, standard_error
from toolkit.evaluation.results import Interval
from toolkit.training.change import ENDS, Validation, change, paired_error
from toolkit.training.config import Selection
from toolkit.training.record import EpochRecord
from toolkit.training.stopping import judge
from toolkit.training.words import Finding, is_peak_real, overfitting, why_recall_falls

Floats = NDArray[np.float64]
NODULES, EPOCHS = 400, 40
LABEL = (np.arange(NODULES) < 40).astype(np.float64)
PATIENT = np.arange(NODULES) // 2
TIME = np.arange(EPOCHS)
STILL = np.zeros(EPOCHS)


def world(separation: Floats, shift: Floats, seed: int, noise: float = 0.5) -> Floats:
    """Logits of networks that separate classes by so much and lean by so much; what differs else is noise."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=NODULES)
    return np.array(
        [
            latent + LABEL * each + lean + noise * rng.normal(size=NODULES)
            for each, lean in zip(separation, shift, strict=True)
        ]
    )


def told_by(logits: Floats) -> list[EpochRecord]:
    """The records of such a run, with intervals as wide as they are, and thresholds that call a fifth."""
    made = records(logits, LABEL, [float(np.quantile(logit, 0.8)) for logit in logits])
    moves = [influence("auroc", logit, LABEL, PATIENT) for logit in logits]
    best = judge([each.val.auroc.value for each in made], moves, Selection()).best_epoch
    for k, (record, logit) in enumerate(zip(made, logits, strict=True)):
        val, at = record.val, record.val.at_threshold
        half = replace(val.at_half, recall=width(val.at_half.recall, "recall", logit, 0.0))
        chosen = replace(at, recall=width(at.recall, "recall", logit, at.threshold))
        val = replace(val, auroc=width(val.auroc, "auroc", logit, 0.0), at_half=half, at_threshold=chosen)
        made[k] = replace(record, val=val, train=val, best_epoch=best)
    return made


def width(value: Interval, metric: object, logit: Floats, threshold: float) -> Interval:
    error = standard_error(influence(metric, logit, LABEL, PATIENT, threshold=threshold))  # type: ignore[arg-type]
    return Interval(value.value, value.value - error * ENDS / 2, value.value + error * ENDS / 2)


CONSTANT = np.full(EPOCHS, 1.5)
DRIFT = 0.5 - TIME * 0.06


def recall_of(
    separation: Floats, shift: Floats, runs: int = 20
) -> tuple[Counter[str], Counter[str], Finding]:
    alone, paired = Counter[str](), Counter[str]()
    for seed in range(runs):
        logits = world(separation, shift, seed)
        made = told_by(logits)
        found = why_recall_falls(made)
        alone[found.kind] += 1
        paired[why_recall_falls(made, Validation(logits, LABEL, PATIENT)).kind] += 1
    return alone, paired, found


def test_the_records_of_these_tests_are_right() -> None:
    logit = world(CONSTANT, STILL, 0)[0]
    found = summary(logit, LABEL, 0.3)
    assert found.auroc.value == pytest.approx(roc_auc_score(LABEL, logit), abs=1e-12)
    assert found.average_precision.value == pytest.approx(average_precision_score(LABEL, logit), abs=1e-12)
    assert found.at_threshold.recall.value == pytest.approx(recall_score(LABEL, logit >= 0.3), abs=1e-12)
    assert found.at_threshold.f_beta.value == pytest.approx(
        fbeta_score(LABEL, logit >= 0.3, beta=2), abs=1e-12
    )


def test_a_drifting_threshold_is_told_from_a_falling_ranking() -> None:
    alone, paired, found = recall_of(np.linspace(1.3, 1.9, EPOCHS), DRIFT)
    assert alone["threshold"] >= 19
    assert paired["threshold"] >= 18
    text = " ".join(found.evidence)
    assert "Recall at 0.5 fell: " in text
    assert "AUROC fell: " not in text
    assert "Recall at the chosen threshold fell: " not in text
    assert "Loss of malignant nodules rose: " in text
    assert "Loss of benign nodules fell: " in text
    assert "Their mean, weighted as in training, fell: " in text
    assert found.figures["recall"] < -0.3
    assert found.figures["auroc"] > -0.03


def test_a_falling_ranking_is_said_to_fall() -> None:
    alone, paired, found = recall_of(1.5 - np.maximum(TIME - 10, 0) * 0.04, STILL - 0.5)
    assert alone["ranking"] >= 19
    assert paired["ranking"] >= 19
    assert (
        f"epoch {told_by(world(1.5 - np.maximum(TIME - 10, 0) * 0.04, STILL - 0.5, 19))[-1].best_epoch} are"
        in (found.answer)
    )


def test_a_small_fall_of_the_ranking_is_seen_in_the_paired_difference() -> None:
    """Interval by interval the two epochs overlap by half."""
    alone, paired, _ = recall_of(1.5 - np.maximum(TIME - 10, 0) * 0.012, DRIFT)
    assert paired["ranking"] > alone["ranking"]


def test_noise_is_not_explained() -> None:
    alone, paired, found = recall_of(CONSTANT, STILL - 0.5)
    assert alone["none"] == 20
    assert paired["none"] >= 18
    assert "luck" in found.answer


def test_a_goal_that_lets_recall_fall_is_named() -> None:
    logits = world(CONSTANT, STILL, 0)
    made = told_by(logits + DRIFT[:, None])
    strict = [
        replace(each, val=replace(each.val, at_threshold=each.val.at_half)) for each in made
    ]  # the threshold stays at 0.5
    assert why_recall_falls(strict).kind == "goal"


def test_few_epochs_are_said_to_be_few() -> None:
    made = told_by(world(CONSTANT, STILL, 0))[:9]
    for found in (why_recall_falls(made), overfitting(made)):
        assert found.kind == "short"
        assert found.answer == "9 epochs are too few to tell; 10 are needed."


def trained(logits: Floats, train: Floats) -> list[EpochRecord]:
    """Records with another training side: new nodules, separated by `train`."""
    rng = np.random.default_rng(99)
    half = 0.05
    sides = [summary(rng.normal(size=NODULES) + LABEL * each, LABEL, half=half) for each in train]
    return [replace(each, train=side) for each, side in zip(told_by(logits), sides, strict=True)]


@pytest.mark.parametrize(
    ("kind", "separation", "scale", "train"),
    [
        ("none", CONSTANT, np.ones(EPOCHS), CONSTANT),
        ("gap", CONSTANT, np.ones(EPOCHS), CONSTANT + TIME * 0.1),
        ("confidence", CONSTANT, 1 + TIME * 0.1, CONSTANT + TIME * 0.1),
        ("harm", 1.5 - TIME * 0.03, np.ones(EPOCHS), CONSTANT + TIME * 0.1),
    ],
)
def test_overfitting_is_told_by_what_it_does(
    kind: str, separation: Floats, scale: Floats, train: Floats
) -> None:
    found = [
        overfitting(trained(world(separation, STILL - 0.7, seed) * scale[:, None], train)).kind
        for seed in range(10)
    ]
    assert found.count(kind) >= 9, found


def test_a_peak_of_noise_is_called_luck() -> None:
    kinds = []
    for seed in range(30):
        logits = world(CONSTANT, STILL, seed)
        found = is_peak_real(logits, LABEL, PATIENT, told_by(logits), draws=300)
        kinds.append(found.kind)
        assert found.question == f"Is the peak at epoch {int(found.figures['peak'])} real?"
    assert kinds.count("real") <= 3  # 5 % of 30, and two standard errors
    assert kinds.count("luck") > 20


def test_a_peak_that_stands_out_is_called_real() -> None:
    separation = CONSTANT.copy()
    separation[16] = 2.6
    for seed in range(10):
        logits = world(separation, STILL, seed)
        made = [replace(each, best_epoch=30) for each in told_by(logits)]
        found = is_peak_real(logits, LABEL, PATIENT, made, draws=300)
        assert (found.kind, found.figures["peak"]) == ("real", 17)
        assert found.figures["luck"] <= 0.05
    first = found.evidence[0]
    assert first.startswith("AUROC of epoch 17 minus epoch 30, kept: +")
    value = float(first.split(": ")[1].split()[0])
    expected = roc_auc_score(LABEL, logits[16]) - roc_auc_score(LABEL, logits[29])
    assert value == pytest.approx(expected, abs=0.0005)  # three digits are shown


def test_a_peak_that_is_kept_is_said_to_be() -> None:
    logits = world(CONSTANT, STILL, 1)
    made = told_by(logits)
    peak = int(np.argmax([each.val.auroc.value for each in made])) + 1
    made = [replace(each, best_epoch=peak) for each in made]
    assert is_peak_real(logits, LABEL, PATIENT, made, draws=100).kind == "kept"


def test_a_peak_is_judged_by_the_same_numbers_each_time() -> None:
    logits = world(CONSTANT, STILL, 1).astype(np.float32)
    made = told_by(logits.astype(np.float64))
    assert is_peak_real(logits, LABEL, PATIENT, made) == is_peak_real(logits, LABEL, PATIENT, made)


def test_a_peak_of_nothing_is_undefined() -> None:
    logits = world(CONSTANT, STILL, 1)
    made = told_by(logits)
    nothing = replace(made[3].val, auroc=Interval(float("nan"), float("nan"), float("nan")))
    made[3] = replace(made[3], val=nothing)
    assert is_peak_real(logits, LABEL, PATIENT, made).kind == "undefined"


def test_the_error_of_a_smoothed_difference_is_its_spread_over_patients() -> None:
    """Against resampled worlds with the same two networks."""
    found, told = [], []
    for seed in range(300):
        logits = world(CONSTANT[:10], STILL[:10], seed)
        recalls = (logits[:, LABEL == 1] >= 0.3).mean(1)
        found.append(np.mean(recalls[5:]) - np.mean(recalls[:5]))
        told.append(paired_error(Validation(logits, LABEL, PATIENT), "recall", [0.3] * 10, 5, 10))
    assert np.mean(told) / np.std(found) == pytest.approx(1, abs=0.12)  # three times 4 %


def test_a_change_is_said_with_its_noise() -> None:
    found = change([1.0] * 10 + [0.0] * 10, 10, 20, sample_error=0.1)
    assert (found.before, found.after, found.fell, found.rose) == (1, 0, True, False)
    assert found.words("It") == "It fell: 1.000 at epoch 10, 0.000 at epoch 20 (less than 0.200 is noise)."
    assert change([1.0] * 20, 10, 20, sample_error=0.1).words("It").startswith("It stayed: ")
    assert change([1.0] * 20, 20, 20).words("It") == "It is best at the end: 1.000 at epoch 20."

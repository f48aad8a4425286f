"""The comparison of balances: the imbalance is exact, the arms make equal steps, the figures are right."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, recall_score, roc_auc_score

from benchmarks.imbalance import ARMS, BATCH, epochs
from benchmarks.imbalance_scores import MEASURES, Outcome, differences, estimates, table
from benchmarks.imbalance_store import choose, imbalanced_store
from toolkit.evaluation.predictions import Predictions
from toolkit.loading.split import Partition, class_of, holdout
from toolkit.store import Nodule, Store
from toolkit.training.config import read_config


def test_the_ratio_is_exact() -> None:
    for bad, good, expected in ((30, 205, (20, 200)), (10, 205, (10, 100))):
        classes = ["malignant"] * bad + ["unknown"] * 3 + ["benign"] * good
        chosen = choose(classes, 10, 0)
        found = Counter(classes[i] for i in chosen.tolist())
        assert (found["malignant"], found["benign"], found["unknown"]) == (*expected, 0)
        assert (np.diff(chosen) > 0).all()
        assert not np.array_equal(chosen, choose(classes, 10, 1))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    random = np.random.default_rng(0)
    images = random.integers(-1000, 400, (400, 8, 8, 8)).astype(np.int16)
    nodules = [
        Nodule(
            f"n{i:03d}",
            f"c{i:03d}",
            f"p{i // 2:03d}",
            float(i % 5 == 0),
            5.0 + i % 9,
            9.0,
            (0, 0, 0),
            0.1,
            "reader",
        )
        for i in range(400)
    ]
    folder = tmp_path_factory.mktemp("imbalance")
    return Store.create(folder / "all", nodules, images, np.zeros(images.shape, np.uint8), 1.0, margin=1)


def test_the_store_keeps_crops(store: Store, tmp_path: Path) -> None:
    made = imbalanced_store(store, tmp_path / "store", 10, 0)
    assert Counter(map(class_of, made.nodules)) == {"malignant": 32, "benign": 320}
    assert (made.spacing_mm, made.size, made.margin) == (1.0, 6, 1)
    where = {nodule.nodule_id: i for i, nodule in enumerate(store.nodules)}
    for i, nodule in enumerate(made.nodules):
        assert np.array_equal(made.image(i), store.image(where[nodule.nodule_id]))


def test_arms_make_equal_steps(store: Store) -> None:
    (part,) = holdout(store, 0.2, 0.3).partitions
    train = [nodule for nodule in store.nodules if nodule.nodule_id in {*part.train}]
    benign = sum(nodule.label == 0 for nodule in train)
    for arm in ARMS:
        each = -(-benign // (BATCH // 2)) if arm in ("sampler", "both") else -(-len(train) // BATCH)
        assert abs(epochs(store, part, arm, 1000) * each - 1000) <= each / 2
    assert epochs(store, Partition("x", part.train, (), ()), "none", 1) == 1


def test_arms_are_configurations() -> None:
    for sets in ARMS.values():
        read_config(None, sets)
    assert read_config(None, ARMS["both"]).loss.pos_weight == 10


def predictions(seed: int, shift: float) -> Predictions:
    random = np.random.default_rng(seed)
    n = 300
    label = (random.random(n) < 0.2).astype(np.float64)
    logit = random.normal(2 * label - 1, 1.5) + shift
    text = np.array([f"{i:03d}" for i in range(n)])
    return Predictions(
        partition=np.full(n, "holdout"),
        nodule_id=text,
        case_id=text,
        patient_id=np.array([f"{i // 2:03d}" for i in range(n)]),
        target=label,
        label=label,
        logit=logit,
        calibrated=logit - shift - 1,
        probability=1 / (1 + np.exp(1 + shift - logit)),
        threshold=np.full(n, 0.3 + shift),
        decision=(logit >= 0.3 + shift).astype(np.int64),
        diameter_mm=np.full(n, 8.0),
    )


def test_figures_are_those_of_scikit_learn() -> None:
    p = predictions(0, 2.0)
    found = {each.name.split("/")[-1]: each for each in estimates([Outcome("plain", "both", 0, p)])}
    assert list(found) == list(MEASURES)
    value = {name: each.value for name, each in found.items()}
    raw, line = 1 / (1 + np.exp(-p.logit)), LogisticRegression(C=np.inf).fit(p.logit[:, None], p.label)
    expected = {
        "AUROC": roc_auc_score(p.label, p.logit),
        "average precision": average_precision_score(p.label, p.logit),
        "recall at 0.5": recall_score(p.label, raw >= 0.5),
        "specificity at 0.5": recall_score(p.label, raw >= 0.5, pos_label=0),
        "recall, frozen": recall_score(p.label, p.decision),
        "specificity, frozen": recall_score(p.label, p.decision, pos_label=0),
        "Brier, raw": brier_score_loss(p.label, raw),
        "Brier, calibrated": brier_score_loss(p.label, p.probability),
    }
    for name, told in expected.items():
        assert value[name] == pytest.approx(told, abs=1e-5), name
    assert value["slope, raw"] == pytest.approx(line.coef_[0, 0], abs=1e-3)
    # the shift of 2 is what the intercept finds, and calibration takes it away
    assert value["intercept, raw"] < -1.5 < value["intercept, calibrated"]
    assert value["intercept, calibrated"] == pytest.approx(value["intercept, raw"] + 3, abs=1e-4)
    assert all(each.low <= each.value <= each.high for each in found.values())
    assert found["AUROC"].low < found["AUROC"].high


def test_seeds_are_averaged_and_shown() -> None:
    both = [Outcome("plain", "none", seed, predictions(0, float(seed))) for seed in (0, 1)]
    found = {each.name.split("/")[-1]: each for each in estimates(both)}
    assert found["intercept, raw"].note.count(":") == 2
    single = [{e.name.split("/")[-1]: e for e in estimates([each])}["intercept, raw"].value for each in both]
    assert found["intercept, raw"].value == pytest.approx(np.mean(single), abs=1e-4)
    assert single[0] - single[1] == pytest.approx(1, abs=1e-4)
    lines = table(list(estimates(both))).splitlines()
    assert len(lines) == 3
    assert {line.count("|") for line in lines} == {len(MEASURES) + 3}


def test_another_test_side_is_an_error() -> None:
    one, other = predictions(0, 0.0), predictions(0, 0.0)
    other.nodule_id[:] = other.nodule_id[::-1].copy()
    with pytest.raises(ValueError, match="another test side"):
        estimates([Outcome("plain", "none", 0, one), Outcome("plain", "none", 1, other)])


def test_differences_are_paired() -> None:
    better, worse = predictions(0, 0.0), predictions(0, 0.0)
    worse.logit[:] += np.random.default_rng(1).normal(0, 2, len(worse.logit))
    made = [
        Outcome("augmented", "sampler", 0, better),
        Outcome("augmented", "none", 0, worse),
        Outcome("plain", "none", 0, worse),
    ]
    found = {each.name: each for each in differences(made)}
    assert list(found) == [
        "imbalance difference/augmented/none - plain/none/AUROC",
        "imbalance difference/augmented/sampler - augmented/none/AUROC",
    ]
    same, apart = found.values()
    assert (same.value, same.low, same.high) == (0, 0, 0)
    expected = roc_auc_score(better.label, better.logit) - roc_auc_score(worse.label, worse.logit)
    assert apart.value == pytest.approx(expected, abs=1e-5)
    assert 0 < apart.low < apart.value < apart.high

"""The test side of a run: looked at once a model, with numbers that scikit-learn confirms."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, recall_score, roc_auc_score

from tests.inference.model_folders import FILE
from tests.inference.runs import crossed, make_cohort, single, write_run
from toolkit.errors import UsageError
from toolkit.evaluation.evaluation import read_evaluation
from toolkit.evaluation.predictions import read_predictions
from toolkit.inference.test_side import evaluate_run
from toolkit.loading.split import Partition, Split, holdout
from toolkit.loading.split_file import read_split
from toolkit.store import Store

DRAWS = 200


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_cohort(tmp_path_factory.mktemp("cohort") / "store")


def by_sklearn(store: Store, ids: tuple[str, ...]) -> LogisticRegression:
    """Log diameter alone, without a penalty."""
    sizes, labels = known(store, ids)
    return LogisticRegression(C=1e12, tol=1e-10, max_iter=10_000).fit(np.log(sizes)[:, None], labels)


def known(store: Store, ids: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Diameters, the median where unknown, and labels of the labelled nodules among some."""
    found = [n for n in store.nodules if n.nodule_id in ids and n.label is not None]
    sizes = np.array([np.nan if n.diameter_mm is None else n.diameter_mm for n in found])
    return np.where(np.isnan(sizes), np.nanmedian(sizes), sizes), np.array([n.label for n in found])


def test_a_test_side_is_what_scikit_learn_says(store: Store, tmp_path: Path) -> None:
    run = single(tmp_path / "run", store)
    found = evaluate_run(run.path, device="cpu", draws=DRAWS)
    made = found.evaluation
    (part,) = read_split(run.split, store).partitions
    predictions = read_predictions(run.predictions("test"))
    assert {*predictions.nodule_id} == {*part.test}
    scored = ~np.isnan(predictions.label)
    assert 0 < made.unscored == np.count_nonzero(~scored)
    label, logit = predictions.label[scored], predictions.logit[scored]
    assert np.isclose(made.auroc.value, roc_auc_score(label, logit))
    assert np.isclose(made.average_precision.value, average_precision_score(label, logit))
    assert np.isclose(made.frozen.recall.value, recall_score(label, logit >= predictions.threshold[0]))
    assert 0 < made.frozen.recall.value < 1
    model = by_sklearn(store, part.train)
    train_median = np.nanmedian([n.diameter_mm or np.nan for n in store.nodules if n.nodule_id in part.train])
    sizes = np.where(np.isnan(predictions.diameter_mm), train_median, predictions.diameter_mm)[scored]
    alone = model.decision_function(np.log(sizes)[:, None])
    assert abs(made.baseline.auroc.value - roc_auc_score(label, alone)) < 0.01
    assert read_evaluation(run.evaluation)["auroc"][0] == made.auroc.value


def test_a_look_is_counted_once_a_model(store: Store, tmp_path: Path) -> None:
    run = single(tmp_path / "run", store)
    first = evaluate_run(run.path, device="cpu", draws=DRAWS)
    table, page = run.predictions("test").read_bytes(), run.evaluation.read_bytes()
    again = evaluate_run(run.path, device="cpu", draws=DRAWS)
    assert [first.used_again, again.used_again] == [False, True]
    assert [first.looks, again.looks] == [1, 1]
    assert (run.predictions("test").read_bytes(), run.evaluation.read_bytes()) == (table, page)

    other = single(tmp_path / "other", store, seed=5)
    (run.model / "model.json").write_bytes((other.model / "model.json").read_bytes())
    (run.model / "model.safetensors").write_bytes((other.model / "model.safetensors").read_bytes())
    second = evaluate_run(run.path, device="cpu", draws=DRAWS)
    assert (second.looks, second.used_again) == (2, False)
    assert run.predictions("test").read_bytes() != table
    lines = [json.loads(line) for line in (run.log / "looks.jsonl").read_text().splitlines()]
    assert [line["look"] for line in lines] == [1, 2]
    assert len({line["model"] for line in lines}) == 2
    assert {*lines[0]} == {"look", "model", "nodules", "predictions"}  # and no time


def test_predictions_that_somebody_changed_are_made_again(store: Store, tmp_path: Path) -> None:
    run = single(tmp_path / "run", store)
    evaluate_run(run.path, device="cpu", draws=DRAWS)
    right = run.predictions("test").read_bytes()
    run.predictions("test").write_bytes(right.replace(b"n0", b"n9", 1))
    again = evaluate_run(run.path, device="cpu", draws=DRAWS)
    assert run.predictions("test").read_bytes() == right
    assert again.looks == 2


def test_a_declared_prevalence_moves_probabilities_alone(store: Store, tmp_path: Path) -> None:
    run = single(tmp_path / "run", store)
    one = evaluate_run(run.path, device="cpu", draws=DRAWS).evaluation
    table = run.predictions("test").read_bytes()
    other = evaluate_run(run.path, prevalence=0.5, device="cpu", draws=DRAWS).evaluation
    assert run.predictions("test").read_bytes() == table
    assert (one.prevalence, other.prevalence) == (FILE.prevalence, 0.5)
    for name in ("true_positive", "false_positive", "recall", "specificity", "balanced_accuracy"):
        assert getattr(one.frozen, name) == getattr(other.frozen, name)
    assert one.auroc == other.auroc
    before = {miss.nodule_id: miss.probability for miss in one.false_positives}
    after = {miss.nodule_id: miss.probability for miss in other.false_positives}
    assert before
    for name, p in before.items():  # Bayes' rule in odds
        odds = p / (1 - p) / (FILE.prevalence / (1 - FILE.prevalence))
        assert np.isclose(after[name], odds / (1 + odds))


def test_a_cross_validation_is_pooled_with_a_baseline_of_each_fold(store: Store, tmp_path: Path) -> None:
    run = crossed(tmp_path / "run", store)
    found = evaluate_run(run.path, device="cpu", draws=DRAWS)
    made, predictions = found.evaluation, read_predictions(run.predictions("test"))
    scored = ~np.isnan(predictions.label)
    label = predictions.label[scored]
    assert made.nodules == scored.sum() == sum(n.label is not None for n in store.nodules)
    assert np.isclose(made.auroc.value, roc_auc_score(label, predictions.calibrated[scored]))
    assert len(made.parts) == 3
    alone = np.full(len(predictions), np.nan)
    for part in read_split(run.split, store).partitions:
        here = predictions.partition == part.name
        sizes = [n.diameter_mm or np.nan for n in store.nodules if n.nodule_id in part.train]
        size = np.where(
            np.isnan(predictions.diameter_mm[here]), np.nanmedian(sizes), predictions.diameter_mm[here]
        )
        alone[here] = by_sklearn(store, part.train).decision_function(np.log(size)[:, None])
    assert abs(made.baseline.auroc.value - roc_auc_score(label, alone[scored])) < 0.01
    assert found.looks == 0  # training made these predictions; nothing was looked at again


def test_what_cannot_be_evaluated_is_explained(store: Store, tmp_path: Path) -> None:
    run = single(tmp_path / "run", store)
    other = make_cohort_of_another_spacing(tmp_path / "other", store)
    with pytest.raises(UsageError, match="E-SPLIT-003"):
        evaluate_run(run.path, other.path, device="cpu")
    with pytest.raises(UsageError, match="E-PRED-004"):
        evaluate_run(run.path, prevalence=1.0, device="cpu")
    (run.log / "where.json").unlink()
    with pytest.raises(UsageError, match=r"E-RUN-001.*--store"):
        evaluate_run(run.path, device="cpu")
    assert evaluate_run(run.path, store.path, device="cpu", draws=DRAWS).looks == 1
    (part,) = holdout(store, 0.3, 0.0).partitions
    none = Split("mine", None, str(store.settings["config_digest"]), (part,))
    with pytest.raises(UsageError, match="E-EVAL-003"):
        evaluate_run(write_run(tmp_path / "none", store, none).path, device="cpu")
    alone = tuple(n.nodule_id for n in store.nodules if n.patient_id == "p00")
    rest = tuple(n.nodule_id for n in store.nodules if n.patient_id != "p00")
    few = replace(none, partitions=(Partition("holdout", rest, (), alone),))
    with pytest.raises(UsageError, match="E-EVAL-001"):
        evaluate_run(write_run(tmp_path / "few", store, few).path, device="cpu")
    (tmp_path / "few" / "log" / "looks.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match="E-RUN-001"):
        evaluate_run(tmp_path / "few", device="cpu")
    with pytest.raises(UsageError, match="E-RUN-001"):
        evaluate_run(tmp_path / "nothing", store.path, device="cpu")


def make_cohort_of_another_spacing(path: Path, store: Store) -> Store:
    images = np.stack([store.image(i) for i in range(len(store))])
    return Store.create(path, store.nodules, images, np.zeros(images.shape, np.uint8), 0.9)

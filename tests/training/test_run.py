"""A run from store to model: what it writes, that it learns, that equal settings give equal bytes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.ranks_worker import job_of
from tests.training.runs import config, files, make_store, nodule, run
from toolkit.errors import UsageError
from toolkit.evaluation.predictions import read_predictions
from toolkit.inference.predictor import open_predictor, predict_store
from toolkit.loading.split_file import read_split
from toolkit.models.folder import load_model, read_model_file
from toolkit.store import Store
from toolkit.training.config import TrainConfig
from toolkit.training.loss import objective
from toolkit.training.ranks import Ranks
from toolkit.training.record import read_records


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "store"
    make_store(path)
    return path


@pytest.fixture(scope="module")
def trained(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    run(store, out, config(epochs=12))
    return out


def test_it_learns_what_can_be_learned(trained: Path) -> None:
    records = read_records(trained / "metrics.jsonl")
    assert records[-1].val.auroc.value > 0.95
    assert records[-1].train_loss < 0.7 * records[0].train_loss


def test_the_model_folder_says_what_the_selected_epoch_said(store: Path, trained: Path) -> None:
    records = read_records(trained / "metrics.jsonl")
    best = records[-1].best_epoch
    logits = np.load(trained / "validation_logits.npy")
    assert logits.shape[0] == len(records)
    predictions = read_predictions(trained / "predictions_val.csv")
    # the same weights in batches of other sizes: sums in another order, so equal to float32 rounding
    np.testing.assert_allclose(predictions.logit, logits[best - 1], rtol=1e-5, atol=1e-5)
    file, model = load_model(trained / "model")
    chosen = records[best - 1].val.at_threshold.threshold
    assert file.threshold == pytest.approx(chosen, rel=1e-5, abs=1e-5)
    # the network of the folder, fed with the patch cut by hand: window to [0, 1], margin off, nothing else
    opened = Store.open(store)
    number = {each.nodule_id: k for k, each in enumerate(opened.nodules)}[predictions.nodule_id[0]]
    patch = (opened.image(number)[2:18, 2:18, 2:18].astype(np.float32) + 1000) / 1400
    with torch.no_grad():
        logit = model(torch.from_numpy(patch)[None, None], None).item()
    assert logit == pytest.approx(predictions.logit[0], rel=1e-4, abs=1e-4)
    calibrated = file.calibration.slope * predictions.logit + file.calibration.intercept
    np.testing.assert_array_equal(predictions.decision, predictions.logit >= file.threshold)
    moved = calibrated + np.log(file.prevalence / (1 - file.prevalence))
    moved -= np.log(file.calibration.prevalence / (1 - file.calibration.prevalence))
    np.testing.assert_allclose(predictions.probability, 1 / (1 + np.exp(-moved)), rtol=1e-12)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(store: Path, tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in "abc")
    run(store, first)
    run(store, second)
    assert files(first) == files(second)
    run(store, third, config(seed=1))
    assert files(first)["metrics.jsonl"] != files(third)["metrics.jsonl"]


def test_a_finished_run_is_not_made_again(store: Path, trained: Path) -> None:
    before = files(trained)
    told = run(store, trained, config(epochs=12))
    assert files(trained) == before
    assert told["partitions"][0]["epochs"] == len(read_records(trained / "metrics.jsonl"))


def test_no_resume_begins_anew(store: Path, tmp_path: Path) -> None:
    run(store, tmp_path / "run")
    before = files(tmp_path / "run")
    (tmp_path / "run" / "mine.txt").write_text("mine")
    run(store, tmp_path / "run", config(seed=5), resume=False)
    assert files(tmp_path / "run")["metrics.jsonl"] != before["metrics.jsonl"]
    assert (tmp_path / "run" / "mine.txt").read_text() == "mine"


def test_measured_features_are_fused_and_kept_in_the_model(store: Path, tmp_path: Path) -> None:
    settings = config(epochs=1, model={"name": "densenet-small", "measured": ["diameter", "mean_hu"]})
    run(store, tmp_path / "run", settings)
    file = read_model_file(tmp_path / "run" / "model")
    assert file.input.measured == ("diameter", "mean_hu")
    opened = Store.open(store)
    split = read_split(tmp_path / "run" / "split.json", opened, compare_crops=False)
    train = {*split.partitions[0].train}
    logs = [np.log(each.diameter_mm) for each in opened.nodules if each.nodule_id in train]
    center, _ = file.measured["diameter"]
    assert min(logs) <= center <= max(logs)


@pytest.mark.parametrize("balance", ["weight", "logit-adjust", "focal", "none"])
def test_every_balance_trains(store: Path, tmp_path: Path, balance: str) -> None:
    run(store, tmp_path / "run", config(epochs=1, balance=balance))
    file = read_model_file(tmp_path / "run" / "model")
    expected = {"weight": 0.5, "logit-adjust": 0.5}.get(balance, file.plain_prior)
    assert file.prior == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (
            "monai.networks.nets:ResNet",
            {"block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [4, 8, 8, 8], "spatial_dims": 3,
             "n_input_channels": 1, "num_classes": 1, "conv1_t_stride": 1},
        ),
        (
            "monai.networks.nets:ViT",
            {"in_channels": 1, "img_size": 16, "patch_size": 8, "hidden_size": 24, "mlp_dim": 48,
             "num_layers": 2, "num_heads": 2, "classification": True, "num_classes": 1,
             "post_activation": "none"},
        ),
    ],
    ids=["ResNet", "ViT"],
)  # fmt: skip
def test_networks_of_monai_train_by_import_path(
    store: Path, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    settings = config(epochs=6, model={"name": name, "options": options})
    run(store, tmp_path / "run", settings)
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    assert records[-1].train_loss < records[0].train_loss
    file, _ = load_model(tmp_path / "run" / "model")
    assert file.architecture["name"] == name


@pytest.mark.parametrize(
    "changes",
    [
        {"augment": {"mask_mode": "hard"}},
        {"augment": {"mask_mode": "soft", "edge_mm": 2.0}},
        {"augment": {"mask_mode": "channel"}},
        {"augment": {"preset": "strong"}},
        {"augment": {"preset": "none", "window_hu": False}},
        {"input": {"size": 15}},
    ],
    ids=str,
)
def test_a_model_predicts_what_training_saw(store: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    run(store, tmp_path / "run", config(epochs=1, **changes))
    predictions = read_predictions(tmp_path / "run" / "predictions_val.csv")
    opened = Store.open(store)
    number = {each.nodule_id: k for k, each in enumerate(opened.nodules)}
    index = np.array([number[name] for name in predictions.nodule_id.tolist()])
    scores = predict_store(open_predictor(tmp_path / "run" / "model", "cpu"), opened, index)
    np.testing.assert_allclose(scores.logit, predictions.logit, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(scores.decision, predictions.decision)


def loss_apart(store: Path, settings: TrainConfig) -> float:
    """Return how far, to first order, losses may be apart where batches are as far apart as those of DALI."""
    job = job_of(Store.open(store), settings, Ranks())
    other = replace(job, machine=replace(job.machine, loader="dali"))
    network, most = job.network().train(), 0.0
    with job.open_loader() as fused, other.open_loader() as dali:
        for ours, theirs in zip(fused.epoch(0), dali.epoch(0), strict=True):
            image = ours.image.clone().requires_grad_()
            objective(network(image, None), ours.label, job.balance, 0.0).backward()
            assert image.grad is not None
            most = max(most, float(image.grad.abs().sum() * (ours.image - theirs.image).abs().max()))
    return most


@pytest.mark.parametrize("mask_mode", ["none", "channel"])
def test_dali_teaches_the_same(store: Path, tmp_path: Path, mask_mode: str) -> None:
    pytest.importorskip("nvidia.dali")
    # weights that stand still: the mean loss of an epoch is that of its batches
    settings = config(
        epochs=1,
        augment={"preset": "default", "mask_mode": mask_mode},
        optimizer={"lr": 1e-12},
        model={"name": "densenet-small", "dropout": 0.0},
    )
    for loader in ("fused", "dali"):
        run(store, tmp_path / loader, settings, loader=loader)
    fused, dali = (read_records(tmp_path / loader / "metrics.jsonl")[0] for loader in ("fused", "dali"))
    allowed = loss_apart(store, settings) + 1e-6  # and the rounding of sums near 1
    assert dali.train_loss == pytest.approx(fused.train_loss, abs=allowed)
    assert dali.val.loss == pytest.approx(fused.val.loss, abs=allowed)
    assert "DALI" in json.loads((tmp_path / "dali" / "environment.json").read_text())["loader"]


def test_ratings_between_teach_without_being_scored(tmp_path: Path) -> None:
    ratings = [1.0, 3.0, 5.0]
    given = [
        nodule(k, {1.0: 0.0, 5.0: 1.0}.get(ratings[k // 2 % 3]), rating=ratings[k // 2 % 3])
        for k in range(72)
    ]
    make_store(tmp_path / "store", nodules=given)
    labels = {"source": "rating", "benign_to": 0.25, "malignant_from": 0.75}
    run(tmp_path / "store", tmp_path / "run", config(epochs=1, labels=labels))
    file = read_model_file(tmp_path / "run" / "model")
    side = read_split(tmp_path / "run" / "split.json", Store.open(tmp_path / "store")).partitions[0]
    by_id = {each.nodule_id: each.rating for each in given}
    assert file.provenance["training_nodules"] == len(side.train)
    assert file.provenance["validation_nodules"] == sum(by_id[i] != 3 for i in side.val)
    predictions = read_predictions(tmp_path / "run" / "predictions_val.csv")
    for name, target, label in zip(predictions.nodule_id, predictions.target, predictions.label, strict=True):
        assert target == (by_id[name] - 1) / 4
        assert np.isnan(label) if by_id[name] == 3 else label == (by_id[name] == 5)


def test_cross_validation_judges_every_nodule_once_a_repeat(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    told = run(store, out, config(epochs=1), folds=2, repeats=2)
    assert len(told["partitions"]) == 4
    opened = Store.open(store)
    predictions = read_predictions(out / "predictions_test.csv")
    for repeat in (1, 2):
        mine = [str(i) for i, p in zip(predictions.nodule_id, predictions.partition, strict=True)
                if p.startswith(f"repeat {repeat} ")]  # fmt: skip
        assert sorted(mine) == sorted(each.nodule_id for each in opened.nodules)
    file = read_model_file(out / "model")
    assert len(file.members) == 4
    assert file.calibration.method == "none"
    # chosen on logits of all folds at one share of malignant nodules
    logit = np.concatenate([
        read_model_file(fold / "model").calibration.logit(
            read_predictions(fold / "predictions_test.csv").logit, file.plain_prior
        )
        for fold in sorted((out / "folds").iterdir())
    ])  # fmt: skip
    assert not np.any(logit == file.threshold)
    called = logit >= file.threshold
    right = [(called[predictions.label == k] == k).mean() for k in (0, 1)]
    best = max(np.mean([((logit >= t)[predictions.label == k] == k).mean() for k in (0, 1)]) for t in logit)
    assert np.mean(right) == pytest.approx(best)
    for k, name in enumerate(file.members):
        assert (out / "folds" / name / "model" / "model.json").exists(), k
    # none of a fold's test nodules taught it or chose its threshold
    for fold in sorted((out / "folds").iterdir()):
        part = read_split(fold / "split.json", opened, compare_crops=False).partitions[0]
        tested = {*read_predictions(fold / "predictions_test.csv").nodule_id.tolist()}
        assert tested == {*part.test}
        assert not tested & {*part.train, *part.val}


def test_the_environment_is_recorded(trained: Path) -> None:
    told = json.loads((trained / "environment.json").read_text())
    assert told["packages"]["torch"] == torch.__version__
    assert told["threads"] == 1
    assert "float32" in told["decided"] or "bfloat16" in told["decided"]
    text = "".join(
        path.read_text("utf-8", "ignore") for path in trained.rglob("*.json") if "log" not in path.parts
    )
    assert str(trained) not in text


def test_another_run_in_the_folder_is_refused_by_setting(store: Path, trained: Path) -> None:
    with pytest.raises(UsageError, match="E-TRAIN-003") as caught:
        run(store, trained, config(epochs=12, optimizer={"lr": 1e-2}))
    assert "optimizer.lr 0.002 before, 0.01 now" in str(caught.value)


def test_a_folder_of_other_files_is_refused(store: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.docx").write_text("mine")
    with pytest.raises(UsageError, match="E-TRAIN-003"):
        run(store, tmp_path / "run")

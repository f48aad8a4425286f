"""Two processes of torchrun (gloo) are one: the same batches, the same metrics, the same gradients."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.ranks_worker import looked_at
from tests.training.runs import files, make_store
from toolkit.evaluation.metrics import summarize
from toolkit.evaluation.predictions import read_predictions
from toolkit.store import Store
from toolkit.training.ranks import Ranks
from toolkit.training.record import read_records

ROOT = Path(__file__).parents[2]


def torchrun(*command: str) -> None:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ended = subprocess.run([*start, *command], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-3000:]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("stores") / "store")


@pytest.fixture(scope="module")
def two(store: Store, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("ranks")
    torchrun("-m", "tests.training.ranks_worker", str(store.path), str(out))
    return [pickle.loads((out / f"{rank}.pickle").read_bytes()) for rank in range(2)]


@pytest.fixture(scope="module")
def one(store: Store) -> dict[str, Any]:
    return looked_at(store, Ranks())


def test_the_union_of_batches_is_the_batch_of_one_rank(
    one: dict[str, Any], two: list[dict[str, Any]]
) -> None:
    assert len(one["batches"]) > 4
    for whole, *parts in zip(one["batches"], two[0]["batches"], two[1]["batches"], strict=True):
        assert len(parts[0]) == len(parts[1]) == len(whole) // 2
        assert sorted(np.concatenate(parts)) == sorted(whole)


def test_metrics_of_the_same_weights_are_equal(one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    np.testing.assert_array_equal(two[0]["logits"], two[1]["logits"])
    # batches of half the size add in another order: equal to float32 rounding, and ranks are the same
    np.testing.assert_allclose(two[0]["logits"], one["logits"], rtol=1e-4, atol=1e-6)
    assert np.array_equal(np.argsort(two[0]["logits"]), np.argsort(one["logits"]))
    label = np.arange(len(one["logits"])) % 2 == 0
    given: dict[str, Any] = {"threshold": float(np.median(one["logits"])), "prior": 0.5, "beta": 2.0}
    first, second = (
        summarize(each["logits"], label.astype(float), np.arange(len(label)), **given)
        for each in (one, two[0])
    )
    assert first.auroc == second.auroc
    assert first.average_precision == second.average_precision
    assert first.at_threshold == second.at_threshold


def test_gradients_are_equal_in_float64(one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    assert one["gradients"].keys() == two[0]["gradients"].keys()
    for name, gradient in one["gradients"].items():
        np.testing.assert_array_equal(two[0]["gradients"][name], two[1]["gradients"][name])
        scale = np.abs(gradient).max()
        assert scale > 0, name
        np.testing.assert_allclose(
            two[0]["gradients"][name], gradient, rtol=0, atol=1e-12 * scale, err_msg=name
        )


@pytest.mark.slow
def test_two_ranks_train_one_run(store: Store, tmp_path: Path) -> None:
    toml = tmp_path / "settings.toml"
    toml.write_text(
        'epochs = 3\nbatch = 8\ninput.size = 16\naugment.preset = "light"\noptimizer.lr = 2e-3\n'
        'model = {name = "densenet-small"}\nselection = {min_epochs = 2, smoothing = 2}\n'
        "compute.threads = 1\nlogging.tensorboard = true\n"
    )
    for name in ("a", "b"):
        given = [str(store.path), str(tmp_path / name), "--config", str(toml), "--device", "cpu"]
        torchrun("-m", "toolkit", "train", *given)
    records = read_records(tmp_path / "a" / "metrics.jsonl")
    assert len(records) == 3
    assert records[-1].train_loss < records[0].train_loss
    assert files(tmp_path / "a") == files(tmp_path / "b")
    predictions = read_predictions(tmp_path / "a" / "predictions_val.csv")
    assert len({*predictions.nodule_id}) == len(predictions)

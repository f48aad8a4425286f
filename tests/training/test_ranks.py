"""Two processes of torchrun (gloo) are one: the same batches, the same metrics, the same gradients."""

import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.ranks_train import SETTINGS
from tests.training.ranks_worker import looked_at
from tests.training.runs import Watcher, files, make_store, run
from toolkit.evaluation.metrics import summarize
from toolkit.evaluation.predictions import read_predictions
from toolkit.store import Store
from toolkit.training import checkpoint
from toolkit.training.ranks import AGREE_EVERY, Agreement, Next, Ranks
from toolkit.training.record import read_records

ROOT = Path(__file__).parents[2]


TRAIN = ["-m", "tests.training.ranks_train"]


def torchrun(*command: str) -> str:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ended = subprocess.run([*start, *command], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


def side_by_side(command: list[str]) -> list[tuple[int, str]]:
    """Start two ranks with nobody who watches over them; return exit code and output of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    given = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [
        subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env={**given, "RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": "2"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    told = [rank.communicate(timeout=300)[0] for rank in ranks]
    return [(rank.returncode, each) for rank, each in zip(ranks, told, strict=True)]


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


def test_the_fast_twin_learns_over_ranks_as_the_plain_network_does(two: list[dict[str, Any]]) -> None:
    """Weights, averages and optimiser are those of both ranks' batches; running statistics each rank's."""
    own = set()
    for first, second in zip(two[0]["fast"].items(), two[1]["fast"].items(), strict=True):
        if not np.array_equal(first[1], second[1]):
            own.add(first[0].rpartition(".")[2])
    assert own == {"running_mean", "running_var", "losses"}
    for rank in two:
        assert rank["fast"].keys() == rank["plain"].keys()
        for name, right in rank["plain"].items():
            # the losses are float32; a gradient that is 0 comes out as up to 1e-14 (float64, clipped to a
            # norm of 1), which Adam divides by its eps of 1e-8 and multiplies by 2e-3 in each of 4 steps
            allowed = 1e-6 if name == "losses" else 4 * 2e-3 * 1e-14 / 1e-8
            np.testing.assert_allclose(rank["fast"][name], right, rtol=1e-6, atol=allowed, err_msg=name)


@pytest.fixture(scope="module")
def uninterrupted(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    torchrun(*TRAIN, str(store.path), str(out), "0", "0", "0")
    return out


@pytest.mark.slow
def test_two_ranks_train_one_run(uninterrupted: Path) -> None:
    records = read_records(uninterrupted / "metrics.jsonl")
    assert len(records) == 3
    assert records[-1].train_loss < records[0].train_loss
    predictions = read_predictions(uninterrupted / "predictions_val.csv")
    assert len({*predictions.nodule_id}) == len(predictions)


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_all_at_one_step_and_nothing_is_lost(
    store: Store, uninterrupted: Path, tmp_path: Path
) -> None:
    given = [str(store.path), str(tmp_path / "run")]
    ended = side_by_side([*TRAIN, *given, str(int(signal.SIGTERM)), "1", "2"])
    assert [code for code, _ in ended] == [75, 75]
    _, state = checkpoint.load(tmp_path / "run" / "checkpoints" / "last.safetensors")
    # asked at step 2, put together at step 4, read at step 8
    assert state["position"] == {"epoch": 0, "step": 2 * AGREE_EVERY, "finished": False}
    shutil.copytree(tmp_path / "run", tmp_path / "alone")
    ended = side_by_side([*TRAIN, *given, "0", "0", "0"])
    assert [code for code, _ in ended] == [0, 0]
    assert f"resumes at epoch 1, step {2 * AGREE_EVERY}" in ended[0][1]
    assert files(tmp_path / "run") == files(uninterrupted)
    alone = Watcher()
    run(store.path, tmp_path / "alone", SETTINGS, alone)
    assert any("ranks: 2 before, 1 now" in note for note in alone.notes)
    # the batches are the same and batch norm sees all of one at once; both ranks' losses count before
    one, two = (read_records(each / "metrics.jsonl") for each in (tmp_path / "alone", uninterrupted))
    assert len(one) == 3
    assert one[0].train_loss == pytest.approx(two[0].train_loss, rel=0.1)


@pytest.mark.slow
def test_torchrun_starts_again_where_a_killed_rank_left(
    store: Store, uninterrupted: Path, tmp_path: Path
) -> None:
    given = [str(store.path), str(tmp_path / "run")]
    told = torchrun("--max-restarts", "1", *TRAIN, *given, str(int(signal.SIGKILL)), "1", "12")
    assert "resumes at epoch 2, step 0" in told
    assert files(tmp_path / "run") == files(uninterrupted)


def test_of_several_wishes_the_last_named_counts() -> None:
    wishes = iter([Next.GO_ON, Next.SAVE, Next.STOP])
    alone = Agreement(Ranks(), lambda: next(wishes))
    assert [alone.after_step(1), alone.after_step(2), alone.after_epoch()] == [*Next]
    assert max(Next.SAVE, Next.STOP, Next.GO_ON) is Next.STOP

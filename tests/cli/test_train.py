"""The whole way by command: train, evaluate, report, predict; once and by folds."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.training.runs import make_store
from toolkit.evaluation.predictions import read_predictions

TOML = """
epochs = 6
batch = 8
[model]
name = "densenet-small"
measured = ["diameter"]
[input]
size = 16
[augment]
preset = "light"
[optimizer]
lr = 2e-3
[selection]
min_epochs = 2
smoothing = 2
[compute]
threads = 1
"""


def toolkit(*args: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "toolkit", *map(str, args)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("work")
    make_store(work / "store", count=120)
    (work / "settings.toml").write_text(TOML)
    return work


@pytest.fixture(scope="module", params=[(), ("--folds", 2)], ids=["once", "by folds"])
def run(request: pytest.FixtureRequest, work: Path) -> Path:
    out = work / f"run{len(request.param)}"
    command = ("train", work / "store", out, "--config", work / "settings.toml", "--device", "cpu")
    told = json.loads(toolkit(*command, *request.param, "--json").stdout)
    assert len(told["partitions"]) == (2 if request.param else 1)
    return out


@pytest.mark.slow
def test_the_whole_way(run: Path, work: Path) -> None:
    found = json.loads(toolkit("evaluate", run, "--device", "cpu", "--json").stdout)
    tested = read_predictions(run / "predictions_test.csv")
    assert found["nodules"] == len(tested)
    right = tested.decision == tested.label
    shown = json.loads(toolkit("report", run, "--json").stdout)
    assert Path(shown["page"]).read_bytes().startswith(b"<!DOCTYPE html>")
    # the nodules of the store, predicted as anybody's: of a single run the test side comes out as evaluated
    table = csv.DictReader(io.StringIO(toolkit("predict", run, work / "store", "--device", "cpu").stdout))
    by_id = {row["nodule_id"]: row for row in table}
    assert len(by_id) == 120
    if not (run / "folds").exists():
        again = [float(by_id[name]["logit"]) for name in tested.nodule_id.tolist()]
        np.testing.assert_allclose(again, tested.logit, rtol=1e-4, atol=1e-4)
    assert right.mean() > 0.7


def test_wrong_requests_end_with_2_and_a_code(work: Path) -> None:
    store, out = work / "store", work / "never"
    for args, said in (
        (("train", store, out, "--set", "balance=both"), "E-CONF-001"),
        (("train", store, out, "--set", "loss.pos_weight=3"), "E-CONF-003"),
        (("train", work / "none", out), "E-STORE-001"),
        (("train", store, out, "--config", work / "none.toml"), "E-CONF-001"),
        (("train", store, out, "--folds", 1), "at least 2"),
        (("train", store, out, "--repeats", 3), "means nothing without --folds"),
        (("train", store, out, "--set", "input.size=64"), "E-AUG-003"),
        (("train", store, out, "--set", "input.size=4"), "E-MODEL-001"),
        (("train", store, out, "--split", work / "none.json"), "E-SPLIT-001"),
        (("evaluate", out), "E-RUN-001"),
        (("report", out), "E-RUN-001"),
    ):
        assert said in toolkit(*args, code=2).stderr, args
    assert not out.exists()


def test_a_dry_run_says_what_would_be_trained_and_writes_nothing(work: Path) -> None:
    command = ("train", work / "store", work / "dry", "--config", work / "settings.toml", "--dry-run")
    (part,) = json.loads(toolkit(*command, "--json").stdout)["partitions"]
    told = part["training"]["nodules"] + part["test_nodules"] + sum(part["validation"].values())
    assert told == 120
    assert part["training_prior"] == 0.5
    assert part["weights"] > 300_000
    assert "nodules teach" in toolkit(*command).stdout
    assert not (work / "dry").exists()


def test_a_wish_for_recall_beside_a_small_beta_is_explained(work: Path) -> None:
    settings = (
        "--set",
        "threshold.wish=recall",
        "--set",
        "threshold.goal=f_beta",
        "--set",
        "threshold.beta=0.5",
    )
    command = ("train", work / "store", work / "wish", "--config", work / "settings.toml", "--epochs", 1)
    told = toolkit(*command, *settings, "--device", "cpu").stderr
    assert "beta 0.5 favours precision" in told

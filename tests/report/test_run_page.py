"""The page of every kind of run: sound markup, no network, true numbers, and what is missing told by name."""

import json
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.report.runs import KEPT, make_folds, make_run, make_store
from tests.report.test_store_page import checked
from toolkit.errors import StoreError, UsageError
from toolkit.evaluation.evaluation import read_evaluation
from toolkit.evaluation.predictions import read_predictions
from toolkit.evaluation.results import to_json
from toolkit.report.run_files import SEAL, read_run
from toolkit.report.run_page import as_json, report_run
from toolkit.store import Store
from toolkit.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("store") / "s")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, store: Store) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("runs") / "whole", store)


@pytest.fixture
def run(whole: RunFolder, tmp_path: Path) -> RunFolder:
    """A run that a test may harm."""
    shutil.copytree(whole.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def text_of(run: RunFolder, **how: object) -> str:
    return " ".join(checked(report_run(run.path, **how).page).text.split())


def test_a_whole_run_tells_its_numbers(whole: RunFolder) -> None:
    text = text_of(whole)
    test = read_predictions(whole.predictions("test"))
    area = roc_auc_score(test.label, test.logit)
    ill = test.label == 1
    assert f"in {100 * area:.0f} % (" in text
    assert f"finds {100 * test.decision[ill].mean():.0f} % (" in text
    assert f"clears {100 * (1 - test.decision[~ill].mean()):.0f} % (" in text
    assert f"AUROC {area:.2f} (" in text
    assert f"{len(test):,} nodules of {len({*test.patient_id})} patients" in text
    assert "0.5 has no special standing" in text
    assert "not pathology" not in text
    for question in (
        "does recall fall",
        "Which threshold?",
        "Sampler or weights?",
        "F-beta 0.5",
        "over size",
    ):
        assert question in text


def test_confusion_counts_are_those_of_the_predictions(whole: RunFolder) -> None:
    test = read_predictions(whole.predictions("test"))
    counts = [
        int(((test.label == a) & (test.decision == b)).sum()) for a, b in ((1, 1), (1, 0), (0, 1), (0, 0))
    ]
    assert " \u00b7 ".join(map(str, counts)) in text_of(whole)


def test_what_is_missing_is_told_with_its_command(run: RunFolder) -> None:
    made = report_run(run.path)
    assert as_json(made)["missing"] == []
    run.evaluation.unlink()
    assert "nothing on this page was measured on nodules" in text_of(run)
    run.predictions("test").unlink()
    assert "on the validation side" in text_of(run)
    (run.log / "where.json").unlink()
    assert "toolkit report RUN --store STORE" in text_of(run)
    for path in (run.validation_logits, run.predictions("val"), run.environment, run.split):
        path.unlink()
        text_of(run)
    run.metrics.unlink()
    shutil.rmtree(run.model)
    told = as_json(report_run(run.path))["missing"]
    train, evaluate, pictures = (
        "toolkit train STORE RUN",
        "toolkit evaluate RUN",
        "toolkit report RUN --store STORE",
    )
    assert told == [train, train, evaluate, pictures]
    assert "No epoch is recorded yet" in text_of(run)


def test_a_store_that_is_gone_costs_the_pictures_only(run: RunFolder, store: Store) -> None:
    (run.log / "where.json").write_text(json.dumps({"store": str(run.path / "gone")}))
    made = report_run(run.path)
    assert made.store is None
    assert b"misses-data" not in made.page
    assert "gone" not in checked(made.page).text
    assert report_run(run.path, store.path).store is not None


def test_another_store_is_refused(run: RunFolder, store: Store) -> None:
    split = json.loads(run.split.read_text())
    run.split.write_text(json.dumps({**split, "store": "0" * 32}))
    with pytest.raises(StoreError) as error:
        report_run(run.path, store.path)
    assert error.value.problem.code == "E-STORE-002"
    assert "not that of the run" in text_of(run)


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("config.json", b"{", "E-RUN-001"),
        ("config.json", b"[1]", "E-RUN-001"),
        ("config.json", b'{"epochs": "many"}', "E-CONF-001"),
        ("environment.json", b"\xff\xfe", "E-RUN-001"),
        ("metrics.jsonl", b'{"epoch": 1}\n', "E-RUN-001"),
        ("validation_logits.npy", b"not an array", "E-RUN-001"),
        ("predictions_test.csv", b"a,b\n1,2\n", "E-EVAL-002"),
        ("evaluation.json", b"{}", "E-EVAL-004"),
    ],
)
def test_a_damaged_file_is_refused_by_code(run: RunFolder, name: str, content: bytes, code: str) -> None:
    (run.path / name).write_bytes(content)
    with pytest.raises(UsageError) as error:
        report_run(run.path)
    assert error.value.problem.code == code
    assert str(run.path) not in error.value.problem.public


def test_an_array_of_objects_is_not_opened(run: RunFolder) -> None:
    np.save(run.validation_logits, np.array([[print]], object), allow_pickle=True)
    with pytest.raises(UsageError, match="it is no array"):
        report_run(run.path)


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such run"):
        report_run(tmp_path)


def test_hostile_text_stays_text(run: RunFolder) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    config = json.loads(run.config.read_text())
    config["model"]["name"] = evil
    config["model"]["options"] = {evil: evil}
    config["logging"]["wandb_project"] = evil
    run.config.write_text(json.dumps(config))
    run.environment.write_text(json.dumps({evil: {evil: [evil]}}))
    model = json.loads((run.model / "model.json").read_text())
    model["provenance"] = {evil: evil}
    model["input"]["mask_mode"] = evil
    (run.model / "model.json").write_text(json.dumps(model))
    split = json.loads(run.split.read_text())
    split["rule"] = evil
    run.split.write_text(json.dumps(split))
    page = report_run(run.path).page
    markup = checked(page)
    assert b"<img" not in page
    assert b"alert(1)</script><" not in page
    assert markup.text.count("alert(1)") >= 6


def test_labels_from_readers_are_called_opinion(store: Store, tmp_path: Path) -> None:
    config = {"labels": {"source": "rating", "benign_to": 0.4, "malignant_from": 0.6}}
    rated = make_run(tmp_path / "rated", store, config=config)
    text = text_of(rated)
    assert "not pathology" in text
    assert "benign up to 0.4, not scored between" in text


def test_the_answer_names_the_balance_and_its_arithmetic(
    whole: RunFolder, store: Store, tmp_path: Path
) -> None:
    model = json.loads((whole.model / "model.json").read_text())
    plain, prior = model["plain_prior"], model["prior"]
    odds = (0.1 / 0.9) * (prior / (1 - prior)) / (plain / (1 - plain))
    assert f"a true chance of 10 % reads {100 * odds / (1 + odds):.0f} %" in text_of(whole)
    weighted = make_run(tmp_path / "weighted", store, config={"balance": "weight"})
    assert "This run used a class weight in the loss" in text_of(weighted)
    twice = {"force_double_balance": True, "loss": {"pos_weight": 9.0}}
    both = make_run(tmp_path / "both", store, config=twice)
    assert "and a weight of 9 on top of it, as an experiment" in text_of(both)


def test_folds_stand_side_by_side(store: Store, tmp_path: Path) -> None:
    folder = make_folds(tmp_path / "cv", store)
    made = report_run(folder.path)
    text = " ".join(checked(made.page).text.split())
    assert "Cross-validation, 3 folds" in text
    assert "Out of fold" in text
    assert "models that never saw its patient" in text
    found = read_evaluation(folder.evaluation)
    for part in found["parts"]:
        assert f"{part['partition']}" in text
        assert f"{part['auroc']:.2f}" in text
    assert as_json(made)["folds"] == [fold.name for fold in read_run(folder.path).folds]


def test_an_unfinished_cross_validation_has_a_page(store: Store, tmp_path: Path) -> None:
    folder = make_folds(tmp_path / "cv", store)
    for path in (folder.evaluation, folder.predictions("test"), folder.folds()[1].metrics):
        path.unlink()
    shutil.rmtree(folder.folds()[2].path)
    (folder.folds()[0].validation_logits).unlink()
    made = report_run(folder.path)
    assert "repeat 1 fold 1: " in checked(made.page).text
    assert "toolkit evaluate RUN" in as_json(made)["missing"]


def test_an_evaluation_is_read_back_whole(whole: RunFolder) -> None:
    told = {name: value for name, value in read_evaluation(whole.evaluation).items() if name not in SEAL}
    assert to_json(read_run(whole.path).evaluation) == told


def test_equal_runs_give_equal_pages(whole: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(whole.path, tmp_path / "elsewhere")
    assert report_run(whole.path).page == report_run(tmp_path / "elsewhere").page


def test_no_path_of_this_machine_is_on_the_page(whole: RunFolder, store: Store) -> None:
    page = report_run(whole.path).page.decode()
    assert str(store.path.parent) not in page
    assert str(whole.path.parent) not in page


def test_the_command(whole: RunFolder, store: Store, tmp_path: Path) -> None:
    def toolkit(*args: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "toolkit", *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    shutil.copytree(whole.path, tmp_path / "run")
    ended = toolkit("report", tmp_path / "run")
    assert (ended.returncode, ended.stderr) == (0, "")
    checked((tmp_path / "run" / "report.html").read_bytes())
    out = tmp_path / "page.html"
    shown = toolkit("report", tmp_path / "run", "--store", store.path, "--out", out, "--json")
    told = json.loads(shown.stdout)
    assert (told["page"], told["best_epoch"], told["epochs"]) == (str(out), KEPT, 30)
    assert told["page_bytes"] == out.stat().st_size
    test = read_predictions(whole.predictions("test"))
    assert told["evaluation"]["auroc"][0] == pytest.approx(roc_auc_score(test.label, test.logit))
    out.write_text("mine")
    kept = toolkit("report", tmp_path / "run", "--out", out)
    assert (kept.returncode, "E-OUT-001" in kept.stderr, out.read_text()) == (2, True, "mine")
    assert toolkit("report", tmp_path / "run", "--out", out, "--force").returncode == 0
    none = toolkit("report", tmp_path / "none")
    assert (none.returncode, "E-RUN-001" in none.stderr, "Traceback" in none.stderr) == (2, True, False)
    (tmp_path / "run" / "evaluation.json").unlink()
    assert "toolkit evaluate RUN" in toolkit("report", tmp_path / "run").stderr


def test_ids_of_the_page_are_unique_and_headings_in_order(whole: RunFolder) -> None:
    page = report_run(whole.path).page.decode()
    levels = [int(n) for n in re.findall(r"<h([1-6])", page)]
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))

"""``toolkit evaluate`` as a user and a script meet it."""

import json
from pathlib import Path

from tests.cli.test_cli import toolkit
from tests.cli.test_predict import here
from tests.inference.runs import make_cohort, single


def test_a_table_a_file_and_json(tmp_path: Path) -> None:
    run = single(tmp_path / "run", make_cohort(tmp_path / "store"))
    ended = toolkit("evaluate", run.path)
    assert ended.returncode == 0, ended.stderr
    for name in ("AUROC", "diameter alone", "difference", "sensitivity", "specificity", "calibration slope"):
        assert name in ended.stdout
    assert str(run.evaluation) in ended.stderr
    answer = here("evaluate", run.path, "--json", "--prevalence", "0.02")
    assert answer.exit_code == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert (found["kind"], found["prevalence"], found["looks"]) == ("evaluation", 0.02, 1)
    assert f"{found['auroc'][0]:.3f}" in ended.stdout


def test_no_run_is_no_traceback(tmp_path: Path) -> None:
    ended = here("evaluate", tmp_path / "nothing")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "E-RUN-001" in ended.stderr

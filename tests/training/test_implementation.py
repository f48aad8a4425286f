"""Plain or fast: what is asked for, what was before, what a trial shows; a run goes on as it began."""

import json
from pathlib import Path
from typing import Any, Literal

import pytest

from toolkit.errors import UsageError
from toolkit.training.config import from_table
from toolkit.training.implementation import GAIN, choose, taken_before, verdict
from toolkit.training.precision import Decision, Impl
from toolkit.training.run_folder import RunFolder

DECIDED = Decision("float32", "off", "float32")


def chosen(
    table: dict[str, Any], kind: Literal["cpu", "cuda"] = "cuda", before: tuple[Impl, str] | None = None
) -> tuple[str, str]:
    found = choose(from_table(table), kind, DECIDED, before, lambda decision: ("fast", "won the trial"))
    assert (found.amp, found.compile) == (DECIDED.amp, DECIDED.compile)
    return found.impl, found.why


def test_auto_takes_what_was_before_then_a_trial_on_a_gpu_and_plain_elsewhere() -> None:
    assert chosen({}) == ("fast", "float32; fast network (won the trial)")
    assert chosen({}, before=("plain", "it lost")) == ("plain", "float32; plain network (it lost)")
    assert chosen({}, "cpu", before=("fast", "it won"))[0] == "fast"
    assert chosen({}, "cpu")[0] == "plain"


def test_what_is_asked_for_is_taken() -> None:
    for impl in ("plain", "fast"):
        assert chosen({"compute": {"impl": impl}}, "cpu", before=("plain", ""))[0] == impl


def test_only_our_networks_have_a_fast_twin() -> None:
    other = {"name": "monai.networks.nets:ResNet"}
    assert chosen({"model": other}) == ("plain", "float32")
    with pytest.raises(UsageError, match=r"E-CONF-002.*ResNet.*densenet121"):
        chosen({"model": other, "compute": {"impl": "fast"}})


def test_fast_must_win_by_more_than_noise() -> None:
    assert verdict([1.0, 5.0, 1.0], [1 - GAIN / 2] * 3)[0] == "plain"
    told = "a step takes 940.0 ms fast, 1000.0 ms plain"
    assert verdict([1.0, 1.0, 0.1], [1 - 2 * GAIN] * 3) == ("fast", told)


def test_a_run_remembers_what_it_took(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert taken_before(run) is None
    fold = tmp_path / "folds" / "fold-001"
    fold.mkdir(parents=True)
    (fold / "environment.json").write_text(json.dumps({"impl": "fast", "impl_why": "it won"}))
    assert taken_before(run) == ("fast", "it won")
    run.environment.write_text(json.dumps({"impl": "anything", "impl_why": ""}))
    assert taken_before(run) == ("fast", "it won")
    run.environment.write_text(json.dumps({"impl": "plain", "impl_why": "it lost"}))
    assert taken_before(run) == ("plain", "it lost")

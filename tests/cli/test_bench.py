"""``toolkit bench`` by command, at toy size."""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tests.bench.schema import SCHEMA, wrong
from toolkit.bench import augment
from toolkit.bench.record import append, figure
from toolkit.bench.run import STAGES
from toolkit.bench.setting import TOY
from toolkit.bench.stopwatch import Effort
from toolkit.cli import app
from toolkit.training.config import read_config
from toolkit.training.precision import Decision

command = importlib.import_module("toolkit.cli.bench")  # the package holds the function by this name
pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning:nvidia")


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_how", lambda kind, quick: (TOY, Effort(2, 0.0)))
    # whatever this machine's processor can do
    monkeypatch.setattr("toolkit.bench.setting.decide", lambda *given: Decision("float32", "off", ""))


def call(*words: Any) -> Result:
    return CliRunner().invoke(app, ["bench", *map(str, words)])


def test_the_names_are_those_of_the_stages() -> None:
    assert [*STAGES] == [*command.NAMES]


def test_json_record_and_settings(tmp_path: Path) -> None:
    words = [
        "train",
        "loader",
        "--device",
        "cpu",
        "--json",
        "--out",
        tmp_path,
        "--write-config",
        tmp_path / "s.toml",
    ]
    done = call(*words)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert wrong(told, SCHEMA) == []
    (path,) = tmp_path.glob("*.jsonl")
    rows = [json.loads(text) for text in path.read_text().splitlines()]
    assert [row["name"] for row in rows] == [each["name"] for each in told["figures"]]
    assert all(wrong(row, SCHEMA["$defs"]["line"]) == [] for row in rows)
    advised = {each["key"]: each["value"] for each in told["advice"]}
    assert read_config(tmp_path / "s.toml").batch == advised["batch"]


def test_the_table_has_every_figure() -> None:
    done = call("extract", "--device", "cpu")
    assert done.exit_code == 0, done.output
    for name in ("ceiling/copy", "extract/kernel oblique", "% of copy", "extract/peak memory"):
        assert name in done.stdout


def test_on_red_no_figure_and_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = augment.augment
    monkeypatch.setattr(augment, "augment", lambda *given, **more: right(*given, **more) + np.float32(0.01))
    done = call("augment", "--device", "cpu", "--out", tmp_path / "r.jsonl")
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "E-BENCH-001" in done.stderr
    assert not (tmp_path / "r.jsonl").exists()


def test_compare_ends_with_1_where_something_changed(tmp_path: Path) -> None:
    for name, value in (("a", 100.0), ("b", 80.0), ("c", 101.0)):
        append([figure("train/step", [value] * 5, "samples/s")], tmp_path / name)
    slower = call("compare", tmp_path / "a", tmp_path / "b")
    assert slower.exit_code == 1
    assert "0.800" in slower.stdout
    assert "worse" in slower.stdout
    assert call("compare", tmp_path / "a", tmp_path / "c").exit_code == 0
    assert call("compare", tmp_path / "a", tmp_path / "b", "--band", 0.5).exit_code == 0
    told = json.loads(call("compare", tmp_path / "a", tmp_path / "b", "--json").stdout)
    assert told["changed"] is True
    assert told["changes"][0]["ratio"] == pytest.approx(0.8)


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["compare", "a"],
        ["compare", "a", "b", "--quick"],
        ["compare", "absent-a", "absent-b"],
        ["read", "--band", "0.1"],
        ["read", "--write-config", "s.toml"],
    ],
)
def test_the_impossible_is_refused(words: list[str]) -> None:
    assert call(*words).exit_code == 2

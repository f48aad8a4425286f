"""Records come back from disk as they were, or are refused by name."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.curves import records
from toolkit.errors import UsageError
from toolkit.evaluation.results import Interval, from_json, to_json
from toolkit.training.config import Metric
from toolkit.training.record import EpochRecord, read_records, selection_value, write_records


@pytest.fixture
def made() -> list[EpochRecord]:
    rng = np.random.default_rng(0)
    label = (np.arange(60) < 15).astype(np.float64)
    return records(rng.normal(size=(4, 60)) + label, label, [0.1, 0.2, 0.3, 1 / 3])


def test_come_back_to_the_last_bit(tmp_path: Path, made: list[EpochRecord]) -> None:
    made[1] = replace(made[1], train_loss=1 / 3, why="sætning", noise=0.1 + 0.2)
    write_records(tmp_path / "metrics.jsonl", made)
    back = read_records(tmp_path / "metrics.jsonl")
    assert back[1] == made[1]  # the others have noise that is not known, and NaN equals nothing
    assert [replace(each, noise=0.0) for each in back] == [replace(each, noise=0.0) for each in made]
    assert math.isnan(back[0].noise)


def test_are_one_line_an_epoch_of_plain_json(tmp_path: Path, made: list[EpochRecord]) -> None:
    path = tmp_path / "metrics.jsonl"
    nowhere = Interval(math.nan, math.nan, math.inf)
    made[0] = replace(made[0], val=replace(made[0].val, auroc=nowhere))
    write_records(path, made)
    lines = [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert lines[0]["val"]["auroc"] == [None, None, None]
    assert lines[1]["val"]["auroc"] == list(made[1].val.auroc)
    assert lines[3]["val"]["at_threshold"]["threshold"] == 1 / 3
    write_records(path, made[:1])
    assert len(read_records(path)) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_an_older_line_may_lack_what_has_a_default(made: list[EpochRecord]) -> None:
    value = to_json(made[0])
    del value["noise"], value["why"]
    assert from_json(EpochRecord, value).why == ""


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda text: text[:-40], "line 4 is damaged"),
        (lambda text: text.replace('"lr"', '"rl"', 1), "line 1 is damaged"),
        (lambda text: text.replace('"epoch":2', '"epoch":7'), "line 2 is epoch 7"),
        (lambda text: text.replace('"epoch":2', '"epoch":"2"'), "line 2 is damaged"),
        (lambda text: text.replace('"lr":0.001', '"lr":true', 1), "line 1 is damaged"),
        (lambda text: "[1]\n" + text, "line 1 is damaged"),
        (lambda text: "\ud800", "it is no text"),
    ],
)
def test_damage_is_named(tmp_path: Path, made: list[EpochRecord], spoil: object, told: str) -> None:
    path = tmp_path / "metrics.jsonl"
    write_records(path, made)
    path.write_bytes(spoil(path.read_text()).encode("utf-8", "surrogatepass"))  # type: ignore[operator]
    with pytest.raises(UsageError) as caught:
        read_records(path)
    assert caught.value.problem.code == "E-RUN-001"
    assert told in caught.value.problem.public
    assert str(tmp_path) not in caught.value.problem.public


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="E-RUN-001"):
        read_records(tmp_path / "metrics.jsonl")


@pytest.mark.parametrize(
    ("metric", "of"),
    [
        ("auroc", lambda val: val.auroc.value),
        ("average_precision", lambda val: val.average_precision.value),
        ("balanced_accuracy", lambda val: val.at_threshold.balanced_accuracy.value),
        ("f_beta", lambda val: val.at_threshold.f_beta.value),
        ("loss", lambda val: -val.loss),
    ],
)
def test_higher_is_better(made: list[EpochRecord], metric: Metric, of: object) -> None:
    assert selection_value(made[3].val, metric) == of(made[3].val)  # type: ignore[operator]

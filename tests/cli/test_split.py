"""``toolkit split`` as a user and a script meet it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.cli.test_cli import toolkit
from tests.loading.records import nodule
from tests.loading.split_stores import make_store, texture
from toolkit.loading.split import SIDES
from toolkit.loading.split_file import read_split
from toolkit.store import Nodule, Store


def cohort(split: str = "") -> list[Nodule]:
    return [nodule(f"n{i:02}", f"p{i // 2}", float(i % 8 < 2), 5.0 + i % 4 * 4, split) for i in range(48)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("cli") / "store", cohort())


def test_a_holdout_is_written_and_shown(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "split.json"
    ended = toolkit("split", store.path, "--out", out, "--holdout", "0.25/0.25")
    assert ended.returncode == 0, ended.stderr
    assert "malignant" in ended.stdout
    assert str(out) in ended.stderr
    part = read_split(out, store).partitions[0]
    assert [len(part.side(side)) for side in SIDES] == [24, 12, 12]
    first = out.read_bytes()
    assert toolkit("split", store.path, "--out", out, "--holdout", ".25/.25").returncode == 0
    assert out.read_bytes() == first
    assert toolkit("split", store.path, "--out", out, "--holdout", ".25/.25", "--seed", 1).returncode == 0
    assert out.read_bytes() != first


def test_folds_as_json(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "split.json"
    ended = toolkit("split", store.path, "--out", out, "--folds", 3, "--repeats", 2, "--json")
    answer = json.loads(ended.stdout)
    assert len(answer["partitions"]) == len(read_split(out, store).partitions) == 6
    for part in answer["partitions"]:
        assert sum(side["nodules"] for side in part["counts"].values()) == 48
        assert part["counts"]["test"] == {
            "patients": 8, "nodules": 16, "benign": 12, "malignant": 4, "unknown": 0
        }  # fmt: skip


def test_sides_of_the_manifest_are_the_default_where_all_have_one(tmp_path: Path) -> None:
    records = [replace(n, split="test" if n.patient_id < "p12" else "train") for n in cohort()]
    made = make_store(tmp_path / "s", records)
    out = tmp_path / "split.json"
    answer = json.loads(toolkit("split", made.path, "--out", out, "--json").stdout)
    assert answer["rule"] == "from store"
    assert {*read_split(out, made).partitions[0].test} == {n.nodule_id for n in records if n.split == "test"}
    answer = json.loads(toolkit("split", made.path, "--out", out, "--holdout", ".2/.2", "--json").stdout)
    assert answer["rule"] == "holdout 0.2/0.2"


def test_a_manifest_that_leaks_is_refused(tmp_path: Path) -> None:
    records = [replace(n, split="train") for n in cohort()]
    records[1] = replace(records[1], split="test")
    out = tmp_path / "split.json"
    ended = toolkit("split", make_store(tmp_path / "a", records).path, "--out", out)
    assert (ended.returncode, out.exists()) == (2, False)
    assert "E-SPLIT-004" in ended.stderr
    assert "p0 in train and test" in ended.stderr

    records = [nodule(f"n{i}", f"p{i}", 0.0, split="test" if i == 2 else "train") for i in range(5)]

    images = np.stack([texture(i % 4) for i in (0, 1, 1, 2, 3)])
    store = make_store(tmp_path / "b", records, images)
    ended = toolkit("split", store.path, "--out", out)
    assert (ended.returncode, out.exists()) == (2, False)
    assert "E-SPLIT-005" in ended.stderr
    assert toolkit("split", store.path, "--out", out, "--allow-similar").returncode == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--folds", 13), "E-SPLIT-002"),
        (("--folds", 1), "--folds"),
        (("--folds", 3, "--holdout", ".1/.1"), "E-SPLIT-006"),
        (("--folds", 3, "--inner-val", 1.5), "inner-val"),
        (("--holdout", "a/b"), "--holdout"),
        (("--holdout", "0.6/0.6"), "E-SPLIT-006"),
        (("--from-store",), "E-SPLIT-006"),
        (("--repeats", 2), "--repeats means nothing without --folds"),
        (("--holdout", ".1/.1", "--inner-val", 0.2), "--inner-val means nothing"),
        (("--folds", 3, "--allow-similar"), "--allow-similar means nothing"),
    ],
)
def test_a_wrong_request_is_explained(store: Store, tmp_path: Path, args, said: str) -> None:
    ended = toolkit("split", store.path, "--out", tmp_path / "s.json", *args, COLUMNS="300")
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "s.json").exists()


def test_no_store_is_no_traceback(tmp_path: Path) -> None:
    ended = toolkit("split", tmp_path / "nothing", "--out", tmp_path / "s.json")
    assert (ended.returncode, "E-STORE-001" in ended.stderr) == (2, True)

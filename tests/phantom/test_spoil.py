"""Every spoiled case has the fate that its table states, through the command line as a user has it."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from toolkit.phantom.archive import write_archive
from toolkit.phantom.spoil import COLUMNS, DEFECTS, Defect
from toolkit.preprocess.identity import IdKey
from toolkit.store import Store
from toolkit.store.ledger import committed, read_ledger

FORMATS = ("dicom", "nifti")
SAME_SCAN = ("shuffled", "copied-slice", "localizer", "varying-rescale")


@dataclass(frozen=True)
class Fates:
    """What `index` and `preprocess` said, by case id or by path of a file."""

    expected: dict[str, dict[str, str]]
    indexed: dict[str, str]
    refused: dict[str, str]
    notes: dict[str, set[str]]
    exit_codes: tuple[int, int]
    talk: str


def toolkit(archive: Path, command: str, *args: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "toolkit", command, archive, *args, "--json"]
    line += ["--index-cache", archive.parent / "index", "--workers", 2]
    ended = subprocess.run([*map(str, line)], capture_output=True, text=True, check=False, env=os.environ)
    assert "Traceback" not in ended.stderr
    return ended


def preprocessed(archive: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    store = archive.parent / "store"
    return store, toolkit(archive, "preprocess", store, "--size", 48, "--margin", 2, "--id-key", "test")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("spoiled") / "archive"
    write_archive(out, patients=2, seed=4, formats=FORMATS, spoil=True)
    return out


@pytest.fixture(scope="module")
def fates(archive: Path) -> Fates:
    with (archive / "spoiled/expected.csv").open(newline="") as file:
        expected = {Path(row["path"]).parts[1]: row for row in csv.DictReader(file)}
    index = toolkit(archive, "index", "--out", archive.parent / "cases.csv")
    shown = json.loads(index.stdout)
    indexed = {case["case_id"]: case["code"] or "" for case in shown["cases"]}
    indexed |= {file: problem["code"] for problem in shown["refused"] for file in problem["files"]}
    store, ended = preprocessed(archive)
    summary = json.loads(ended.stdout)
    refused = {failure["case_id"]: failure["code"] for failure in summary["failures"]}
    refused |= {file: problem["code"] for problem in summary["files"] for file in problem["files"]}
    notes = {}
    for shard in committed(store):
        notes |= {
            entry.case_id: {code for code, _ in entry.facts["notes"]}
            for entry in read_ledger(store, shard)
            if entry.facts
        }
    codes = index.returncode, ended.returncode
    return Fates(expected, indexed, refused, notes, codes, index.stderr + ended.stderr)


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_fate(archive: Path, fates: Fates, defect: Defect) -> None:
    row = fates.expected[defect.name]
    assert tuple(row) == COLUMNS
    assert (archive / row["path"]).exists()
    assert (row["outcome"], row["code"], row["hazard"]) == (defect.outcome, defect.code, defect.hazard)
    name = row["case_id"] or str(archive / row["path"])
    if row["case_id"]:
        assert name in fates.indexed, "the index calls it otherwise"
    notes = fates.notes.get(IdKey(b"test").hash("case", row["case_id"]), set())
    if defect.outcome == "refused":
        assert row["code"].startswith("E-")
        assert fates.refused[name] == row["code"]
        assert fates.indexed.get(name, "") in ("", row["code"]), "headers alone say something else"
    else:
        assert name not in fates.refused
        assert notes == ({row["code"]} if defect.outcome == "warning" else set())
        assert row["code"].startswith("W-") == (defect.outcome == "warning")


def test_nothing_else_is_refused_and_every_case_is_in_the_table(archive: Path, fates: Fates) -> None:
    known = {row["case_id"] or str(archive / row["path"]) for row in fates.expected.values()}
    assert fates.refused.keys() <= known
    found = {name for name in fates.indexed if name not in known}
    assert len(found) == 2, "a case that is neither healthy nor in the table"
    assert len(fates.expected) == len(DEFECTS) == len({defect.name for defect in DEFECTS})
    assert fates.exit_codes == (8, 8)


def crops(store: Store, case_id: str) -> list[tuple[np.ndarray, np.ndarray]]:
    hashed = IdKey(b"test").hash("case", case_id)
    return [
        (store.image(k), store.mask(k)) for k, nodule in enumerate(store.nodules) if nodule.case_id == hashed
    ]


def test_what_is_read_is_read_right(archive: Path, fates: Fates) -> None:
    store = Store.open(archive.parent / "store")
    by_name = {name: crops(store, row["case_id"]) for name, row in fates.expected.items() if row["case_id"]}
    read = [defect.name for defect in DEFECTS if defect.outcome == "read"]
    assert all(len(by_name[name]) == 1 for name in (*read, *SAME_SCAN))
    (image, mask) = by_name["shuffled"][0]
    assert mask.any()
    for name in SAME_SCAN:
        np.testing.assert_array_equal(by_name[name][0][0], image)
        np.testing.assert_array_equal(by_name[name][0][1], mask)
    padded = by_name["unsigned-padding"][0][0]
    assert padded.max() <= image.max(), "padding was read as a bright value"
    middle = np.s_[16:36, 16:36, 16:36]
    np.testing.assert_array_equal(padded[middle], image[middle])
    assert not np.array_equal(by_name["tilted"][0][0], image)


def test_healthy_cases_beside_them_are_untouched(archive: Path, tmp_path: Path) -> None:
    healthy = tmp_path / "healthy"
    write_archive(healthy, patients=2, seed=4, formats=FORMATS)
    path, ended = preprocessed(healthy)
    assert ended.returncode == 0
    alone, beside = Store.open(path), Store.open(archive.parent / "store")
    there = {nodule.nodule_id: k for k, nodule in enumerate(beside.nodules)}
    assert len(alone.nodules) > 0
    for k, nodule in enumerate(alone.nodules):
        other = there[nodule.nodule_id]
        assert beside.nodules[other] == nodule
        np.testing.assert_array_equal(beside.image(other), alone.image(k))
        np.testing.assert_array_equal(beside.mask(other), alone.mask(k))

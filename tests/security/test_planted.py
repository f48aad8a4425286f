"""Names, numbers, dates, descriptions, UIDs and file names of an archive are in no byte of what we write.

One archive goes the whole way. The ways back are exceptions, and private: the crosswalk, the user's own index
and the table that --names asks for. What `toolkit index` writes is a manifest: names are its purpose.
"""

import json
import os
import stat
import subprocess
import sys
import zlib
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from tests.archive.dicom_files import write_all
from tests.security.planted import (
    ID,
    NODULE,
    PATIENTS,
    REGION,
    UID,
    held,
    slices,
    write_planted,
)
from toolkit.archive.case import Case
from toolkit.archive.catalog import catalog
from toolkit.archive.dicom_series import SeriesRules
from toolkit.archive.index_cache import IndexCache
from toolkit.archive.region_rule import RegionRule
from toolkit.cli import app
from toolkit.cli.guard import fail
from toolkit.cli.index_shown import show
from toolkit.cli.refusals import tell_refusals
from toolkit.preprocess.crosswalk import read_crosswalk, write_crosswalk
from toolkit.preprocess.identity import IdKey
from toolkit.preprocess.job import Summary
from toolkit.preprocess.pool import Failed, death
from toolkit.store import Store
from toolkit.store.ledger import committed, read_ledger

TOML = """
epochs = 1
batch = 4
[model]
name = "densenet-small"
[input]
size = 16
[augment]
preset = "light"
[selection]
min_epochs = 1
smoothing = 1
[compute]
threads = 1
[logging]
wandb = "offline"
"""


def call(*args: object, code: int = 0) -> Result:
    ended = CliRunner().invoke(app, [*map(str, args)])
    assert ended.exit_code == code, ended.output
    return ended


def files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def telling(folder: Path) -> dict[str, set[str]]:
    """Return the files that hold a token, and which."""
    return {path.relative_to(folder).as_posix(): found for path in files(folder) if (found := held(path))}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The archive, and a folder with all that was made of it."""
    base = tmp_path_factory.mktemp("planted")
    archive, out = base / f"{ID}-archive", base / "out"
    write_planted(archive)
    out.mkdir()
    index = ("--index-cache", base / "index", "--workers", 1)
    key = ("--id-key", "secret")
    call(
        "index", archive, "--out", base / "cases.csv", "--files", base / "files.csv", "--deep", *index, code=8
    )
    store, run = out / "store", out / "run"
    crop = ("--size", 16, "--margin", 2)
    call("preprocess", archive, store, *crop, *index, *key, "--json", code=8)
    call("inspect", store)
    call("split", store, "--out", out / "split.json", "--holdout", "0.3/0.3")
    (base / "settings.toml").write_text(TOML)
    words = (
        "train",
        store,
        run,
        "--config",
        base / "settings.toml",
        "--device",
        "cpu",
        "--split",
        out / "split.json",
    )
    trained = subprocess.run(  # wandb keeps threads until its process ends
        [sys.executable, "-m", "toolkit", *map(str, words)],
        capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "WANDB_MODE": "offline", "WANDB_BASE_URL": "http://127.0.0.1:9",
             "WANDB_CONFIG_DIR": str(base / "home"), "WANDB_CACHE_DIR": str(base / "home")},
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    call("evaluate", run, "--device", "cpu")
    call("report", run)
    call("verify", store)
    more = ("--device", "cpu", *index, *key)
    call("predict", run, archive, "--out", out / "predicted.csv", "--keep-store", out / "kept", *more, code=8)
    call("predict", run, store, "--out", base / "named.csv", "--names", "--device", "cpu")
    return base, out


@pytest.mark.slow
def test_no_token_is_in_any_byte(places: tuple[Path, Path]) -> None:
    _, out = places
    kinds = {path.suffix for path in files(out)} | {path.name.split(".")[0] for path in files(out)}
    assert {".html", ".jsonl", ".npy", ".csv", ".json", ".safetensors", ".wandb", "events"} <= kinds
    crosswalks = {"store.crosswalk.csv", "kept.crosswalk.csv"}
    assert {*telling(out)} == crosswalks


@pytest.mark.slow
def test_the_refused_are_there_without_their_names(places: tuple[Path, Path]) -> None:
    _, out = places
    entries = [e for shard in committed(out / "store") for e in read_ledger(out / "store", shard)]
    codes = {entry.code for entry in entries if entry.status == "refused"}
    assert {"E-GEO-003", "E-HU-001", "E-DCM-003", "E-FILE-002", "E-RT-002", "E-LIDC-001"} <= codes
    assert len(Store.open(out / "store")) == PATIENTS - 1


@pytest.mark.slow
def test_the_ways_back_are_private(places: tuple[Path, Path]) -> None:
    base, out = places
    private = [out / "store.crosswalk.csv", out / "kept.crosswalk.csv", base / "named.csv"]
    private += files(base / "index")
    for path in private:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert held(path) or path.suffix == ".sqlite", path  # the index is packed
    assert ID in (out / "store.crosswalk.csv").read_text()


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    for k, data in enumerate(
        (
            b"x QZNAMEQZ3 x",
            "QZNAMEQZ".encode("utf-16-le"),
            b64encode(b"some words before QZNAMEQZ"),
            zlib.compress(b"QZNAMEQZ" * 9),
            b64encode(zlib.compress(b"QZNAMEQZ" * 9)),
            b'"19171107"',
            f"<b>{UID}.7</b>".encode(),
        )
    ):
        (tmp_path / str(k)).write_bytes(data)
        assert held(tmp_path / str(k)), data
    (tmp_path / "QZFILEQZ").write_bytes(b"")
    assert held(tmp_path / "QZFILEQZ")
    (tmp_path / "none").write_bytes(b"0.191711079 nothing")
    assert not held(tmp_path / "none")


def test_a_manifests_own_names_stay_out_of_the_ledger(tmp_path: Path) -> None:
    """Two lines for one mask need label values: what stands there instead is told on the terminal alone."""
    write_all(tmp_path / "a", slices(1, np.zeros((6, 8, 8), int)))
    (tmp_path / "a" / "m.xml").write_text("<LidcReadMessage/>")
    lines = [f"{ID}1,{ID}1,a,a/m.xml,{NODULE}{k},1" for k in (1, 2)]
    columns = "case_id,patient_id,image,mask,nodule_id,label"
    (tmp_path / "cases.csv").write_text("\n".join([columns, *lines, ""]))
    (case,) = catalog(tmp_path, tmp_path / "cases.csv", SeriesRules(), IndexCache(None)).cases
    assert case.problem is not None
    assert NODULE in str(case.problem)
    assert "QZ" not in case.problem.public  # all that a ledger gets
    assert "line 2" in case.problem.public


def test_an_internal_error_writes_nothing_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(job: object) -> None:
        (tmp_path / "out").mkdir()
        raise RuntimeError(f"{REGION} in {ID}")

    monkeypatch.setattr("toolkit.preprocess.run.preprocess", broken)
    (tmp_path / "a").mkdir()
    ended = call("preprocess", tmp_path / "a", tmp_path / "out" / "store", "--id-key", "secret", code=1)
    assert "Traceback" not in ended.output
    assert files(tmp_path) == []


def test_an_unforeseen_error_in_a_worker_is_told_by_its_type_alone() -> None:
    problem = death(Failed(f"ValueError: {REGION}: {ID}"))
    assert problem.measured == "ValueError"
    assert "QZ" not in json.dumps(vars(problem))


def test_a_name_does_not_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Escape sequences in file names could rename windows, hide lines, or type for the user."""
    (tmp_path / "\x1b]0;owned\x07\x1b[2J\x9b31m.nii").write_bytes(b"x" * 400)
    (tmp_path / os.fsdecode(b"\xff\x1b[1m.nrrd")).write_bytes(b"x" * 400)
    (tmp_path / "\x1b[8m.txt").write_text("x")
    found = catalog(tmp_path, None, SeriesRules(), IndexCache(None))
    show(found, RegionRule())
    failures = [(case.case_id, case.problem) for case in found.cases if case.problem is not None]
    tell_refusals(Summary(2, refused={"E-FILE-003": 2}, failures=failures, ignored=found.ignored))
    with pytest.raises(typer.Exit):
        fail(str(failures[0][1]), 2)
    shown = capsys.readouterr()
    for text in (shown.out, shown.err):
        assert r"\x1b]0;owned\x07" in text
        assert not {"\x1b", "\x07", "\x9b"} & {*text}


def test_a_name_that_is_no_utf_8_does_not_end_the_run(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9-\xff")
    key = IdKey(b"secret")
    assert key.hash("case", name) != key.hash("case", os.fsdecode(b"caf\xe9-\xfe"))
    case = Case(name, name, f"/a/{name}.nii", None)
    write_crosswalk(tmp_path / "store", [case], key)
    write_crosswalk(tmp_path / "store", [case], key)  # and is read again
    assert read_crosswalk(tmp_path / "store")["case", key.hash("case", name)] == (name, f"/a/{name}.nii")
    assert stat.S_IMODE((tmp_path / "store.crosswalk.csv").stat().st_mode) == 0o600

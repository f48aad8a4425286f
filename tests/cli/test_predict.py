"""``toolkit predict`` as a user and a script meet it."""

import csv
import io
import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from tests.cli.test_cli import toolkit
from tests.inference.model_folders import CONTRACT, write_members, write_single
from toolkit.cli import app
from toolkit.store import Store


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    write_single(run / "model")
    return run


@pytest.fixture
def usual(tmp_path: Path) -> tuple[object, ...]:
    return ("--index-cache", tmp_path / "index", "--id-key", "secret")


def here(*args: object) -> Result:
    return CliRunner(env={"NO_COLOR": "1", "COLUMNS": "300"}).invoke(app, [*map(str, args)])


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_straight_road(phantom_archive: Path, model: Path, tmp_path: Path, usual) -> None:
    ended = toolkit("predict", model, phantom_archive, *usual)  # as a user meets it; the rest in this process
    assert ended.returncode == 0, ended.stderr
    rows = table(ended.stdout)
    assert len(rows) > 6
    assert "PHANTOM" not in ended.stdout
    for row in rows:
        assert 0 < float(row["probability"]) < 1
        assert row["decision"] == ("malignant" if float(row["logit"]) >= 0.1 else "benign")
        assert row["spread"] == ""
    assert f"{len(rows)} nodules" in ended.stderr

    out = tmp_path / "new" / "predictions.csv"
    ended = here(
        "predict",
        model / "model",
        phantom_archive,
        *usual,
        "--out",
        out,
        "--names",
        "--json",
        "--device",
        "cpu",
    )
    assert ended.exit_code == 0, ended.stderr
    named, answer = table(out.read_text()), json.loads(ended.stdout)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert {row["patient_name"].removeprefix("nifti/")[:8] for row in named} == {"PHANTOM-"}
    assert [{k: row[k] for k in rows[0]} for row in named] == rows
    assert [float(row["probability"]) for row in rows] == [row["probability"] for row in answer["nodules"]]
    assert (answer["exit_code"], answer["refused"], answer["threshold"]) == (0, [], 0.1)


def test_an_ensemble_tells_how_far_its_members_disagree(phantom_store: Store, tmp_path: Path, usual) -> None:
    write_members(tmp_path / "model")
    ended = here("predict", tmp_path, phantom_store.path, *usual)
    assert ended.exit_code == 0, ended.stderr
    assert all(float(row["spread"]) > 0 for row in table(ended.stdout))


def test_a_part_that_is_refused_is_named(phantom_archive: Path, model: Path, tmp_path: Path, usual) -> None:
    lines = (phantom_archive / "cases.csv").read_text()
    header = lines.splitlines(keepends=True)[0]
    lost = "".join(f"LOST-{k:02},LOST,nifti/gone.nii.gz" + 7 * "," + "\n" for k in range(25))
    manifest = phantom_archive / "predict_some.csv"
    manifest.write_text(lines + lost)
    ended = here("predict", model, phantom_archive, *usual, "--cases", manifest)
    assert ended.exit_code == 8
    assert table(ended.stdout)
    for k in range(25):
        assert f"refused LOST-{k:02}: E-FILE-001" in ended.stderr
    manifest.write_text(header + lost)
    out = tmp_path / "p.csv"
    ended = here("predict", model, phantom_archive, *usual, "--cases", manifest, "--out", out)
    assert (ended.exit_code, ended.stdout, out.exists()) == (4, "", False)
    assert "no nodule could be read" in ended.stderr
    answer = json.loads(here("predict", model, phantom_archive, *usual, "--cases", manifest, "--json").stdout)
    assert (answer["nodules"], len(answer["refused"]), answer["exit_code"]) == ([], 25, 4)


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("{tmp}/empty", "{archive}"), 2, "E-RUN-001"),
        (("{tmp}/nothing", "{archive}"), 2, "E-RUN-001"),
        (("{model}", "{tmp}/nothing"), 2, "E-FILE-001"),
        (("{model}", "{tmp}/empty"), 3, "E-CASE-004"),
        (("{model}", "{archive}", "--prevalence", "1.5"), 2, "E-PRED-004"),
        (("{model}", "{archive}", "--keep-store", "{tmp}/full"), 2, "E-STORE-001"),
        (("{model}", "{archive}", "--region", "("), 2, "regular expression"),
        (("{model}", "{archive}", "--id-key", "{tmp}/no.key"), 2, "E-KEY-001"),
        (("{other}", "{store}"), 2, "E-PRED-001"),
        (("{damaged}", "{archive}"), 2, "E-MODEL-002"),
        (("{model}", "{archive}", "--device", "cuda"), 2, "E-DEV-001"),
    ],
)
def test_a_wrong_request_is_explained(
    phantom_archive: Path, phantom_store: Store, model: Path, tmp_path: Path, args, code: int, said: str
) -> None:
    if said == "E-DEV-001":
        from toolkit.device import _why_no_gpu

        if not _why_no_gpu():
            pytest.skip("there is a GPU")
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").write_text("years of work")
    write_single(tmp_path / "other", input=replace(CONTRACT, spacing_mm=0.7))
    write_single(tmp_path / "damaged")
    weights = tmp_path / "damaged" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    places = {
        "tmp": tmp_path,
        "archive": phantom_archive,
        "model": model,
        "store": phantom_store.path,
        "other": tmp_path / "other",
        "damaged": tmp_path / "damaged",
    }
    filled = [arg.format(**places) for arg in args]
    ended = here("predict", *filled, "--index-cache", tmp_path / "index")
    assert ended.exit_code == code, ended.stderr
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


@pytest.mark.real
def test_a_real_scan_from_its_files_to_a_table(lidc_scan: Path, model: Path, usual) -> None:
    ended = here("predict", model, lidc_scan, *usual)
    assert ended.exit_code == 0, ended.stderr
    rows = table(ended.stdout)
    assert len(rows) == 1  # one nodule of at least 3 mm that all four readers outlined
    assert abs(float(rows[0]["diameter_mm"]) - 23.4) < 1.0


@pytest.mark.real
def test_a_dirty_archive_names_every_scan_that_was_left_out(dirty_archive: Path, model: Path, usual) -> None:
    ended = here("predict", model, dirty_archive, *usual, "--json")
    assert ended.exit_code == 4, ended.stderr  # nothing is marked in it
    answer = json.loads(ended.stdout)
    assert answer["nodules"] == []
    assert {"E-GEO-001", "E-GEO-002", "E-GEO-003"} <= {each["code"] for each in answer["refused"]}
    for each in answer["refused"]:
        assert f"refused {each['case_name']}: {each['code']}" in ended.stderr
    for name in answer["empty"]:
        assert f"empty {name}" in ended.stderr
    for each in answer["files"]:
        assert each["problem"] in ended.stderr

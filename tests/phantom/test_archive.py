import csv
import hashlib
import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from toolkit.cli.phantom import phantom
from toolkit.errors import UsageError
from toolkit.phantom.archive import TRUTH_COLUMNS, write_archive

app = typer.Typer()
app.command()(phantom)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in sorted(folder.rglob("*"))
        if f.is_file()
    }


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "out"
    write_archive(out, patients=4, seed=9)
    return out


def test_same_bytes_for_any_number_of_patients_and_processes(archive: Path, tmp_path: Path) -> None:
    write_archive(tmp_path / "two", patients=2, seed=9, workers=2)
    whole, part = digests(archive), digests(tmp_path / "two")
    shared = set(part) - {"truth.csv", "cases.csv", "phantom.json"}
    assert len(shared) > 30
    assert {name: whole[name] for name in shared} == {name: part[name] for name in shared}
    for table in ("truth.csv", "cases.csv"):
        assert (archive / table).read_text().startswith((tmp_path / "two" / table).read_text())


def test_layout_and_truth(archive: Path) -> None:
    assert sorted(p.name for p in (archive / "dicom").iterdir()) == ["PHANTOM-0001", "PHANTOM-0003"]
    assert (archive / "dicom/PHANTOM-0001/PHANTOM-0001.xml").is_file()
    assert sorted(p.name for p in (archive / "nifti").iterdir()) == [
        "PHANTOM-0002.nii.gz",
        "PHANTOM-0002_mask.nii.gz",
        "PHANTOM-0004.nii.gz",
        "PHANTOM-0004_mask.nii.gz",
    ]
    with (archive / "truth.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == TRUTH_COLUMNS
    assert not {"image", "mask", "path"} & set(TRUTH_COLUMNS), "the truth must not pass for a manifest"
    assert {r["patient_id"]: r["format"] for r in rows}["PHANTOM-0002"] == "nifti"
    assert {r["label"] for r in rows} <= {"0", "1"}
    assert all(4 <= float(r["surface_diameter_mm"]) <= 30 for r in rows)


def test_a_phantom_is_replaced_and_anything_else_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_archive(out, patients=2, seed=1, formats=["nifti"])
    (out / "nifti" / "notes.txt").write_text("mine")
    write_archive(out, patients=1, seed=1, formats=["nifti"])
    assert sorted(p.name for p in (out / "nifti").iterdir()) == [
        "PHANTOM-0001.nii.gz",
        "PHANTOM-0001_mask.nii.gz",
        "notes.txt",
    ]
    other = tmp_path / "other"
    other.mkdir()
    (other / "scan.dcm").write_bytes(b"patient")
    with pytest.raises(UsageError, match="E-OUT-001"):
        write_archive(other, patients=1, seed=1)
    assert [p.name for p in other.iterdir()] == ["scan.dcm"]
    with pytest.raises(UsageError, match="E-OUT-001"):
        write_archive(other / "scan.dcm", patients=1, seed=1)


def test_command(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(
        app, [str(out), "--patients", "1", "--seed", "2", "--format", "nifti", "--json"]
    )
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["patients"] == 1
    assert summary["formats"] == {"nifti": 1}
    assert "1 patients (1 nifti)" in result.stderr
    quiet = CliRunner().invoke(app, [str(out), "--patients", "1", "--format", "nifti"])
    assert quiet.stdout == ""
    assert CliRunner().invoke(app, [str(out), "--format", "pdf"]).exit_code == 2
    assert CliRunner().invoke(app, [str(out), "--patients", "0"]).exit_code == 2

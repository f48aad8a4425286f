import csv
import hashlib
import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from toolkit.archive.catalog import catalog
from toolkit.archive.dicom_series import SeriesRules
from toolkit.archive.index_cache import IndexCache
from toolkit.cli.phantom import FormatChoice, phantom
from toolkit.errors import UsageError
from toolkit.phantom.archive import TRUTH_COLUMNS, write_archive
from toolkit.phantom.formats import FORMATS

app = typer.Typer()
app.command()(phantom)
TABLES = ("truth.csv", "cases.csv", "labels.csv", "mhd/annotations.csv", "mhd/candidates.csv")


def digests(folder: Path) -> dict[str, str]:
    return {
        str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in sorted(folder.rglob("*"))
        if f.is_file()
    }


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "out"
    write_archive(out, patients=8, seed=9, spoil=True)
    return out


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_same_bytes_for_any_number_of_patients_and_processes(archive: Path, tmp_path: Path) -> None:
    write_archive(tmp_path / "some", patients=7, seed=9, workers=2, spoil=True)
    whole, part = digests(archive), digests(tmp_path / "some")
    shared = set(part) - {*TABLES, "phantom.json"}
    assert len(shared) > 500
    assert {name: whole[name] for name in shared} == {name: part[name] for name in shared}
    for table in TABLES:
        assert (archive / table).read_text().startswith((tmp_path / "some" / table).read_text())


def test_a_patient_is_the_same_among_other_formats(archive: Path, tmp_path: Path) -> None:
    write_archive(tmp_path / "few", patients=3, seed=9, formats=("nifti", "nrrd", "seg"))
    whole, part = digests(archive), digests(tmp_path / "few")
    shared = [name for name in part if name.startswith("seg/PHANTOM-0003/")]
    assert len(shared) > 20
    assert all(part[name] == whole[name] for name in shared)


def test_layout_and_truth(archive: Path) -> None:
    assert sorted(p.name for p in (archive / "dicom").iterdir()) == ["PHANTOM-0001", "PHANTOM-0008"]
    assert (archive / "dicom/PHANTOM-0001/PHANTOM-0001.xml").is_file()
    assert (archive / "seg/PHANTOM-0003/segmentation.dcm").is_file()
    assert (archive / "rtstruct/PHANTOM-0004/structures.dcm").is_file()
    assert sorted(p.name for p in (archive / "nifti").iterdir()) == [
        "PHANTOM-0002.nii.gz",
        "PHANTOM-0002_mask.nii.gz",
    ]
    assert sorted(p.name for p in (archive / "nrrd").iterdir()) == [
        "PHANTOM-0006.nrrd",
        "PHANTOM-0006.seg.nrrd",
    ]
    assert sorted(p.name for p in (archive / "enhanced/PHANTOM-0007").iterdir()) == [
        "PHANTOM-0007.dcm",
        "PHANTOM-0007.xml",
    ]
    assert {p.suffix for p in (archive / "mhd").iterdir()} == {".mhd", ".raw", ".csv"}
    truth = rows(archive / "truth.csv")
    assert tuple(truth[0]) == TRUTH_COLUMNS
    assert not {"image", "mask", "path"} & set(TRUTH_COLUMNS), "the truth must not pass for a manifest"
    dealt = {r["patient_id"]: r["format"] for r in truth}
    assert [*dealt.values()] == [*FORMATS, "dicom"]
    assert {r["label"] for r in truth} <= {"0", "1"}
    assert all(4 <= float(r["surface_diameter_mm"]) <= 30 for r in truth)


def test_the_manifest_pairs_files_that_are_there(archive: Path) -> None:
    truth = {(r["patient_id"], r["nodule"]): r for r in rows(archive / "truth.csv")}
    cases = rows(archive / "cases.csv")
    assert {r["case_id"] for r in cases} == {patient for patient, _ in truth}
    for row in cases:
        form = row["image"].split("/")[0]
        assert (archive / row["image"]).exists()
        assert (row["mask"] == "") == (form == "mhd")
        assert not row["mask"] or (archive / row["mask"]).is_file()
        if form in ("dicom", "enhanced"):
            assert row["label"] == row["nodule_id"] == ""
            continue
        known = truth.pop((row["patient_id"], row["nodule_id"]))
        assert row["label"] == known["label"]
        if form == "mhd":
            assert all(row[name] == known[name] for name in ("x_mm", "y_mm", "z_mm", "diameter_mm"))
    assert {r["format"] for r in truth.values()} == {"dicom", "enhanced"}, "a nodule without a line"


def test_labels_stand_where_no_reader_gave_any(archive: Path) -> None:
    labels = rows(archive / "labels.csv")
    truth = rows(archive / "truth.csv")
    unread = [r for r in truth if r["format"] not in ("dicom", "enhanced")]
    places = ("x_mm", "y_mm", "z_mm", "label")
    assert [[r[n] for n in places] for r in labels] == [[r[n] for n in places] for r in unread]
    found = catalog(archive, None, SeriesRules(), IndexCache(archive.parent / "index"), open_cases=False)
    assert {r["case_id"] for r in labels} <= {case.case_id for case in found.cases}


def test_luna_tables_hold_every_series_of_their_folder(archive: Path) -> None:
    truth = [r for r in rows(archive / "truth.csv") if r["format"] == "mhd"]
    annotations = rows(archive / "mhd/annotations.csv")
    assert [float(r["diameter_mm"]) for r in annotations] == pytest.approx(
        [float(r["diameter_mm"]) for r in truth], abs=1e-4
    )
    for name in ("annotations.csv", "candidates.csv"):
        named = {r["seriesuid"] for r in rows(archive / "mhd" / name)}
        assert named == {p.stem for p in (archive / "mhd").glob("*.mhd")}


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


def test_every_format_is_taken_away_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_archive(out, patients=7, seed=1, spoil=True)
    write_archive(out, patients=1, seed=1)
    write_archive(tmp_path / "fresh", patients=1, seed=1)
    assert digests(out) == digests(tmp_path / "fresh")
    assert not (out / "spoiled").exists()


def test_the_command_offers_every_format() -> None:
    assert [choice.value for choice in FormatChoice] == [*FORMATS]


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
    two = ["--patients", "2", "--format", "nrrd", "--format", "nifti", "--spoil", "--json"]
    summary = json.loads(CliRunner().invoke(app, [str(out), *two]).stdout)
    assert summary["formats"] == {"nrrd": 1, "nifti": 1}
    assert summary["spoiled"] == len(rows(out / "spoiled/expected.csv"))
    assert CliRunner().invoke(app, [str(out), "--format", "pdf"]).exit_code == 2
    assert CliRunner().invoke(app, [str(out), "--patients", "0"]).exit_code == 2

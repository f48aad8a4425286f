"""The command line as a user and a script meet it."""

import csv
import json
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.archive.dicom_files import make_slices, stored_values, write_all
from toolkit.store import Store


def toolkit(*args: object, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "toolkit", *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "NO_COLOR": "1", **env},
    )


@pytest.fixture
def small(tmp_path: Path) -> tuple[object, ...]:
    return ("--size", 24, "--margin", 2, "--index-cache", tmp_path / "index", "--id-key", "secret")


def cpu_seconds(*arguments: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_is_quick() -> None:
    """0.3 s where importing typer alone takes 0.05 s: measured in turns, since machines differ."""
    turns = [(cpu_seconds("-m", "toolkit", "--help"), cpu_seconds("-c", "import typer")) for _ in range(5)]
    ours, typers = (min(column) for column in zip(*turns, strict=True))
    assert ours < 6 * typers


@pytest.mark.parametrize("arguments", [["--help"], ["preprocess", "--help"], ["train", "--help"]])
def test_help_is_light(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom toolkit.cli import app\n"
        f"try: app({arguments})\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'cupy', 'numba', 'numpy', 'pydicom') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip().endswith("[]")


def test_every_flag_of_preprocess_is_named_as_promised() -> None:
    shown = toolkit("preprocess", "--help", COLUMNS="200").stdout
    for flag in [
        "--cases",
        "--spacing",
        "--size",
        "--margin",
        "--min-diameter",
        "--workers",
        "--device",
        "--index-cache",
        "--id-key",
        "--shard",
        "--dry-run",
        "--json",
        "--max-failures",
    ]:
        assert flag in shown


def test_the_straight_road(phantom_archive: Path, tmp_path: Path, small) -> None:
    store = tmp_path / "store"
    ended = toolkit("preprocess", phantom_archive, store, *small, "--json")
    assert ended.returncode == 0, ended.stderr
    answer = json.loads(ended.stdout)
    assert (answer["cases"], answer["done"], answer["empty"], answer["refused"]) == (6, 6, 0, {})
    assert answer["nodules"] == len(Store.open(store))
    assert answer["seconds"]["total"] > 0
    assert toolkit("verify", store).returncode == 0
    again = json.loads(toolkit("preprocess", phantom_archive, store, *small, "--json").stdout)
    assert (again["resumed"], again["done"], again["bytes_read"]) == (6, 6, 0)
    talk = toolkit("preprocess", phantom_archive, store, *small)
    assert "nodules" in talk.stdout
    assert talk.stderr == ""


def test_dry_run_writes_no_store(phantom_archive: Path, tmp_path: Path, small) -> None:
    ended = toolkit("preprocess", phantom_archive, tmp_path / "store", *small, "--dry-run", "--json")
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["cases"] == 6
    assert not (tmp_path / "store").exists()
    assert not list(tmp_path.glob("*.crosswalk.csv"))


def test_no_identifier_reaches_the_store(phantom_archive: Path, tmp_path: Path, small) -> None:
    store = tmp_path / "store"
    toolkit("preprocess", phantom_archive, store, *small)
    everything = b"".join(p.read_bytes() for p in store.rglob("*") if p.is_file())
    everything += "".join(str(p.relative_to(store)) for p in store.rglob("*")).encode()
    for secret in (b"PHANTOM", b"2.25.", b"secret", str(tmp_path).encode(), b".dcm", b".nii"):
        assert secret not in everything
    crosswalk = tmp_path / "store.crosswalk.csv"
    assert stat.S_IMODE(crosswalk.stat().st_mode) == 0o600
    with crosswalk.open() as file:
        back = {row["hash"]: row["identifier"] for row in csv.DictReader(file)}
    assert {back[n.patient_id].removeprefix("nifti/") for n in Store.open(store).nodules} == {
        f"PHANTOM-{k:04d}" for k in range(1, 7)
    }


def test_ids_follow_the_key(phantom_archive: Path, tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text("other\n")
    base = ("--size", 24, "--margin", 2, "--index-cache", tmp_path / "index")
    for name, key in (("a", "one"), ("b", "one"), ("c", tmp_path / "key.txt"), ("d", "other")):
        assert toolkit("preprocess", phantom_archive, tmp_path / name, *base, "--id-key", key).returncode == 0
    ids = {name: [n.nodule_id for n in Store.open(tmp_path / name).nodules] for name in "abcd"}
    assert ids["a"] == ids["b"] != ids["c"] == ids["d"]
    refused = toolkit("preprocess", phantom_archive, tmp_path / "a", *base, "--id-key", "other")
    assert (refused.returncode, "E-STORE-007" in refused.stderr) == (2, True)


def test_index_writes_a_manifest_that_gives_the_same_store(
    phantom_archive: Path, tmp_path: Path, small
) -> None:
    manifest = tmp_path / "found.csv"
    shown = toolkit("index", phantom_archive, "--out", manifest, *small[4:6])
    assert shown.returncode == 0
    assert "PHANTOM-0001" in shown.stdout
    assert "6 cases, 6 usable" in shown.stderr
    for name, more in (("a", ()), ("b", ("--cases", manifest))):
        assert toolkit("preprocess", phantom_archive, tmp_path / name, *small, *more).returncode == 0
    a, b = Store.open(tmp_path / "a"), Store.open(tmp_path / "b")
    assert [n.center_lps_mm for n in a.nodules] == [n.center_lps_mm for n in b.nodules]
    assert toolkit("index", phantom_archive, "--out", manifest, *small[4:6]).returncode == 0
    manifest.write_text("mine")
    kept = toolkit("index", phantom_archive, "--out", manifest, *small[4:6])
    assert (kept.returncode, manifest.read_text()) == (2, "mine")
    assert toolkit("index", phantom_archive, "--out", manifest, "--force", *small[4:6]).returncode == 0


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("preprocess", "{tmp}/nothing", "{tmp}/s"), 2, "E-FILE-001"),
        (("preprocess", "{tmp}/empty", "{tmp}/s"), 3, "E-CASE-004"),
        (("preprocess", "{archive}", "{tmp}/full"), 2, "E-STORE-001"),
        (("preprocess", "{archive}", "{tmp}/s", "--device", "cuda"), 2, "E-DEV-001"),
        (("preprocess", "{archive}", "{tmp}/s", "--spacing", "0"), 2, "--spacing"),
        (("preprocess", "{archive}", "{tmp}/s", "--shard", "3/2"), 2, "--shard"),
        (("preprocess", "{archive}", "{tmp}/s", "--cases", "{tmp}/none.csv"), 2, "E-CSV-001"),
        (("preprocess", "{archive}", "{tmp}/s", "--cases", "{archive}/truth.csv"), 2, "E-CSV-002"),
        (("preprocess", "{archive}", "{tmp}/s", "--id-key", "{tmp}/no.key"), 2, "E-KEY-001"),
        (("verify", "{tmp}/empty"), 2, "E-STORE-001"),
        (("verify", "{tmp}/nothing"), 2, "E-STORE-001"),
        (("inspect", "{tmp}/nothing"), 2, "E-STORE-001"),
        (("inspect", "{tmp}/full"), 2, "E-STORE-001"),
        (("phantom", "{tmp}/full"), 2, "E-OUT-001"),
        (("nonsense",), 2, "nonsense"),
    ],
)
def test_a_wrong_request_is_explained(phantom_archive: Path, tmp_path: Path, args, code, said) -> None:
    if said == "E-DEV-001":
        pytest.importorskip("numpy")
        from toolkit.device import _why_no_gpu

        if not _why_no_gpu():
            pytest.skip("there is a GPU")
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").write_text("years of work")
    filled = [arg.format(tmp=tmp_path, archive=phantom_archive) for arg in args]
    ended = toolkit(*filled, COLUMNS="300")
    assert ended.returncode == code, ended.stderr
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert sorted(p.name for p in (tmp_path / "full").iterdir()) == ["thesis.doc"]


def test_partial_success_has_its_own_code(phantom_archive: Path, tmp_path: Path, small) -> None:
    lines = (phantom_archive / "cases.csv").read_text()
    manifest = phantom_archive / "some.csv"
    manifest.write_text(lines + "LOST,LOST,nifti/gone.nii.gz" + 7 * "," + "\n")
    ended = toolkit("preprocess", phantom_archive, tmp_path / "s", *small, "--cases", manifest)
    assert ended.returncode == 8
    assert "refused LOST: E-FILE-001" in ended.stderr
    assert "E-FILE-001" in ended.stdout
    again = toolkit("preprocess", phantom_archive, tmp_path / "s", *small, "--cases", manifest)
    assert (again.returncode, "refused LOST: E-FILE-001" in again.stderr) == (8, True)
    stopped = toolkit(
        "preprocess", phantom_archive, tmp_path / "t", *small, "--cases", manifest, "--max-failures", 0
    )
    assert stopped.returncode in (4, 8)
    assert "--max-failures" in stopped.stderr
    only = phantom_archive / "only.csv"
    only.write_text(lines.splitlines(keepends=True)[0] + "LOST,LOST,nifti/gone.nii.gz" + 7 * "," + "\n")
    assert toolkit("preprocess", phantom_archive, tmp_path / "u", *small, "--cases", only).returncode == 4


def test_points_need_no_mask(phantom_archive: Path, tmp_path: Path, small) -> None:
    with (phantom_archive / "truth.csv").open() as file:
        truth = [row for row in csv.DictReader(file) if row["format"] == "nifti"]
    manifest = phantom_archive / "points.csv"
    columns = ("x_mm", "y_mm", "z_mm", "diameter_mm", "label")
    rows = [
        (
            r["patient_id"],
            r["patient_id"],
            f"nifti/{r['patient_id']}.nii.gz",
            *(r[c] for c in columns),
            "test",
        )
        for r in truth
    ]
    with manifest.open("w", newline="") as file:
        csv.writer(file).writerows([("case_id", "patient_id", "image", *columns, "split"), *rows])
    assert toolkit("preprocess", phantom_archive, tmp_path / "s", *small, "--cases", manifest).returncode == 0
    store = Store.open(tmp_path / "s")
    assert len(store) == len(truth)
    assert {(n.mask_source, n.volume_mm3, n.occupancy, n.split) for n in store.nodules} == {
        ("none", None, 0.0, "test")
    }
    assert sorted(n.label for n in store.nodules) == sorted(float(r["label"]) for r in truth)
    assert not store.mask(0).any()


@pytest.mark.real
def test_a_dirty_archive_is_accounted_for(dirty_archive: Path, tmp_path: Path, small) -> None:
    ended = toolkit("preprocess", dirty_archive, tmp_path / "s", *small, "--json")
    assert ended.returncode == 4, ended.stderr  # no mask is paired, so there is no nodule
    answer = json.loads(ended.stdout)
    assert answer["cases"] == answer["done"] + answer["empty"] + sum(answer["refused"].values())
    assert answer["done"] == 0
    assert {"E-GEO-001", "E-GEO-002", "E-GEO-003"} <= {*answer["refused"]}
    assert "E-HU-002" in {file["code"] for file in answer["files"]}
    for failure in (*answer["failures"], *answer["files"]):
        assert failure["code"].startswith("E-")
    assert "Traceback" not in ended.stderr
    assert toolkit("verify", tmp_path / "s").returncode == 0


def test_every_file_of_an_archive_has_an_outcome(tmp_path: Path, small: tuple[object, ...]) -> None:
    archive = tmp_path / "archive"
    slices = make_slices(stored_values())
    del slices[2].RescaleSlope
    write_all(archive / "refused", slices)
    write_all(archive / "read", make_slices(stored_values(), series="1.2.4"))
    (archive / "notes.txt").write_text("x")
    (archive / "scan.nii").write_bytes(b"x" * 400)
    out, files = tmp_path / "cases.csv", tmp_path / "files.csv"
    words = ("index", archive, "--out", out, "--files", files, *small[4:6])
    answer = json.loads(toolkit(*words, "--json").stdout)
    with files.open() as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert set(rows) == {str(path) for path in archive.rglob("*") if path.is_file()}
    kinds = {path: (row["outcome"], row["code"]) for path, row in rows.items()}
    assert {kind for path, kind in kinds.items() if "/refused/" in path} == {("refused", "E-HU-001")}
    assert {kind for path, kind in kinds.items() if "/read/" in path} == {("noted", "W-DCM-007")}
    assert kinds[str(archive / "scan.nii")] == ("refused", "E-FILE-003")
    assert kinds[str(archive / "notes.txt")] == ("ignored", "")
    assert {row["file"] for row in answer["files"]} == {p for p, kind in kinds.items() if kind[0] != "read"}
    done = toolkit("preprocess", archive, tmp_path / "store", *small)
    assert done.returncode == 4
    assert "notes.txt" in done.stderr
    assert "empty 1.2.4" in done.stderr


@pytest.mark.parametrize("command", ["index", "preprocess"])
def test_a_pattern_that_is_none_is_a_usage_error(tmp_path: Path, command: str) -> None:
    answer = toolkit(
        command, tmp_path, *([tmp_path / "s"] if command == "preprocess" else []), "--region", "("
    )
    assert answer.returncode == 2
    assert "regular expression" in answer.stderr
    assert list(tmp_path.iterdir()) == []


def test_index_shows_the_regions_of_a_structure_set(tmp_path: Path) -> None:
    from tests.archive.mask_files import circle, structure_set, write_ct

    slices = write_ct(tmp_path / "a")
    regions = {name: [circle(slices, 4, (20, 17), 5.0)] for name in ("Lung_L", "GTV", "x")}
    structure_set(tmp_path / "a" / "rt.dcm", regions)
    options = ("--index-cache", tmp_path / "index", "--out", tmp_path / "m.csv")
    answer = toolkit("index", tmp_path / "a", *options)
    assert answer.returncode == 0, answer.stderr
    assert "1 masks, 2 of 3 regions" in answer.stdout
    answer = toolkit("index", tmp_path / "a", *options, "--json", "--region", "lung|x")
    (case,) = json.loads(answer.stdout)["cases"]
    assert [(r["number"], r["name"], r["taken"]) for r in case["regions"]] == [
        (1, "Lung_L", True),
        (2, "GTV", False),
        (3, "x", True),
    ]
    assert (tmp_path / "m.csv").read_text().count("rt.dcm") == 1


def _index(archive: Path, tmp_path: Path, *more: object) -> tuple[int, dict, str]:
    out = ("--out", tmp_path / "cases.csv", "--force", "--index-cache", tmp_path / "index")
    ended = toolkit("index", archive, *out, "--json", *more)
    return ended.returncode, json.loads(ended.stdout), ended.stderr


@pytest.mark.real
def test_deep_gives_every_file_of_a_dirty_archive_an_outcome(dirty_archive: Path, tmp_path: Path) -> None:
    code, answer, talk = _index(dirty_archive, tmp_path, "--deep")
    assert code == 8
    assert "Traceback" not in talk
    assert "JPEG" not in talk  # what decoders print stays with them
    outcomes = {Path(f["file"]).name: f["code"] for case in answer["cases"] for f in case["files"]}
    assert sum(name.startswith("CTImage.dcm") and code is None for name, code in outcomes.items()) == 16
    for name in (
        "SignedShortLosslessBug_ct.dcm",
        "fodicom_D_CLUNIE_CT1_RLE_FRAGS.dcm",
        "pydicomdata_bad_sequence.dcm",
        "pydicom_693_J2KI.dcm",
    ):
        assert outcomes[name] is None
    refused = {Path(f).name: p["code"] for p in answer["refused"] for f in p["files"]}
    assert refused["fodicom_GH177_D_CLUNIE_CT1_IVRLE_BigEndian_undefined_length.dcm"] == "E-FILE-003"
    assert refused["CT0012.fragmented_no_bot_jpeg_baseline.51.dcm"] == "E-HU-002"
    told = {case["case_id"]: " ".join(case["notes"]) for case in answer["cases"]}
    assert "W-HU-010" in told["volumes/lm-64"]  # a label map that no name gives away
    for name in ("volumes/ct-64", "volumes/ct_cropped", "volumes/PartSolidLesionCropped"):
        assert "W-HU" not in told[name]
    listed = {Path(f).name for files in answer["ignored"].values() for f in files}
    seen = listed | set(outcomes) | set(refused) | {Path(case["image"]).name for case in answer["cases"]}
    seen |= {Path(mask).name for case in answer["cases"] for mask in case["masks"]}
    missing = {p.name for p in dirty_archive.rglob("*") if p.is_file()} - seen
    assert missing <= {"BallBinary30x30x30.nhdr"}  # its data file is named instead


def test_deep_looks_at_voxels_and_masks(phantom_archive: Path, tmp_path: Path) -> None:
    code, answer, _ = _index(phantom_archive, tmp_path, "--deep")
    assert code == 0
    with (phantom_archive / "truth.csv").open() as file:
        assert sum(case["nodules"] for case in answer["cases"]) == len(list(csv.DictReader(file)))
    assert all(file["code"] is None for case in answer["cases"] for file in case["files"])
    assert not any("W-HU" in note for case in answer["cases"] for note in case["notes"])


def test_series_are_chosen_by_uid(phantom_archive: Path, tmp_path: Path, small) -> None:
    _, answer, _ = _index(phantom_archive, tmp_path)
    uid = next(case["case_id"] for case in answer["cases"] if case["case_id"][0].isdigit())
    code, chosen, _ = _index(phantom_archive, tmp_path, "--series-uid", uid)
    assert (code, [case["case_id"] for case in chosen["cases"]]) == (0, [uid])
    ended = toolkit("preprocess", phantom_archive, tmp_path / "s", *small, "--series-uid", uid, "--json")
    assert (ended.returncode, json.loads(ended.stdout)["cases"]) == (0, 1)
    wrong = toolkit("preprocess", phantom_archive, tmp_path / "s", *small, "--series-uid", "1.2")
    assert (wrong.returncode, "E-CASE-005" in wrong.stderr) == (2, True)

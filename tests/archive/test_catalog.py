"""An archive by its manifest: the same cases as by convention, and nothing taken that was not meant."""

import os
import shutil

import numpy as np
import pytest

from tests.archive.dicom_files import make_slices, simple_series, stored_values, write_all
from tests.archive.lidc_files import message
from tests.archive.volume_files import canonical_geometry, phantom, write_itk
from toolkit.archive import catalog as catalog_module
from toolkit.archive import scan
from toolkit.archive.catalog import catalog
from toolkit.archive.dicom_series import SeriesRules
from toolkit.archive.entries import pack_folder
from toolkit.archive.index_cache import IndexCache
from toolkit.archive.manifest import COLUMNS, write_manifest
from toolkit.archive.regions import find
from toolkit.errors import NothingFoundError, UsageError

AFFINE = canonical_geometry().affine


@pytest.fixture
def archive(tmp_path):
    root = tmp_path / "archive"
    simple_series(root / "ct")
    (root / "ct" / "a.xml").write_text(message())
    two = make_slices(stored_values(seed=2), series="1.2.4", patient="P2")
    write_all(root / "ct2" / "a", two[::2])
    write_all(root / "ct2" / "b", two[1::2])
    (root / "v").mkdir()
    write_itk(root / "v" / "one.nrrd", phantom(), AFFINE)
    labels = np.zeros((7, 6, 5), np.uint8)
    labels[1:4, 1:4, 1:3], labels[5:, 4:, 3:] = 1, 2
    write_itk(root / "v" / "one_mask.nrrd", labels, AFFINE)
    return root


def by_convention(root):
    return catalog(root, None, SeriesRules(), IndexCache(None))


def by_manifest(root, *lines, columns="case_id,patient_id,image,mask,nodule_id,label"):
    path = root / "cases.csv"
    path.write_text("\n".join((columns, *lines)))
    return catalog(root, path, SeriesRules(), IndexCache(None))


def one(root, *lines, **options):
    (case,) = by_manifest(root, *lines, **options).cases
    return case


def parts(case):
    """What a case is made of, without the digest, which knows what a manifest said."""
    files = [f.path for f in case.source.files] if hasattr(case.source, "files") else []
    place = case.source.geometry
    return (case.case_id, case.patient_id, case.split, case.points, case.masks, files, place.affine.tolist())


def test_written_and_read_again(archive, tmp_path):
    found = by_convention(archive)
    assert [c.problem for c in found.cases] == [None] * 3
    for path in (archive / "cases.csv", tmp_path / "elsewhere.csv"):
        write_manifest(path, found.cases)
        assert str(tmp_path) not in path.read_text()
        again = catalog(archive, path, SeriesRules(), IndexCache(None))
        assert [parts(c) for c in again.cases] == [parts(c) for c in found.cases]
        write_manifest(path, again.cases)  # refused if it said anything else


def test_the_phantom_manifest_names_what_is_there(phantom_archive):
    found = by_convention(phantom_archive).cases
    named = catalog(phantom_archive, phantom_archive / "cases.csv", SeriesRules(), IndexCache(None)).cases
    assert len(found) == len(named) == 6
    sources = {str(c.source.geometry.affine.tolist()) + str([m.path for m in c.masks]) for c in found}
    assert sources == {str(c.source.geometry.affine.tolist()) + str([m.path for m in c.masks]) for c in named}
    for case in named:
        assert case.problem is None


def test_an_archive_that_moved_has_the_same_digests(archive, tmp_path):
    shutil.copytree(archive, tmp_path / "copy")
    here, there = by_convention(archive).cases, by_convention(tmp_path / "copy").cases
    assert [(c.case_id, c.digest) for c in here] == [(c.case_id, c.digest) for c in there]
    line = "x,p,v/one.nrrd,v/one_mask.nrrd,,1"
    assert one(archive, line).digest == one(tmp_path / "copy", line).digest


def test_digest_follows_content_and_what_is_told(archive):
    line = "x,p,v/one.nrrd,v/one_mask.nrrd,,"
    first = one(archive, line).digest
    assert first == one(archive, line).digest
    assert first != one(archive, f"{line}1").digest
    assert first != one(archive, "x,p,v/one.nrrd,v/one_mask.nrrd,a,").digest
    mask = archive / "v" / "one_mask.nrrd"
    data = mask.read_bytes()
    mask.write_bytes(data[:-1] + b"\3")
    assert first != one(archive, line).digest


def test_names_and_labels_by_label_value(archive):
    case = one(archive, "x,p,v/one.nrrd,v/one_mask.nrrd,2,1", "x,p,v/one.nrrd,v/one_mask.nrrd,1,0")
    (mask,) = case.masks
    assert (mask.names, mask.labels) == ({1: "1", 2: "2"}, {1: 0.0, 2: 1.0})
    findings, _ = find(case, case.source, 0.0)
    assert [(f.name, f.label) for f in findings] == [("1", 0.0), ("2", 1.0)]
    case = one(archive, "x,p,v/one.nrrd,v/one_mask.nrrd,n,0.5")
    assert [(f.name, f.label) for f in find(case, case.source, 0.0)[0]] == [("n-1", 0.5), ("n-2", 0.5)]


@pytest.mark.parametrize(
    "values", [("a", "b"), ("1", "01"), ("0", "1"), ("1", "1.5"), ("-1", "1"), ("", "1")]
)
def test_label_values_that_are_none(archive, values):
    case = one(archive, *[f"x,p,v/one.nrrd,v/one_mask.nrrd,{v}," for v in values])
    assert case.problem.code == "E-CSV-003"
    assert "line" in case.problem.measured


def test_points_and_split(archive):
    columns = "case_id,patient_id,image,x_mm,y_mm,z_mm,diameter_mm,nodule_id,label,split"
    center = canonical_geometry().to_lps(np.array([3.0, 2.0, 1.0]))
    text = ",".join(map(str, center))
    case = one(archive, f"x,p,v/one.nrrd,{text},5,a,1,val", "x,p,v/one.nrrd,1,2,3,4,b,,val", columns=columns)
    assert (case.split, case.masks) == ("val", ())
    assert [(p.name, p.center_lps_mm, p.diameter_mm, p.label) for p in case.points] == [
        ("a", tuple(center), 5.0, 1.0),
        ("b", (1.0, 2.0, 3.0), 4.0, None),
    ]
    write_manifest(archive / "points.csv", [case])
    (again,) = catalog(archive, archive / "points.csv", SeriesRules(), IndexCache(None)).cases
    assert (again.points, again.split, again.digest) == (case.points, "val", case.digest)


def test_series_uid_chooses_among_several(archive):
    columns = "case_id,patient_id,image,series_uid"
    assert one(archive, "x,p,.,1.2.4", columns=columns).source.files[0].header.patient_id == "P2"
    assert one(archive, "1.2.3,p,.,", columns=columns).source.files[0].header.patient_id == "P1"
    assert one(archive, "x,p,ct2,", columns=columns).source.geometry.shape_zyx == (6, 5, 7)
    assert one(archive, "x,p,ct/0003.dcm,", columns=columns).source.files[0].header.patient_id == "P1"
    for line in ("x,p,.,", "x,p,.,9.9", "x,p,v,"):
        problem = one(archive, line, columns=columns).problem
        assert (problem.code, problem.what) == ("E-CSV-003", "no such series")
    assert "series_uid" in one(archive, "x,p,.,", columns=columns).problem.action


def test_a_manifest_takes_only_what_it_names(archive):
    found = by_manifest(archive, "x,p,ct,,,", "y,p,v/one.nrrd,,,")
    assert {c.case_id: (c.patient_id, c.masks) for c in found.cases} == {"x": ("p", ()), "y": ("p", ())}
    assert found.ignored == {}


def test_an_annotation_without_a_series(archive):
    (archive / "ct" / "b.xml").write_text(message(series=""))
    case = one(archive, "x,p,ct,ct/b.xml,,")
    assert case.problem is None
    assert [mask.kind for mask in case.masks] == ["lidc"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("x,p,v/absent.nrrd,,,", "E-FILE-001"),
        ("x,p,v/one.nrrd,v/absent.nrrd,,", "E-FILE-001"),
        ("x,p,../outside.nrrd,,,", "E-FILE-004"),
        ("x,p,{tmp}/outside.nrrd,,,", "E-FILE-004"),
        ("x,p,v/one.nrrd,../outside.nrrd,,", "E-FILE-004"),
        ("x,p,v/link.nrrd,,,", "E-FILE-004"),
        ("x,p,linked,,,", "E-FILE-004"),
        ("x,p,v/one.nrrd,v/notes.txt,,", "E-VOL-002"),
        ("x,p,v/one.nrrd,v/.hidden.nrrd,,", "E-FILE-003"),
        ("x,p,v/.hidden.nrrd,,,", "E-FILE-003"),
        ("x,p,v/one.nrrd,v/folder.nrrd,,", "E-CSV-003"),
        ("x,p,v/folder.nrrd,,,", "E-CSV-003"),
        ("x,p,v/notes.txt,,,", "E-CSV-003"),
        ("x,p,v/bad.nrrd,,,", "E-FILE-003"),
    ],
)
def test_one_bad_case_does_not_stop_the_others(archive, tmp_path, line, code):
    write_itk(tmp_path / "outside.nrrd", phantom(), AFFINE)
    (archive / "v" / "link.nrrd").symlink_to(tmp_path / "outside.nrrd")
    (tmp_path / "far").mkdir()
    (archive / "linked").symlink_to(tmp_path / "far")
    (archive / "v" / "notes.txt").write_text("text")
    (archive / "v" / "bad.nrrd").write_text("text")
    (archive / "v" / ".hidden.nrrd").write_bytes((archive / "v" / "one.nrrd").read_bytes())
    (archive / "v" / "folder.nrrd").mkdir()
    found = by_manifest(archive, line.replace("{tmp}", str(tmp_path)), "good,p,v/one.nrrd,v/one_mask.nrrd,,1")
    good, bad = found.cases
    assert (good.case_id, good.problem) == ("good", None)
    assert (bad.case_id, bad.source, bad.problem.code) == ("x", None, code)


def test_inside_the_folder_of_the_manifest_is_inside(archive, tmp_path):
    write_itk(tmp_path / "mine_mask.nrrd", (phantom() > 2000).astype(np.uint8), AFFINE)
    (tmp_path / "cases.csv").write_text(
        "case_id,patient_id,image,mask\nx,p,archive/v/one.nrrd,mine_mask.nrrd\n"
    )
    (case,) = catalog(archive, tmp_path / "cases.csv", SeriesRules(), IndexCache(None)).cases
    assert case.problem is None


def test_slices_behind_links_that_leave_the_archive_are_refused_by_name(archive, tmp_path):
    outside = simple_series(tmp_path / "outside", series="1.2.9")
    (archive / "linked").mkdir()
    for path in outside:
        (archive / "linked" / path.name).symlink_to(path)
    found = by_manifest(archive, "x,p,linked,,,")
    assert found.cases[0].problem.code == "E-CSV-003"
    assert {p.code for p in found.refused} == {"E-FILE-004"}
    assert len(found.refused) == 6


def test_what_cannot_be_written_is_said(archive):
    name = os.fsdecode(b"M\xfcller.nrrd")
    write_itk(archive / "v" / "x.nrrd", phantom(), AFFINE).rename(archive / "v" / name)
    found = by_convention(archive)
    assert len(found.cases) == 4
    with pytest.raises(UsageError, match="E-CSV-001"):
        write_manifest(archive / "cases.csv", found.cases)


def test_empty_manifests_and_odd_roots(archive):
    with pytest.raises(NothingFoundError):
        by_manifest(archive)
    with pytest.raises(UsageError, match="E-FILE-001"):
        by_convention(archive / "absent")
    assert list(COLUMNS[:3]) == ["case_id", "patient_id", "image"]


def test_a_folder_that_cannot_be_listed_is_refused_by_name(archive, monkeypatch):
    def denied(folder):
        if folder == str(archive / "v"):
            raise PermissionError(13, "Permission denied")
        return scan.list_files(folder)

    monkeypatch.setattr(catalog_module, "list_files", denied)
    found = by_manifest(archive, "x,p,v/one.nrrd,,,", "y,p,ct,,,")
    assert [(p.code, p.files) for p in found.refused] == [("E-FILE-005", (str(archive / "v"),))]
    assert [case.problem and case.problem.code for case in found.cases] == ["E-FILE-003", None]


def test_a_file_that_goes_while_its_folder_is_looked_at_is_no_end(tmp_path):
    simple_series(tmp_path)
    folder, files = scan.list_files(str(tmp_path))
    task = scan.FolderTask(folder, pack_folder(scan.scan_folder(scan.FolderTask(folder))))
    (tmp_path / files[2].name).unlink()
    assert scan.recall_folder(task, files) is None

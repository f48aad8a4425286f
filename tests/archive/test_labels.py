"""Labels out of a table: joined on case, nodule or position, and never on the wrong one."""

import numpy as np
import pydicom
import pytest

from tests.archive.volume_files import canonical_geometry, write_nifti
from tests.real import real_data, unpack
from toolkit.archive.catalog import catalog, default_labels
from toolkit.archive.dicom_series import SeriesRules
from toolkit.archive.index_cache import IndexCache
from toolkit.archive.labels import read_labels
from toolkit.archive.regions import find
from toolkit.errors import InputError, UsageError

SHAPE = (20, 20, 20)
GEOMETRY = canonical_geometry(SHAPE, (1, 1, 1))


def lps(z, y, x):
    return ",".join(f"{v:g}" for v in GEOMETRY.to_lps(np.array([z, y, x], dtype=float)))


@pytest.fixture
def archive(tmp_path):
    """One scan with nodules 1 (voxels 2..5) and 2 (voxels 12..15), and another without a mask."""
    folder = tmp_path / "ct"
    folder.mkdir()
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:6, 2:6, 2:6], mask[12:16, 12:16, 12:16] = 1, 2
    write_nifti(folder / "p1.nii", np.zeros(SHAPE, np.int16), GEOMETRY.affine)
    write_nifti(folder / "p1_mask.nii", mask, GEOMETRY.affine)
    write_nifti(folder / "p2.nii", np.zeros(SHAPE, np.int16), GEOMETRY.affine)
    return tmp_path


def labels_of(archive, text):
    path = archive / "labels.csv"
    path.write_text(text)
    found = catalog(archive, None, SeriesRules(), IndexCache(None), labels=default_labels(archive, None))
    case = found.cases[0]
    findings, notes = find(case, case.source, 3.0)
    return [finding.label for finding in findings], notes, found


@pytest.mark.parametrize("case", ["ct/p1", "p1"])
@pytest.mark.parametrize("column", ["case_id", "patient_id"])
def test_joined_on_the_case(archive, case, column):
    labels, notes, found = labels_of(archive, f"{column},label,sex\n{case},1,F\n")
    assert (labels, notes, found.ignored) == ([1.0, 1.0], [], {})
    assert found.cases[1].told == ()


def test_joined_on_the_nodule_which_goes_before_its_case(archive):
    labels, notes, _ = labels_of(archive, "case_id,nodule_id,label\np1,2,0.25\np1,,1\n")
    assert (labels, notes) == ([1.0, 0.25], [])


def test_joined_on_the_position(archive):
    text = f"case_id,x_mm,y_mm,z_mm,label\np1,{lps(14, 13, 12)},1\np1,{lps(5.4, 5.4, 2)},0\n"
    labels, notes, _ = labels_of(archive, text)
    assert (labels, notes) == ([0.0, 1.0], [])


def test_a_position_just_beside_its_mask_is_its_nodule_and_a_far_one_is_nobody(archive):
    text = f"case_id,x_mm,y_mm,z_mm,label\np1,{lps(6.4, 4, 4)},1\np1,{lps(9, 9, 9)},0\n"
    labels, (note,), _ = labels_of(archive, text)
    assert labels == [1.0, None]
    assert (note.code, note.measured) == ("W-CSV-001", "lines 3")


def test_a_told_diameter_reaches_as_far_as_it_says(archive):
    head = "case_id,x_mm,y_mm,z_mm,diameter_mm,label\n"
    labels, notes, _ = labels_of(archive, f"{head}p1,{lps(8, 4, 4)},6.2,1\n")
    assert (labels, notes) == ([1.0, None], [])
    labels, (note,), _ = labels_of(archive, f"{head}p1,{lps(8, 4, 4)},5.8,1\n")
    assert (labels, note.code) == ([None, None], "W-CSV-001")


def test_names_of_columns_of_luna16_and_empty_labels(archive):
    text = f"seriesuid,coordX,coordY,coordZ,label\np1,{lps(3, 3, 3)},1\n"
    assert labels_of(archive, text.replace("seriesuid", "patient_id"))[0] == [1.0, None]
    labels, notes, found = labels_of(archive, "case_id,label\np1,\n")
    assert (labels, notes, found.cases[0].told) == ([None, None], [], ())


def test_lines_of_absent_cases_are_counted(archive):
    _, _, found = labels_of(archive, "case_id,label\np1,1\np7,0\np8,0\n")
    assert list(found.ignored) == ["labels of absent cases (2 lines)"]
    assert not found.refused


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("case_id,nodule_id,label\np1,1,0\np1,1,1\n", "two labels for one nodule"),
        ("case_id,label\np1,0\np1,1\n", "two labels for one nodule"),
        ("case_id,patient_id,nodule_id,label\np1,,2,0\n,p1,2,1\n", "two labels for one nodule"),
    ],
)
def test_contradictions_refuse_the_case(archive, text, what):
    with pytest.raises(InputError, match=what) as caught:
        labels_of(archive, text)
    assert caught.value.problem.code == "E-CSV-005"


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("label\n1\n", "E-CSV-002", "one of case_id"),
        ("case_id\np1\n", "E-CSV-002", "label"),
        ("case_id,label,label\np1,1,0\n", "E-CSV-002", "twice label"),
        ("case_id,x_mm,label\np1,1,1\n", "E-CSV-002", "y_mm, z_mm"),
        ("case_id,label\np1,2\n", "E-CSV-003", "line 2: label 2 is not in"),
        ("case_id,label\np1,yes\n", "E-CSV-003", "line 2: label is not a number"),
        ("case_id,label\np1,0_1\n", "E-CSV-003", "line 2: label is not a number"),
        ("case_id,label\np1,0,5\n", "E-CSV-003", "line 2: too many fields"),
        ("case_id,nodule_id,label\np1,1\n", "E-CSV-003", "line 2: too few fields"),
        ("case_id,patient_id,label\np1,p1,1\n", "E-CSV-003", "2 of case_id"),
        ("case_id,label\n,1\n", "E-CSV-003", "0 of case_id"),
        ("case_id,x_mm,y_mm,z_mm,label\np1,1,2,,1\n", "E-CSV-003", "z_mm missing"),
        ("case_id,nodule_id,x_mm,y_mm,z_mm,label\np1,1,1,2,3,1\n", "E-CSV-003", "both"),
        ('case_id,label\n"p1,1\n', "E-CSV-001", "cannot be read"),
    ],
)
def test_wrong_tables_are_refused_before_any_work(archive, text, code, says):
    (archive / "labels.csv").write_text(text)
    with pytest.raises(UsageError, match=says) as caught:
        read_labels(archive / "labels.csv")
    assert caught.value.problem.code == code


def test_a_changed_label_changes_the_key_of_its_case_alone(archive):
    before = labels_of(archive, "case_id,label\np1,1\np2,1\n")[2].cases
    after = labels_of(archive, "case_id,label\np1,0\np2,1\n")[2].cases
    assert before[0].digest != after[0].digest
    assert before[1].digest == after[1].digest


@pytest.mark.real
def test_a_published_position_labels_the_real_nodule(tmp_path):
    """Cornell's pixel of the nodule of LIDC-IDRI-0001 names the readers' nodule; the table speaks last."""
    archive = unpack(real_data("lidc-idri-0001_ct133.tar.xz"), tmp_path / "archive")
    column, row, slice_from_head = 317, 367, 43
    first = max(map(pydicom.dcmread, archive.rglob("*.dcm")), key=lambda d: d.ImagePositionPatient[2])
    x, y, z = map(float, first.ImagePositionPatient)
    dy, dx = map(float, first.PixelSpacing)
    table = archive / "labels.csv"
    place = f"{x + column * dx},{y + row * dy},{z - 2.5 * slice_from_head}"
    table.write_text(f"seriesuid,coordX,coordY,coordZ,label\n{first.SeriesInstanceUID},{place},0.125\n")
    (case,) = catalog(archive, None, SeriesRules(), IndexCache(None), labels=table).cases
    ((finding,), notes) = find(case, case.source, 3.0)
    assert notes == []
    assert (finding.label, finding.mask_source) == (0.125, "consensus")

"""The manifest: every column checked, every mistake named with its line, and written as it is read."""

import pytest

from toolkit.archive.manifest import COLUMNS, read_manifest, write_manifest
from toolkit.errors import UsageError

POINT = "case_id,patient_id,image,x_mm,y_mm,z_mm,diameter_mm,nodule_id,label,split"
MASK = "case_id,patient_id,image,mask,nodule_id,label,split"


def read(tmp_path, *lines, encoding="utf-8"):
    path = tmp_path / "cases.csv"
    path.write_bytes("\n".join(lines).encode(encoding))
    return read_manifest(path)


def refusal(tmp_path, *lines, **options):
    with pytest.raises(UsageError) as refused:
        read(tmp_path, *lines, **options)
    assert refused.value.problem.files == (str(tmp_path / "cases.csv"),)
    return refused.value.problem


def test_all_columns(tmp_path):
    cases = read(
        tmp_path,
        ",".join(COLUMNS),
        "a,p1,ct/a,1.2.3,masks/a.nii,1.2.9,,,,,7,0.5,train",
        "a,p1,ct/a,1.2.3,,,-1.5,2e1,+3,8,x,,train",
        "b,p2,b.nrrd,,,,,,,,,,",
    )
    assert list(cases) == ["a", "b"]
    mask, point = cases["a"]
    assert (mask.line, mask.image, mask.mask) == (2, tmp_path / "ct/a", tmp_path / "masks/a.nii")
    assert (mask.mask_series_uid, point.mask_series_uid) == ("1.2.9", "")
    assert (mask.series_uid, mask.nodule_id, mask.label, mask.split) == ("1.2.3", "7", 0.5, "train")
    assert (mask.center_lps_mm, mask.diameter_mm) == (None, None)
    assert (point.line, point.center_lps_mm, point.diameter_mm) == (3, (-1.5, 20.0, 3.0), 8.0)
    assert (point.mask, point.nodule_id, point.label) == (None, "x", None)
    (plain,) = cases["b"]
    assert (plain.line, plain.patient_id, plain.mask, plain.label, plain.split) == (4, "p2", None, None, "")


def test_a_zero_is_a_position(tmp_path):
    (row,) = read(tmp_path, POINT, "a,p,i,0,0,0,5,,0,")["a"]
    assert (row.center_lps_mm, row.label) == ((0.0, 0.0, 0.0), 0.0)


def test_what_spreadsheets_write(tmp_path):
    cases = read(tmp_path, "case_id , patient_id,image", "a , p,  i ", "", encoding="utf-8-sig")
    assert cases["a"][0].image == tmp_path / "i"
    assert cases["a"][0].patient_id == "p"
    (row,) = read(tmp_path, "image,patient_id,case_id", '"a, b ""c"".nii",p,a\r')["a"]
    assert row.image == tmp_path / 'a, b "c".nii'
    assert read(tmp_path, "case_id,patient_id,image") == {}


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("", "missing case_id, patient_id, image"),
        ("case_id,patient_id", "missing image"),
        ("case_id,patient_id,image,colour", "unknown colour"),
        ("case_id,patient_id,image,", "unknown (empty)"),
        ("case_id,patient_id,image,image", "twice image"),
        ("case_id,patient_id,image,x_mm,y_mm", "missing z_mm, diameter_mm"),
        ("case_id;patient_id;image", "unknown case_id;patient_id;image"),
        ("Case_ID,patient_id,image", "missing case_id; unknown Case_ID"),
    ],
)
def test_wrong_columns(tmp_path, header, said):
    problem = refusal(tmp_path, header, "a,b,c")
    assert problem.code == "E-CSV-002"
    assert said in problem.measured


@pytest.mark.parametrize(
    ("header", "line", "said"),
    [
        (MASK, "a,p,,m,,,", "image is empty"),
        (MASK, "a, ,i,m,,,", "patient_id is empty"),
        (MASK, ",p,i,m,,,", "case_id is empty"),
        (MASK, "a,p,i,m,,1.5,", "label 1.5 is not in [0, 1]"),
        (MASK, "a,p,i,m,,-0.1,", "label -0.1 is not in [0, 1]"),
        (MASK, "a,p,i,m,,nan,", "label 'nan' is not a number"),
        (POINT, "a,p,i,1_5,2,3,5,,,", "x_mm '1_5' is not a number"),
        (MASK, "a,p,i,m,,malignant,", "label 'malignant' is not a number"),
        (MASK, 'a,p,i,m,,"0,5",', "label '0,5' is not a number (use a point as decimal mark)"),
        (MASK, "a,p,i,m,,0,5,", "too many fields"),
        (MASK, "a,p,i,m", "too few fields"),
        (MASK, "a,p,i,m,,,training", "split is none of train, val, test"),
        (POINT, "a,p,i,1,2,3,,,,", "diameter_mm missing beside x_mm"),
        (POINT, "a,p,i,,,,5,,,", "x_mm, y_mm, z_mm missing beside diameter_mm"),
        (POINT, "a,p,i,1,2,3,0,,,", "diameter_mm 0 is not in (0, 500]"),
        (POINT, "a,p,i,1,2,3,501,,,", "diameter_mm 501 is not in (0, 500]"),
        (POINT, "a,p,i,1,2,inf,5,,,", "z_mm 'inf' is not a number"),
        (f"{POINT},mask", "a,p,i,1,2,3,5,,,,m", "both a mask and a point"),
    ],
)
def test_wrong_values(tmp_path, header, line, said):
    problem = refusal(tmp_path, header, line)
    assert problem.code == "E-CSV-003"
    assert "line 2: " in problem.measured
    assert said in problem.measured


def test_all_mistakes_are_listed_up_to_a_limit(tmp_path):
    lines = [f"a{k},p,i,m{k},,2," for k in range(30)]
    measured = refusal(tmp_path, MASK, *lines).measured
    assert all(f"line {k}:" in measured for k in range(2, 22))
    assert measured.endswith("and 10 more")


@pytest.mark.parametrize(
    ("lines", "what", "measured"),
    [
        (["a,p,i,m,1,,", "b,p,i,n,,,", "a,q,i,m,2,,"], "patient_id differs within a case", "lines 2 and 4"),
        (["a,p,i,m,1,,", "a,p,j,m,2,,"], "image differs within a case", "lines 2 and 3"),
        (["a,p,i,m,1,,train", "a,p,i,m,2,,test"], "split differs within a case", "lines 2 and 3"),
        (["a,p,i,m,1,,", "a,p,i,m,1,,"], "one nodule named twice", "lines 2 and 3"),
        (["a,p,i,m,,,", "a,p,i,m,,,"], "one nodule named twice", "lines 2 and 3"),
        (["a,p,i,,,,", "a,p,i,,,,"], "one nodule named twice", "lines 2 and 3"),
    ],
)
def test_contradicting_lines(tmp_path, lines, what, measured):
    problem = refusal(tmp_path, MASK, *lines)
    assert (problem.code, problem.what, problem.measured) == ("E-CSV-004", what, measured)


def test_one_point_twice(tmp_path):
    twice = ["a,p,i,1,2,3,5,,,", "a,p,i,1,2,3,6,,,"]
    assert refusal(tmp_path, POINT, *twice).code == "E-CSV-004"
    named = ["a,p,i,1,2,3,5,n,,", "a,p,i,4,5,6,5,n,,"]
    assert refusal(tmp_path, POINT, *named).code == "E-CSV-004"
    assert len(read(tmp_path, POINT, "a,p,i,1,2,3,5,,,", "a,p,i,1,2,4,5,,,")["a"]) == 2


def test_no_table_at_all(tmp_path):
    assert refusal(tmp_path, 'case_id,patient_id,image\n"a"b,p,i').code == "E-CSV-001"
    assert (
        refusal(tmp_path, "case_id,patient_id,image\na,J\u00f6rg,i", encoding="latin-1").code == "E-CSV-001"
    )
    assert refusal(tmp_path, "case_id,patient_id,image\na,p,i", encoding="utf-16").code == "E-CSV-001"
    with pytest.raises(UsageError, match="E-CSV-001"):
        read_manifest(tmp_path / "absent.csv")
    with pytest.raises(UsageError, match="E-CSV-001"):
        read_manifest(tmp_path)


def test_an_edited_manifest_is_not_replaced(tmp_path):
    path = tmp_path / "cases.csv"
    write_manifest(path, [])
    write_manifest(path, [])  # the same again
    path.write_text("mine")
    with pytest.raises(UsageError, match="E-OUT-001"):
        write_manifest(path, [])
    assert path.read_text() == "mine"
    write_manifest(path, [], force=True)
    assert path.read_text() == ",".join(COLUMNS) + "\n"
    with pytest.raises(UsageError, match="E-DISK-001"):
        write_manifest(tmp_path / "no" / "folder.csv", [])

"""LUNA16's tables: positions become points of the scan that they name, and of no other."""

import numpy as np
import pytest

from tests.archive.dicom_files import make_slices, stored_values, write_all
from tests.archive.volume_files import canonical_geometry, write_nifti
from tests.real import real_data
from toolkit.archive.catalog import catalog
from toolkit.archive.dicom_series import SeriesRules
from toolkit.archive.index_cache import IndexCache
from toolkit.archive.luna16 import LunaRow, points_of, read_luna16, sniff_luna16
from toolkit.archive.regions import find
from toolkit.errors import InputError

SHAPE = (12, 14, 16)
HEAD = "seriesuid,coordX,coordY,coordZ,"


@pytest.fixture
def archive(tmp_path):
    """Two scans named by series UID, as LUNA16 has them; voxel (z, y, x) lies at LPS (x, y, z) mm."""
    geometry = canonical_geometry(SHAPE, (1, 1, 1))
    for uid in ("1.2.3", "1.2.4"):
        folder = tmp_path / "subset0"
        folder.mkdir(exist_ok=True)
        write_nifti(folder / f"{uid}.nii", np.zeros(SHAPE, np.int16), geometry.affine)
    return tmp_path


def cases(archive):
    return catalog(archive, None, SeriesRules(), IndexCache(None))


def test_annotations_become_points(archive):
    center = canonical_geometry(SHAPE, (1, 1, 1)).to_lps(np.array([5.0, 6.0, 7.0]))
    line = ",".join(map(str, center))
    (archive / "CSVFILES").mkdir()
    (archive / "CSVFILES" / "annotations.csv").write_text(
        f"{HEAD}diameter_mm\n1.2.3,{line},5.65\n1.2.3,{line},5.65\n9.9.9,{line},4\n"
    )
    (archive / "CSVFILES" / "candidates.csv").write_text(f"{HEAD}class\n1.2.4,0,0,0,1\n1.2.3,{line},0\n")
    found = cases(archive)
    first, second = found.cases
    assert (first.case_id, second.case_id) == ("subset0/1.2.3", "subset0/1.2.4")
    assert second.points == ()
    ((finding,), notes) = find(first, first.source, 3.0)
    assert notes == []
    assert (finding.diameter_mm, finding.mask_source, finding.label) == (5.65, "none", None)
    np.testing.assert_allclose(finding.center_lps_mm, center)
    assert first.digest != second.digest
    ((what, paths),) = found.ignored.items()
    assert "candidates" in what
    assert [path.rpartition("/")[2] for path in paths] == ["candidates.csv"]


def test_candidates_of_class_1_where_there_are_no_annotations(archive):
    (archive / "candidates.csv").write_text(f"{HEAD}class\n1.2.3,0,0,0,0\n1.2.4,1,2,3,1\n1.2.4,1,2,4,0\n")
    first, second = cases(archive).cases
    assert first.points == ()
    ((point,),) = (second.points,)
    assert (point.center_lps_mm, point.diameter_mm) == ((1.0, 2.0, 3.0), None)


def test_a_dicom_series_is_known_by_its_uid(tmp_path):
    write_all(tmp_path / "dicom", make_slices(stored_values(), series="1.2.5"))
    (tmp_path / "annotations.csv").write_text(f"{HEAD}diameter_mm\n1.2.5,-31,17,-399,6\n")
    (case,) = cases(tmp_path).cases
    assert [point.diameter_mm for point in case.points] == [6.0]


def test_masks_go_before_positions_and_lung_masks_are_no_scans(archive):
    geometry = canonical_geometry(SHAPE, (1, 1, 1))
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:7, 3:7, 3:7] = 1
    write_nifti(archive / "subset0" / "1.2.3_mask.nii", mask, geometry.affine)
    (archive / "seg-lungs-LUNA16").mkdir()
    write_nifti(archive / "seg-lungs-LUNA16" / "1.2.3.nii", mask, geometry.affine)
    (archive / "annotations.csv").write_text(f"{HEAD}diameter_mm\n1.2.3,1,2,3,5\n")
    found = cases(archive)
    assert [case.case_id for case in found.cases] == ["subset0/1.2.3", "subset0/1.2.4"]
    assert [(len(case.masks), len(case.points)) for case in found.cases] == [(1, 0), (0, 0)]
    assert list(found.ignored) == ["lung masks"]


@pytest.mark.parametrize(
    "line",
    [
        "1.2.3,a,2,3,5",
        "1.2.3,1,2,3",
        "1.2.3,1,2,3,-5",
        "1.2.3,1,2,3,4_5",
        "1.2.3,1,2,nan,5",
        ",1,2,3,5",
        '"1.2.3,1',
        "\udc80",
    ],
)
def test_a_wrong_line_refuses_the_table(archive, line):
    path = archive / "annotations.csv"
    path.write_bytes(f"{HEAD}diameter_mm\n1.2.4,0,0,0,4\n{line}\n".encode(errors="surrogateescape"))
    found = cases(archive)
    (problem,) = found.refused
    assert problem.code == "E-LUNA-001"
    assert problem.files == (str(path),)
    assert all(case.points == () for case in found.cases)


def test_other_tables_are_other_files(tmp_path):
    for name, text in {"a.csv": "", "b.csv": "seriesuid,coordX\n", "c.csv": HEAD + "class,x\n"}.items():
        (tmp_path / name).write_text(text)
        assert sniff_luna16(tmp_path / name) is None
    (tmp_path / "d.csv").write_text("\ufeff" + HEAD + "class\n1,1,2,3,2\n")
    assert sniff_luna16(tmp_path / "d.csv") == "candidates"
    with pytest.raises(InputError, match="line 2"):
        read_luna16(tmp_path / "d.csv", "candidates")


def test_names_in_quotes_are_names(tmp_path):
    text = '"seriesuid","coordX","coordY","coordZ","diameter_mm"\r\n"1.2.3",1,2,3,4\r\n'
    (tmp_path / "a.csv").write_bytes(text.encode())
    assert sniff_luna16(tmp_path / "a.csv") == "annotations"
    (row,) = read_luna16(tmp_path / "a.csv", "annotations")
    assert row == ("1.2.3", 1.0, 2.0, 3.0, 4.0)


def test_several_diameters_at_one_place_have_an_order():
    """A set of rows has another in every process, and the digest of a case follows it."""
    rows = [LunaRow("1.2.3", 1.0, 2.0, 3.0, float(d)) for d in range(1, 21)]
    assert [point.diameter_mm for point in points_of(rows[::-1])] == list(range(1, 21))


@pytest.mark.real
def test_the_real_table_of_1004_nodules(tmp_path):
    """The public derivative with a sixth column, cut to the published five."""
    lines = real_data("luna16_1004_nodules_malignant.csv").read_text().splitlines()
    path = tmp_path / "annotations.csv"
    path.write_text("\n".join(line.rpartition(",")[0] for line in lines) + "\n")
    assert sniff_luna16(path) == "annotations"
    rows = read_luna16(path, "annotations")
    assert len(rows) == 1004
    assert min(row.diameter_mm for row in rows) > 3

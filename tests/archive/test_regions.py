"""A case's masks, readings and points become nodules where the phantom put them."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from tests.archive.dicom_files import make_slices, positions, stored_values, write_all
from tests.archive.lidc_files import SQUARE, message, nodule, roi, session
from tests.archive.volume_files import canonical_geometry, write_nifti
from toolkit.archive.case import Case, Finding, MaskFile, Point
from toolkit.archive.catalog import catalog
from toolkit.archive.dicom_series import SeriesRules
from toolkit.archive.index_cache import IndexCache
from toolkit.archive.regions import _with_names, find
from toolkit.archive.volume import open_volume
from toolkit.errors import InputError

SHAPE = (12, 14, 16)


@pytest.fixture(scope="module")
def cases(phantom_archive):
    found = catalog(phantom_archive, phantom_archive / "cases.csv", SeriesRules(), IndexCache(None))
    assert not found.refused
    return {case.case_id: case for case in found.cases}


def test_phantom_truth(phantom_archive, cases):
    with (phantom_archive / "truth.csv").open() as file:
        truth = list(csv.DictReader(file))
    assert {row["format"] for row in truth} == {"dicom", "nifti"}
    seen = 0
    for case_id, case in cases.items():
        rows = [row for row in truth if row["patient_id"] == case_id]
        findings, _ = find(case, case.source, 3.0)
        assert len(findings) == len(rows) > 0
        assert len({f.name for f in findings}) == len(findings)
        for row in rows:
            center = np.array([float(row[f"{axis}_mm"]) for axis in "xyz"])
            finding = min(findings, key=lambda f: np.linalg.norm(np.array(f.center_lps_mm) - center))
            np.testing.assert_allclose(finding.center_lps_mm, center, atol=0.01)
            assert finding.volume_mm3 == pytest.approx(float(row["volume_mm3"]), abs=2e-3)
            assert finding.diameter_mm == pytest.approx(float(row["diameter_mm"]), abs=1e-3)
            assert finding.label == float(row["label"])
            assert finding.mask_source == ("volume" if row["format"] == "nifti" else finding.mask_source)
            inside = np.argwhere(finding.mask) + finding.box.start_zyx
            place = case.source.geometry.to_lps(inside).mean(axis=0)
            np.testing.assert_allclose(place, finding.center_lps_mm, atol=1e-6)
            seen += 1
    assert seen == len(truth)


def scan(tmp_path, *masks, points=(), geometry=None):
    """A case of a small volume with label arrays beside it."""
    geometry = canonical_geometry(SHAPE, (1, 1, 1)) if geometry is None else geometry
    image = write_nifti(tmp_path / "scan.nii", np.zeros(SHAPE, np.int16), geometry.affine)
    files = []
    for k, mask in enumerate(masks):
        path = write_nifti(tmp_path / f"m{k}_mask.nii", mask.astype(np.uint8), geometry.affine)
        files.append(MaskFile(str(path), "labels"))
    return Case("c", "p", str(image), open_volume(str(image)), tuple(files), tuple(points))


def cube(*starts, side=4):
    array = np.zeros(SHAPE, np.uint8)
    for z, y, x in starts:
        array[z : z + side, y : y + side, x : x + side] = 1
    return array


def test_points(tmp_path):
    geometry = canonical_geometry(SHAPE, (1, 1, 1))
    places = [tuple(geometry.to_lps(np.array(i, float))) for i in ((1, 2, 3), (-0.4, 13.4, 0), (5, 5, 5))]
    points = [Point("a", places[0], 6.0, 1.0), Point("", places[1], 4.0), Point("", places[2], 5.0, 0.0)]
    findings, notes = find((case := scan(tmp_path, points=points)), case.source, 3.0)
    assert notes == []
    assert [(f.name, f.diameter_mm, f.label, f.mask_source) for f in findings] == [
        ("a", 6.0, 1.0, "none"),
        ("2", 4.0, None, "none"),
        ("3", 5.0, 0.0, "none"),
    ]
    assert [f.center_lps_mm for f in findings] == places
    assert all(f.mask is None and f.box is None and f.volume_mm3 is None for f in findings)


def test_a_point_outside_the_scan(tmp_path):
    geometry = canonical_geometry(SHAPE, (1, 1, 1))
    x, y, z = geometry.to_lps(np.array([5.0, 5.0, 5.0]))
    with pytest.raises(InputError, match="E-REG-001") as refused:  # RAS instead of LPS
        find((case := scan(tmp_path, points=[Point("a", (-x, -y, z), 6.0)])), case.source, 3.0)
    assert f"x {-x:.1f}" in refused.value.problem.measured
    assert "RAS" in refused.value.problem.action
    assert refused.value.problem.files == ()


def test_masks_that_share_voxels(tmp_path):
    case = scan(tmp_path, cube((1, 1, 1)), cube((4, 4, 4)))
    with pytest.raises(InputError, match="E-MASK-004") as refused:
        find(case, case.source, 3.0)
    assert refused.value.problem.measured == "1 voxels"
    assert refused.value.problem.files == tuple(mask.path for mask in case.masks)
    apart = scan(tmp_path, cube((1, 1, 1)), cube((5, 1, 1)))
    assert len(find(apart, apart.source, 3.0)[0]) == 2


def test_boxes_may_meet_where_masks_do_not(tmp_path):
    first, second = cube((1, 1, 1)), cube((3, 3, 3))
    first[3:, 3:, 3:] = 0
    case = scan(tmp_path, first, second)
    assert len(find(case, case.source, 3.0)[0]) == 2


def test_names_of_several_files_stay_whatever_is_dropped(tmp_path):
    one = cube((0, 0, 0))
    one[8:10, 8:10, 8:10] = 1  # 2.5 mm
    two = cube((0, 8, 0), (6, 8, 0))
    case = scan(tmp_path, one, two)
    everything, _ = find(case, case.source, 0.0)
    large, _ = find(case, case.source, 3.0)
    assert [f.name for f in everything] == ["1", "2", "2-1", "2-2"]
    assert [f.name for f in large] == ["1", "2-1", "2-2"]
    named = replace(case, masks=(case.masks[0], replace(case.masks[1], names={1: "x", 2: "y"})))
    assert [f.name for f in find(named, case.source, 0.0)[0]] == ["1", "2", "x", "y"]


@pytest.mark.parametrize(
    ("names", "unique"),
    [
        (["", "", ""], ["1", "2", "3"]),
        (["2", "", ""], ["2", "3", "4"]),
        (["a", "a", "a"], ["a", "2", "3"]),
        (["1", "1", "2"], ["1", "3", "2"]),
        (["", "1", ""], ["2", "1", "3"]),
    ],
)
def test_names_are_unique(names, unique):
    findings = [Finding(name, (0.0, 0.0, 0.0), 5.0, "none") for name in names]
    assert [f.name for f in _with_names(findings)] == unique


def test_readings_need_their_dicom_slices(tmp_path, cases):
    lidc = next(case for case in cases.values() if case.masks[0].kind == "lidc")
    case = replace(scan(tmp_path), masks=lidc.masks)
    with pytest.raises(InputError, match="E-LIDC-002"):
        find(case, case.source, 3.0)


def test_readings_of_an_uneven_stack_count_slices_by_thickness(tmp_path):
    places = positions(6)
    places[3:] += (0, 0, 1.0)  # steps of 2.5, 2.5, 3.5, 2.5, 2.5 mm
    slices = make_slices(stored_values((6, 9, 9)), places=places)
    write_all(tmp_path, slices)
    drawn = [roi(SQUARE, float(places[k][2]), slices[k].SOPInstanceUID) for k in (1, 2)]
    reads = [session(nodule(f"n{k}", *drawn, malignancy="5")) for k in range(4)]
    (tmp_path / "a.xml").write_text(message(*reads))
    (case,) = catalog(tmp_path, None, SeriesRules(allow_uneven=True), IndexCache(None)).cases
    (finding,), _ = find(case, case.source, 3.0)
    thickness = np.array([2.5, 3.0])
    assert finding.volume_mm3 == pytest.approx(9 * thickness.sum() * 0.75 * 0.5)
    assert finding.center_lps_mm[2] == pytest.approx(np.average(places[1:3, 2], weights=thickness))


def test_a_manifest_speaks_for_readings_too(cases):
    lidc = next(case for case in cases.values() if case.masks[0].kind == "lidc")
    told = replace(lidc, masks=(replace(lidc.masks[0], names={0: "n"}, labels={0: 0.25}),))
    findings, _ = find(told, told.source, 3.0)
    assert {f.label for f in findings} == {0.25}
    assert all(f.name.split("-")[0] == "n" for f in findings)

"""Structure sets come back where they were drawn, and those that cannot be trusted do not come back."""

import shutil

import numpy as np
import pydicom
import pytest

from tests.archive.dicom_files import AXIAL, CORONAL, OBLIQUE, SAGITTAL, positions
from tests.archive.mask_files import (
    SHAPE,
    blob,
    circle,
    marked_points,
    nodules,
    points_of,
    structure_set,
    write_ct,
    write_rt,
)
from toolkit.archive.catalog import catalog
from toolkit.archive.dicom_series import SeriesRules
from toolkit.archive.index_cache import IndexCache
from toolkit.errors import InputError


@pytest.mark.parametrize("plane", [AXIAL, CORONAL, SAGITTAL, OBLIQUE])
@pytest.mark.parametrize("feet_first", [False, True])
def test_what_rt_utils_traces_comes_back(tmp_path, plane, feet_first):
    places = positions(SHAPE[0], plane)
    slices = write_ct(tmp_path, plane=plane, places=places[::-1] if feet_first else places)
    if feet_first:
        slices = slices[::-1]  # along the normal, as rt-utils sorts them
    mask = blob()
    write_rt(tmp_path / "rt.dcm", tmp_path, {"nodule": mask})
    case, (finding,), notes = nodules(tmp_path)
    assert notes == []
    assert (finding.name, finding.mask_source) == ("1", "reader")
    np.testing.assert_allclose(marked_points(case, finding), points_of(slices, mask), atol=1e-4)
    assert finding.volume_mm3 == pytest.approx(mask.sum() * 0.64 * 2.5)
    np.testing.assert_allclose(finding.center_lps_mm, points_of(slices, mask).mean(axis=0), atol=1e-4)


def with_hole():
    mask = np.zeros(SHAPE, bool)
    mask[4:9, 8:30, 6:28] = True
    mask[5:8, 12:24, 10:22] = False  # a hole, open above and below
    mask[5:8, 16:19, 14:17] = True  # an island in it
    return mask


@pytest.mark.parametrize("approximate", [True, False])
def test_holes_and_islands(tmp_path, approximate):
    slices = write_ct(tmp_path)
    write_rt(tmp_path / "rt.dcm", tmp_path, {"nodule": with_hole()}, approximate_contours=approximate)
    case, (finding,), _ = nodules(tmp_path)
    np.testing.assert_allclose(marked_points(case, finding), points_of(slices, with_hole()), atol=1e-4)


def test_pin_holes(tmp_path):
    """rt-utils cuts a slit of two voxels from the hole to the outside; the rest comes back."""
    mask = with_hole()
    mask[5:8, 16:19, 14:17] = False
    write_ct(tmp_path)
    write_rt(tmp_path / "rt.dcm", tmp_path, {"nodule": mask}, use_pin_hole=True)
    _, (finding,), _ = nodules(tmp_path)
    lost = mask.sum() - finding.mask.sum()
    assert 0 < lost <= 3 * 3 * 6  # slices, width, length of the slit


def ball(slices, radius=7.3, at=(20.3, 17.6), first=3, last=9):
    return [circle(slices, k, at, radius) for k in range(first, last + 1)]


@pytest.mark.parametrize("plane", [AXIAL, CORONAL, SAGITTAL, OBLIQUE])
@pytest.mark.parametrize("tilted", [False, True])
@pytest.mark.parametrize("feet_first", [False, True])
def test_circles_have_the_volume_and_centre_of_a_cylinder(tmp_path, plane, tilted, feet_first):
    """Also where rows and columns differ and the gantry is tilted."""
    step = 2.5 * np.cross(*plane) + (0.9 * np.array(plane[1]) if tilted else 0)
    places = positions(SHAPE[0], plane, step)
    slices = write_ct(
        tmp_path, plane=plane, places=places[::-1] if feet_first else places, spacing=(0.7, 0.9)
    )
    rings = ball(slices)
    structure_set(tmp_path / "rt.dcm", {"GTV": rings}, [slices[k].SOPInstanceUID for k in range(3, 10)])
    _, (finding,), notes = nodules(tmp_path)
    assert notes == []
    assert finding.volume_mm3 == pytest.approx(7 * 2.5 * np.pi * 7.3**2, rel=0.02)
    np.testing.assert_allclose(
        finding.center_lps_mm, np.mean([r.mean(axis=0) for r in rings], axis=0), atol=0.2
    )


def test_a_hole_between_circles_and_a_keyhole(tmp_path):
    slices = write_ct(tmp_path)
    outer, inner = ball(slices, 9.0), ball(slices, 4.0)
    keyholes = [np.vstack([o, o[:1], i[::-1], i[-1:]]) for o, i in zip(outer, inner, strict=True)]
    forms = {"tumour xor": "CLOSEDPLANAR_XOR"}
    structure_set(
        tmp_path / "rt.dcm",
        {"nodule": outer + inner, "tumour xor": outer + inner, "gtv": keyholes},
        forms=forms,
    )
    _, findings, _ = nodules(tmp_path)
    exact = 7 * 2.5 * np.pi * (81 - 16)
    assert [f.volume_mm3 for f in findings] == pytest.approx([exact] * 3, rel=0.02)
    np.testing.assert_array_equal(findings[0].mask, findings[1].mask)


def test_which_regions_are_nodules(tmp_path):
    slices = write_ct(tmp_path)
    regions = {
        name: ball(slices, 3.0, (8 + 3 * k, 12))
        for k, name in enumerate(("Lung_L", "x", "GTV-1", "PTV", "y"))
    }
    structure_set(tmp_path / "rt.dcm", regions, kinds={"x": "ORGAN"})
    _, findings, notes = nodules(tmp_path)
    assert [f.name for f in findings] == ["3", "5"]
    assert [(n.code, n.measured) for n in notes] == [("W-MASK-002", "3 of 5")]
    _, findings, _ = nodules(tmp_path, pattern="lung|^x$")
    assert [f.name for f in findings] == ["1", "2"]


def test_open_contours_and_points_are_noted(tmp_path):
    slices = write_ct(tmp_path)
    structure_set(
        tmp_path / "rt.dcm",
        {"nodule": ball(slices), "lesion": ball(slices)[:2]},
        forms={"lesion": "OPEN_PLANAR"},
    )
    _, (finding,), notes = nodules(tmp_path)
    assert finding.name == "1"
    assert sorted(n.code for n in notes) == ["W-RT-001", "W-RT-004"]


def test_contours_on_every_second_slice_are_not_filled_in(tmp_path):
    slices = write_ct(tmp_path)
    structure_set(tmp_path / "rt.dcm", {"nodule": ball(slices)[::2]})
    _, (finding,), notes = nodules(tmp_path)
    assert finding.volume_mm3 == pytest.approx(4 * 2.5 * np.pi * 7.3**2, rel=0.02)
    assert [(n.code, n.measured) for n in notes if n.code == "W-RT-002"] == [
        ("W-RT-002", "3 of 7 slices of region 1")
    ]


def test_a_copied_contour_does_not_undo_itself(tmp_path):
    slices = write_ct(tmp_path)
    structure_set(tmp_path / "rt.dcm", {"nodule": ball(slices) + ball(slices)})
    _, (finding,), notes = nodules(tmp_path)
    assert finding.volume_mm3 == pytest.approx(7 * 2.5 * np.pi * 7.3**2, rel=0.02)
    assert [(n.code, n.measured) for n in notes] == [("W-RT-005", "7 in region 1")]


def test_less_than_a_voxel(tmp_path):
    slices = write_ct(tmp_path)
    structure_set(tmp_path / "rt.dcm", {"nodule": [circle(slices, 4, (20.5, 17.5), 0.3)]})
    _, findings, notes = nodules(tmp_path)
    assert findings == []
    assert [n.code for n in notes] == ["W-RT-004"]


def test_an_area_that_sampling_does_not_explain(tmp_path):
    """Slits of 0.3 voxels between the centres hold a third of the area and no voxel."""
    slices = write_ct(tmp_path)
    corner = np.array(slices[4].ImagePositionPatient, float)
    slits = [
        corner + 0.8 * np.array([[x + 0.3, 2, 0], [x + 0.7, 2, 0], [x + 0.7, 38, 0], [x + 0.3, 38, 0]])
        for x in range(2, 32)
    ]
    structure_set(tmp_path / "rt.dcm", {"nodule": [*slits, circle(slices, 5, (20, 17), 3.0)]})
    _, findings, notes = nodules(tmp_path)
    assert len(findings) == 1
    assert "W-RT-003" in [n.code for n in notes]


def test_contours_within_half_a_spacing_go_to_their_slice(tmp_path):
    slices = write_ct(tmp_path)
    rings = [ring + np.array([0, 0, 1.2]) for ring in ball(slices)]
    structure_set(tmp_path / "rt.dcm", {"nodule": rings}, [slices[k].SOPInstanceUID for k in range(3, 10)])
    _, (finding,), _ = nodules(tmp_path)
    assert (finding.box.start_zyx[0], finding.box.stop_zyx[0]) == (3, 10)


def beyond(slices):
    return [ball(slices)[0], circle(slices, 13, (20, 17), 5.0) + np.array([0, 0, 40.0])], ()


def across(slices):
    ring = ball(slices)[0]
    ring[:, 2] += np.linspace(-2, 2, len(ring))
    return [ring], ()


def outside(slices):
    return [circle(slices, 5, (20, 34), 5.0)], ()


def wrong_image(slices):
    return ball(slices)[:1], [slices[5].SOPInstanceUID]


def foreign_image(slices):
    return ball(slices)[:1], ["1.9.9"]


def flipped(slices):
    return ball(slices), [slices[k].SOPInstanceUID for k in range(9, 2, -1)]


def flat(slices):
    return [ball(slices)[0].ravel()[:-1]], ()


def not_finite(slices):
    ring = ball(slices)[0]
    ring[3, 1] = np.nan
    return [ring], ()


def scribble(slices):
    ring = np.tile(ball(slices)[0][[16, 48]], (40_000, 1))
    ring[::2] += np.linspace(0, 1e-3, len(ring) // 2)[:, None] * (1, 0, 0)
    return [ring], ()


def ras(slices):
    return [ring * (-1, -1, 1) for ring in ball(slices)], ()


@pytest.mark.parametrize(
    ("make", "code", "says"),
    [
        (beyond, "E-RT-002", "40.00 mm from the nearest slice"),
        (across, "E-RT-003", "2.00 mm from the slice"),
        (outside, "E-RT-004", "mm beyond the image"),
        (ras, "E-RT-004", "mm beyond the image"),
        (wrong_image, "E-RT-005", "5.00 mm from the image"),
        (flipped, "E-RT-005", "from the image"),
        (foreign_image, "E-RT-005", "does not have"),
        (flat, "E-RT-001", "191 numbers"),
        (not_finite, "E-RT-001", "192 numbers"),
        (scribble, "E-RT-001", "rows and columns on one slice"),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_what_cannot_be_trusted_is_refused_by_name(tmp_path, make, code, says):
    slices = write_ct(tmp_path)
    rings, sources = make(slices)
    structure_set(tmp_path / "rt.dcm", {"nodule": rings}, sources)
    with pytest.raises(InputError, match=code) as refused:
        nodules(tmp_path)
    problem = refused.value.problem
    assert says in problem.measured
    assert problem.files == (str(tmp_path / "rt.dcm"),)
    assert "rt.dcm" not in problem.public


def test_a_contour_in_a_gap_of_missing_slices(tmp_path):
    slices = write_ct(tmp_path)
    structure_set(tmp_path / "rt.dcm", {"nodule": ball(slices)})
    lost = next(p for p in tmp_path.glob("0*.dcm") if pydicom.dcmread(p).SOPInstanceUID.endswith("3.6"))
    lost.unlink()
    with pytest.raises(InputError, match=r"E-RT-002.*2\.50 mm from the nearest slice"):
        nodules(tmp_path, rules=SeriesRules(allow_missing=True))


@pytest.mark.parametrize("kept", [0.35, 0.7, 0.95])
def test_cut_short(tmp_path, kept):
    """Otherwise the contours behind the cut would be missing and nobody told."""
    slices = write_ct(tmp_path)
    structure_set(tmp_path / "rt.dcm", {"nodule": ball(slices), "lesion": ball(slices, 4.0, (30, 9))})
    data = (tmp_path / "rt.dcm").read_bytes()
    (tmp_path / "rt.dcm").write_bytes(data[: int(kept * len(data))])
    (refused,) = catalog(tmp_path, None, SeriesRules(), IndexCache(None)).refused
    assert refused.code == "E-FILE-002"


def test_no_contours_at_all(tmp_path):
    write_ct(tmp_path)
    structure_set(tmp_path / "rt.dcm", {"nodule": []})
    _, findings, notes = nodules(tmp_path)
    assert findings == []
    assert [n.code for n in notes] == ["W-RT-004"]


def test_the_structure_set_among_the_test_files_of_pydicom(tmp_path):
    """It has no preamble and an absent series: refused by name."""
    write_ct(tmp_path / "ct")
    shutil.copy(pydicom.data.get_testdata_file("rtstruct.dcm"), tmp_path / "rt.dcm")
    found = catalog(tmp_path, None, SeriesRules(), IndexCache(None))
    assert [(p.code, p.files) for p in found.refused] == [("E-MASK-002", (str(tmp_path / "rt.dcm"),))]


@pytest.mark.real
def test_the_dirty_archive(dirty_archive):
    root = next(dirty_archive.rglob("bad"))
    found = catalog(root, None, SeriesRules(), IndexCache(None))
    codes = {p.files[0].rpartition("/")[2]: p.code for p in found.refused}
    assert codes["pydicom_rtstruct.dcm"] == "E-MASK-002"
    assert codes["pydicomdata_liver.dcm"] == "E-MASK-002"

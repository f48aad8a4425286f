"""DICOM mask objects find their scan, by reference or by manifest; hostile ones raise nothing else."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.archive.mask_files import (
    SHAPE,
    blob,
    circle,
    marked_points,
    nodules,
    only_case,
    points_of,
    structure_set,
    write_ct,
    write_rt,
    write_seg,
)
from tests.archive.volume_files import write_nifti
from toolkit.archive.case import Case, MaskFile
from toolkit.archive.catalog import catalog
from toolkit.archive.dicom_series import SeriesRules
from toolkit.archive.index_cache import IndexCache
from toolkit.archive.mask_object import read_head
from toolkit.archive.region_rule import NamedRegion, RegionRule
from toolkit.archive.regions import find
from toolkit.errors import InputError


def discovered(root, manifest=None):
    return catalog(root, manifest, SeriesRules(), IndexCache(None))


def test_objects_join_the_series_that_they_name(tmp_path):
    (tmp_path / "masks").mkdir()
    write_ct(tmp_path / "ct" / "1.2.3")
    slices = write_ct(tmp_path / "ct" / "1.2.4", series="1.2.4")
    write_seg(tmp_path / "masks" / "a", slices, blob().astype(np.uint8))
    write_rt(tmp_path / "masks" / "b.dcm", tmp_path / "ct" / "1.2.3", {"nodule": blob()})
    found = discovered(tmp_path)
    assert found.refused == ()
    assert [(c.case_id, [m.kind for m in c.masks]) for c in found.cases] == [
        ("1.2.3", ["rtstruct"]),
        ("1.2.4", ["seg"]),
    ]
    assert found.cases[1].masks[0].regions == (NamedRegion(1, "nodule", "Nodule", ""),)


@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
def test_an_object_that_names_no_series_joins_by_its_images(tmp_path, kind):
    write_ct(tmp_path / "other", series="1.2.4")
    slices = write_ct(tmp_path / "ct")
    path = tmp_path / "mask.dcm"
    if kind == "seg":
        seg = write_seg(path, slices, blob().astype(np.uint8))
        del seg.ReferencedSeriesSequence
        seg.save_as(path)
    else:
        rings = [circle(slices, k, (20, 17), 5.0) for k in (4, 5)]
        structure_set(path, {"nodule": rings}, [slices[k].SOPInstanceUID for k in (4, 5)], series="")
    found = discovered(tmp_path)
    assert found.refused == ()
    assert [len(c.masks) for c in found.cases] == [1, 0]


def test_orphans_and_masks_of_two_series_are_refused_by_name(tmp_path):
    slices = write_ct(tmp_path / "ct")
    write_ct(tmp_path / "other", series="1.2.4")
    structure_set(tmp_path / "orphan.dcm", {"nodule": []}, series="1.9")
    both = structure_set(tmp_path / "both.dcm", {"nodule": [circle(slices, 4, (20, 17), 5.0)]})
    study = both.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    second = pydicom.Dataset()
    second.SeriesInstanceUID = "1.2.4"
    study.RTReferencedSeriesSequence.append(second)
    both.save_as(tmp_path / "both.dcm")
    found = discovered(tmp_path)
    assert [(p.code, Path(p.files[0]).name) for p in found.refused] == [
        ("E-MASK-005", "both.dcm"),
        ("E-MASK-002", "orphan.dcm"),
    ]
    assert all(not case.masks for case in found.cases)


def write_manifest(path, rows):
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, ["case_id", "patient_id", "image", "mask", "nodule_id", "label"])
        table.writeheader()
        table.writerows([{"case_id": "c", "patient_id": "p", **row} for row in rows])
    return path


def test_a_manifest_names_segments_and_regions_by_number(tmp_path):
    slices = write_ct(tmp_path / "ct")
    masks = np.stack([blob(), np.roll(blob(), 9, axis=2)], axis=-1).astype(np.uint8)
    write_seg(tmp_path / "seg.dcm", slices, masks, names=("lung", "nodule"))
    rows = [{"image": "ct", "mask": "seg.dcm", "nodule_id": n, "label": v} for n, v in ((1, 1), (2, 0))]
    manifest = write_manifest(tmp_path / "m.csv", rows)
    (case,) = discovered(tmp_path, manifest).cases
    findings, notes = find(case, case.source, 3.0)
    assert [(f.name, f.label) for f in findings] == [("1", 1.0), ("2", 0.0)]
    assert notes == []
    rows[0]["nodule_id"] = 7
    (case,) = discovered(tmp_path, write_manifest(manifest, rows)).cases
    with pytest.raises(InputError, match=r"E-MASK-006.*7"):
        find(case, case.source, 3.0)
    one = write_manifest(manifest, [{"image": "ct", "mask": "seg.dcm", "nodule_id": "Doe", "label": 1}])
    (case,) = discovered(tmp_path, one).cases
    findings, notes = find(case, case.source, 3.0)
    assert [(f.name, f.label) for f in findings] == [("Doe", 1.0)]
    assert [n.code for n in notes] == ["W-MASK-002"]


@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_mask_object_on_a_volume_file_is_placed_by_position(tmp_path, kind, turned):
    """The same scan as NIfTI; in one of them the index axes are stored in another order."""
    slices = write_ct(tmp_path / "ct")
    mask = blob()
    if kind == "seg":
        write_seg(tmp_path / "mask.dcm", slices, mask.astype(np.uint8))
    else:
        write_rt(tmp_path / "mask.dcm", tmp_path / "ct", {"nodule": mask})
    affine = only_case(tmp_path).source.geometry.affine
    array = np.zeros(SHAPE, np.int16)
    if turned:
        array, affine = array.transpose(2, 0, 1), affine[:, [2, 0, 1, 3]]
    write_nifti(tmp_path / "scan.nii", array, affine)
    manifest = write_manifest(tmp_path / "m.csv", [{"image": "scan.nii", "mask": "mask.dcm"}])
    (case,) = discovered(tmp_path, manifest).cases
    assert case.problem is None, case.problem
    (finding,), _ = find(case, case.source, 3.0)
    np.testing.assert_allclose(marked_points(case, finding), points_of(slices, mask), atol=1e-3)
    case_digest = case.digest
    seg = pydicom.dcmread(tmp_path / "mask.dcm")
    seg.ContentLabel = "EDITED"
    seg.save_as(tmp_path / "mask.dcm")
    assert discovered(tmp_path, manifest).cases[0].digest != case_digest


def test_a_scan_is_not_its_own_mask(tmp_path):
    write_ct(tmp_path / "ct")
    name = next((tmp_path / "ct").glob("*.dcm")).name
    manifest = write_manifest(tmp_path / "m.csv", [{"image": "ct", "mask": f"ct/{name}"}])
    (case,) = discovered(tmp_path, manifest).cases
    assert case.problem is not None
    assert case.problem.code == "E-MASK-003"


def test_two_objects_on_one_nodule_are_refused_and_overlapping_segments_are_not(tmp_path):
    slices = write_ct(tmp_path / "ct")
    masks = np.stack([blob(), blob()], axis=-1).astype(np.uint8)
    write_seg(tmp_path / "seg.dcm", slices, masks, names=("nodule a", "nodule b"))
    assert len(nodules(tmp_path)[1]) == 2
    far = np.zeros(SHAPE, np.uint8)
    far[10:13, 1:6, 30:35] = 1
    write_seg(tmp_path / "z.dcm", slices, far)
    assert [f.name for f in nodules(tmp_path)[1]] == ["1", "2", "2-1"]
    write_rt(tmp_path / "rt.dcm", tmp_path / "ct", {"nodule": blob()})
    with pytest.raises(InputError, match="E-MASK-004"):
        nodules(tmp_path)


def test_the_index_remembers_objects(tmp_path):
    slices = write_ct(tmp_path / "a")
    write_seg(tmp_path / "a" / "seg.dcm", slices, blob().astype(np.uint8), names=("nodule",))
    results = []
    for _ in range(2):
        cache = IndexCache(tmp_path / "cache")
        results.append(catalog(tmp_path / "a", None, SeriesRules(), cache).cases[0].masks)
        cache.close()
    assert results[0] == results[1]
    assert results[0][0].regions


@pytest.mark.parametrize(
    ("name", "meaning", "kind", "taken"),
    [
        ("", "", "", True),
        ("Region 3", "", "", True),
        ("GTV", "", "GTV", True),
        ("gtv_lung_L", "", "", True),
        ("GTVp1", "", "ORGAN", True),
        ("lung nodule", "", "", True),
        ("LungNodule2", "", "ORGAN", True),
        ("Segment 1", "Nodule", "ANATOMY", True),
        ("Tumor in left lung", "", "", True),
        ("PTV", "", "", False),
        ("PTV_6000 GTV", "", "", False),
        ("CTVnodule", "", "", False),
        ("iTV", "", "", False),
        ("Lung_L", "", "", False),
        ("LungLeft", "", "", False),
        ("LUNGS", "", "", False),
        ("heart", "", "", False),
        ("BODY", "", "", False),
        ("SpinalCord", "", "", False),
        ("Esophagus", "", "", False),
        ("x", "", "EXTERNAL", False),
        ("x", "", "organ", False),
        ("Segment 1", "Liver", "", False),
        ("Segment 1", "", "ANATOMY", False),
        ("plunger", "", "", True),
        ("Herz", "", "", True),
    ],
)
def test_which_names_are_nodules(name, meaning, kind, taken):
    region = NamedRegion(1, name, meaning, kind)
    assert RegionRule().takes(region) is taken
    assert RegionRule("HEART|cord$").takes(region) is (name in ("heart", "SpinalCord"))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A case with bytes of a segmentation and of a structure set of it."""
    root = tmp_path_factory.mktemp("fuzz")
    slices = write_ct(root / "ct", shape=(5, 12, 12))
    mask = np.zeros((5, 12, 12), bool)
    mask[1:4, 3:8, 4:9] = True
    write_seg(root / "seg.dcm", slices, mask.astype(np.uint8))
    labels = mask.astype(float)
    write_seg(
        root / "rle.dcm", slices, labels, kind="FRACTIONAL", transfer_syntax_uid=pydicom.uid.RLELossless
    )
    write_rt(root / "rtstruct.dcm", root / "ct", {"nodule": mask})
    (case,) = discovered(root / "ct").cases
    return root, case, {name: (root / f"{name}.dcm").read_bytes() for name in ("seg", "rle", "rtstruct")}


def outcome(case: Case, kind: str, path: Path) -> str:
    """What becomes of one mask: a code, or how many nodules."""
    try:
        read_head(kind, str(path))
        findings, _ = find(replace(case, masks=(MaskFile(str(path), kind),)), case.source, 3.0)
    except InputError as error:
        return error.problem.code
    return str(len(findings))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from(["seg", "rle", "rtstruct"]))
def test_no_mutation_raises_anything_else(written, tmp_path, data, name):
    _, case, files = written
    damaged = bytearray(files[name])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at : at + 1] = data.draw(st.binary(min_size=0, max_size=4))
    if data.draw(st.booleans()):
        damaged = damaged[: data.draw(st.integers(0, len(damaged)))]
    path = tmp_path / "x.dcm"
    path.write_bytes(damaged)
    kind = "rtstruct" if name == "rtstruct" else "seg"
    assert outcome(case, kind, path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=600), kind=st.sampled_from(["seg", "rtstruct"]), magic=st.booleans())
def test_garbage_is_refused(written, tmp_path, data, kind, magic):
    _, case, _ = written
    path = tmp_path / "x.dcm"
    path.write_bytes((bytes(128) + b"DICM" if magic else b"") + data)
    assert outcome(case, kind, path)[0] in "E0"

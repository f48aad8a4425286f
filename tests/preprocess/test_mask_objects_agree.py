"""One nodule as a label volume, a DICOM Segmentation and an RT Structure Set gives the same crop."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from tests.archive.mask_files import write_rt, write_seg
from tests.preprocess.archives import identity, run, write_itk
from tests.preprocess.test_formats_agree import crops, same
from tests.real import real_data, unpack
from toolkit.archive.catalog import catalog
from toolkit.archive.dicom_series import SeriesRules
from toolkit.archive.index_cache import IndexCache
from toolkit.archive.region_rule import RegionRule
from toolkit.archive.regions import find
from toolkit.errors import StoreError
from toolkit.phantom.anatomy import make_patient
from toolkit.phantom.write_dicom import write_dicom
from toolkit.preprocess.plan import Settings
from toolkit.store import Store

SECRET = "Doe^John"


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """One phantom patient in four archives; returns their folders and the number of nodules."""
    root = tmp_path_factory.mktemp("agree")
    patient = make_patient(5, 2)
    labels = np.zeros((len(patient.nodules), *patient.hu.shape), bool)
    for k, nodule in enumerate(patient.nodules):
        labels[k][nodule.box.slices] = nodule.mask > 0
    for name in ("seg", "rtstruct", "nifti"):
        (root / name).mkdir()
    values = (labels * np.arange(1, len(labels) + 1)[:, None, None, None]).max(axis=0).astype(np.uint8)
    write_itk(root / "nifti" / "scan.nii.gz", patient.hu, patient.geometry, True)
    write_itk(root / "nifti" / "scan_mask.nii.gz", values, patient.geometry, True)
    names = [f"{SECRET} nodule {k}" for k in range(len(labels))]
    for name in ("seg", "rtstruct"):
        write_dicom(patient, 5, root / name)
    slices = sorted(
        (pydicom.dcmread(path) for path in (root / "seg").glob("*.dcm")),
        key=lambda d: float(d.ImagePositionPatient[2]),
    )
    segments = np.moveaxis(np.concatenate([labels, np.ones((1, *labels.shape[1:]), bool)]), 0, -1)
    write_seg(root / "seg" / "m.dcm", slices, segments.astype(np.uint8), names=(*names, "Lungs"))
    drawn = {"BODY": values == 0, **dict(zip(names, labels, strict=True))}
    write_rt(root / "rtstruct" / "m.dcm", root / "rtstruct", drawn)
    return root, len(labels)


def test_all_three_give_the_same_crops(archives, tmp_path: Path) -> None:
    root, count = archives
    for name in ("nifti", "seg", "rtstruct"):
        summary = run(root / name, tmp_path / name)
        assert (summary.done, summary.nodules, summary.exit_code) == (1, count, 0), summary
    same(tmp_path / "nifti", tmp_path / "seg")
    same(tmp_path / "nifti", tmp_path / "rtstruct")
    sources = {n: {d.mask_source for d in Store.open(tmp_path / n).nodules} for n in ("seg", "rtstruct")}
    assert sources == {"seg": {"volume"}, "rtstruct": {"reader"}}


@pytest.mark.parametrize("name", ["seg", "rtstruct"])
def test_no_name_of_a_region_enters_the_store(archives, tmp_path: Path, name: str) -> None:
    root, count = archives
    assert SECRET.encode() in (root / name / "m.dcm").read_bytes()
    run(root / name, tmp_path / "store")
    for file, data in identity(tmp_path / "store").items():
        assert b"Doe" not in data, file
        assert b"nodule " not in data, file
    notes = (tmp_path / "store" / "ledger" / "00000.jsonl").read_text()
    assert "W-MASK-002" in notes
    assert len(Store.open(tmp_path / "store").nodules) == count


def test_a_second_run_finds_the_nodules_in_the_index(archives, tmp_path: Path, monkeypatch) -> None:
    root, _ = archives
    run(root / "seg", tmp_path / "a", index_cache=tmp_path / "index")
    (root / "seg" / "m.dcm").rename(tmp_path / "hidden")
    (tmp_path / "hidden").rename(root / "seg" / "m.dcm")  # same size and time: known
    monkeypatch.setattr("toolkit.archive.regions.object_nodules", None)  # would fail if it were called
    settings = Settings(spacing_mm=1.5, size=20, margin=2)
    assert run(root / "seg", tmp_path / "b", index_cache=tmp_path / "index", settings=settings).done == 1
    assert len(crops(tmp_path / "b")) == len(crops(tmp_path / "a"))


def test_the_pattern_is_part_of_the_store(archives, tmp_path: Path) -> None:
    root, count = archives
    settings = Settings(spacing_mm=1.0, size=24, margin=4, regions=RegionRule("nodule 0$"))
    summary = run(root / "rtstruct", tmp_path / "s", settings=settings)
    assert summary.nodules == 1 < count
    with pytest.raises(StoreError, match="E-STORE-002"):
        run(root / "rtstruct", tmp_path / "s")
    none = Settings(spacing_mm=1.0, size=24, margin=4, regions=RegionRule("tumour"))
    assert (run(root / "seg", tmp_path / "t", settings=none).empty) == 1


@pytest.mark.real
def test_the_readers_nodule_of_a_real_scan_in_three_formats(tmp_path):
    """LIDC XML, and its consensus mask written by highdicom and by rt-utils: one crop, bit for bit."""
    scan = unpack(real_data("lidc-idri-0001_ct133.tar.xz"), tmp_path / "lidc")
    (case,) = catalog(scan, None, SeriesRules(), IndexCache(None)).cases
    ((finding,), _) = find(case, case.source, 3.0)
    mask = np.zeros(case.source.geometry.shape_zyx, bool)
    mask[finding.box.slices] = finding.mask > 0
    assert case.source.reorientation.order == (0, 1, 2)
    mask = mask[tuple(slice(None, None, -1 if flip else 1) for flip in case.source.reorientation.flips)]
    slices = [pydicom.dcmread(file.path) for file in case.source.files]
    for name in ("seg", "rtstruct"):
        (tmp_path / name).mkdir()
        for number, d in enumerate(slices):
            d.FrameOfReferenceUID = slices[0].FrameOfReferenceUID  # anonymisation gave each slice its own
            d.save_as(tmp_path / name / f"{number:03d}.dcm")
    write_seg(tmp_path / "seg" / "seg.dcm", slices, mask.astype(np.uint8))
    write_rt(tmp_path / "rtstruct" / "rt.dcm", tmp_path / "rtstruct", {"nodule": mask})
    found = []
    for name in ("lidc", "seg", "rtstruct"):
        run(tmp_path / name, tmp_path / f"store-{name}", settings=Settings())
        found.append(Store.open(tmp_path / f"store-{name}"))
    assert [len(store) for store in found] == [1, 1, 1]
    for store in found[1:]:
        np.testing.assert_array_equal(store.image(0), found[0].image(0))
        np.testing.assert_array_equal(store.mask(0), found[0].mask(0))
        assert store.nodules[0].volume_mm3 == pytest.approx(found[0].nodules[0].volume_mm3)

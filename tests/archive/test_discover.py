"""What belongs together in a folder of anything, and what is said of the rest."""

import os
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import MRImageStorage

from tests.archive.dicom_files import make_slices, simple_series, stored_values, write_all
from tests.archive.lidc_files import message
from tests.archive.volume_files import ITK_FORMATS, canonical_geometry, phantom, write_itk
from toolkit.archive.catalog import catalog
from toolkit.archive.dicom_series import SeriesRules
from toolkit.archive.index_cache import IndexCache
from toolkit.archive.names import common_stem, is_mask_name, volume_suffix
from toolkit.errors import NothingFoundError, UsageError

AFFINE = canonical_geometry().affine


def run(root):
    return catalog(root, None, SeriesRules(), IndexCache(None))


def volume(path, mask=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_itk(path, (phantom() > 2000).astype(np.uint8) if mask else phantom(), AFFINE)


def masks_of(found, root):
    return {
        case.case_id: [m.path.removeprefix(f"{root}/") for m in case.masks]
        for case in found.cases
        if case.problem is None
    }


def test_several_series_in_one_folder(tmp_path):
    for k, uid in enumerate(("1.2.3", "1.2.4")):
        slices = make_slices(stored_values(seed=k), series=uid, patient=f"P{k}")
        write_all(tmp_path, slices, range(k, 12, 2))
    found = run(tmp_path)
    assert [(c.case_id, c.patient_id, c.image) for c in found.cases] == [
        ("1.2.3", "P0", str(tmp_path)),
        ("1.2.4", "P1", str(tmp_path)),
    ]
    assert [c.source.geometry.shape_zyx for c in found.cases] == [(6, 5, 7)] * 2
    assert found.cases[0].digest != found.cases[1].digest


def test_one_series_over_several_folders(tmp_path):
    slices = make_slices(stored_values())
    write_all(tmp_path / "study" / "a", slices[::2])
    write_all(tmp_path / "study" / "b", slices[1::2])
    (case,) = run(tmp_path).cases
    assert case.problem is None
    assert case.source.geometry.shape_zyx == (6, 5, 7)
    assert case.image == str(tmp_path / "study")


def test_digest_and_ids_do_not_know_file_names(tmp_path):
    paths = simple_series(tmp_path / "a")
    (tmp_path / "b").mkdir()
    for name, k in zip("abcdef", [3, 0, 5, 1, 4, 2], strict=True):
        (tmp_path / "b" / name).write_bytes(paths[k].read_bytes())  # no suffix either
    one, other = (run(tmp_path / name).cases[0] for name in "ab")
    assert (one.case_id, one.patient_id, one.digest) == (other.case_id, other.patient_id, other.digest)
    np.testing.assert_array_equal(*[c.source.read_boxes([c.source.geometry.box])[0] for c in (one, other)])


def test_patients_mixed_up_in_one_series(tmp_path):
    simple_series(tmp_path, lambda k, d: setattr(d, "PatientID", "P2" if k == 3 else "P1"))
    (case,) = run(tmp_path).cases
    assert case.problem.code == "E-DCM-004"
    assert case.source is None


def test_patient_without_an_id_is_the_study(tmp_path):
    simple_series(tmp_path, lambda _, d: setattr(d, "PatientID", ""))
    assert run(tmp_path).cases[0].patient_id == "1.2"


def test_readings_join_by_series_uid(tmp_path):
    simple_series(tmp_path / "ct")
    for name, uid in (("r.xml", "1.2.3"), ("s.xml", "1.2.3"), ("orphan.xml", "9.9")):
        (tmp_path / "xml").mkdir(exist_ok=True)
        (tmp_path / "xml" / name).write_text(message(series=uid))
    (tmp_path / "xml" / "other.xml").write_text("<html/>")
    found = run(tmp_path)
    assert masks_of(found, tmp_path) == {"1.2.3": ["xml/r.xml", "xml/s.xml"]}
    assert {mask.kind for mask in found.cases[0].masks} == {"lidc"}
    assert {what: len(paths) for what, paths in found.ignored.items()} == {
        "LIDC readings of absent series": 1,
        "other files": 1,
    }
    assert found.refused == ()


def test_what_is_no_slice_is_counted(tmp_path):
    simple_series(tmp_path)

    def scout(_, d):
        d.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        d.SOPInstanceUID += ".9"

    def resonance(_, d):
        d.SOPClassUID, d.Modality = MRImageStorage, "MR"
        d.SOPInstanceUID += ".8"

    simple_series(tmp_path / "scout", scout)  # of the very same series
    simple_series(tmp_path / "mr", resonance, series="1.2.5")
    (tmp_path / "notes.txt").write_text("text")
    found = run(tmp_path)
    assert [c.case_id for c in found.cases] == ["1.2.3"]
    assert found.cases[0].problem is None
    assert {what: len(paths) for what, paths in found.ignored.items()} == {
        "CT localizers": 6,
        "DICOM MR that is no CT image": 6,
        "other files": 1,
    }


@pytest.mark.parametrize("suffix", sorted({name.removeprefix("a").removeprefix("z") for name in ITK_FORMATS}))
@pytest.mark.parametrize("word", ["_mask", "_seg", "_label", "-masks", ".SEG", "_segmentation"])
def test_masks_beside_their_image(tmp_path, suffix, word):
    volume(tmp_path / f"p1{suffix}")
    volume(tmp_path / f"p10{suffix}")
    volume(tmp_path / f"p1{word}{'.nrrd' if suffix == '.mha' else suffix}", mask=True)
    found = run(tmp_path)
    expected = f"p1{word}{'.nrrd' if suffix == '.mha' else suffix}"
    assert masks_of(found, tmp_path) == {"p1": [expected], "p10": []}
    assert found.refused == ()


def test_image_and_label_folders(tmp_path):
    volume(tmp_path / "imagesTr" / "lung_001_0000.nii.gz")
    volume(tmp_path / "imagesTr" / "lung_002_0000.nii.gz")
    volume(tmp_path / "labelsTr" / "lung_001.nii.gz", mask=True)
    volume(tmp_path / "labelsTr" / "lung_009.nii.gz", mask=True)
    found = run(tmp_path)
    assert masks_of(found, tmp_path) == {
        "imagesTr/lung_001_0000": ["labelsTr/lung_001.nii.gz"],
        "imagesTr/lung_002_0000": [],
    }
    assert [(p.code, p.files) for p in found.refused] == [
        ("E-MASK-002", (str(tmp_path / "labelsTr" / "lung_009.nii.gz"),))
    ]


def test_a_folder_for_each_patient(tmp_path):
    for patient, names in {
        "p1": ("image", "mask"),
        "p2": ("ct", "segmentation"),
        "p3": ("x", "label"),
    }.items():
        volume(tmp_path / patient / f"{names[0]}.nrrd")
        volume(tmp_path / patient / f"{names[1]}.nrrd", mask=True)
    found = run(tmp_path)
    assert masks_of(found, tmp_path) == {
        "p1/image": ["p1/mask.nrrd"],
        "p2/ct": ["p2/segmentation.nrrd"],
        "p3/x": [],
    }
    assert [p.code for p in found.refused] == ["E-MASK-002"]  # never an image of ones and zeros


def test_one_name_in_two_formats(tmp_path):
    for suffix in (".nii.gz", ".nrrd"):
        volume(tmp_path / f"p1{suffix}")
        volume(tmp_path / f"p1_mask{suffix}", mask=True)
    assert masks_of(run(tmp_path), tmp_path) == {
        "p1.nii.gz": ["p1_mask.nii.gz"],
        "p1.nrrd": ["p1_mask.nrrd"],
    }


def test_hidden_files_and_folders_are_not_there(tmp_path):
    volume(tmp_path / "p1.nii.gz")
    (tmp_path / "._p1.nii.gz").write_bytes(b"\0\5\x16\7AppleDouble")
    simple_series(tmp_path / ".Trash")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    found = run(tmp_path)
    assert [c.case_id for c in found.cases] == ["p1"]
    assert (found.refused, found.ignored) == ((), {})


def test_links(tmp_path):
    outside, root = tmp_path / "outside", tmp_path / "archive"
    volume(outside / "far.nii.gz")
    simple_series(outside / "ct")
    volume(root / "store" / "real.nii.gz")
    (root / "in.nii.gz").symlink_to(root / "store" / "real.nii.gz")
    (root / "out.nii.gz").symlink_to(outside / "far.nii.gz")
    (root / "dotted.nii.gz").symlink_to("../outside/far.nii.gz")
    (root / "ct").symlink_to(outside / "ct")
    (root / "broken.nii.gz").symlink_to(root / "nothing")
    cache = IndexCache(tmp_path / "cache")
    for _ in range(2):  # the index remembers links, too
        found = catalog(root, None, SeriesRules(), cache)
        assert [c.case_id for c in found.cases] == ["in", "store/real"]
        assert all(c.problem is None for c in found.cases)
        assert {p.files[0].removeprefix(f"{root}/") for p in found.refused} == {
            "out.nii.gz",
            "dotted.nii.gz",
            "ct",
        }
        assert {p.code for p in found.refused} == {"E-FILE-004"}
    for path in (outside / "far.nii.gz", root / "store" / "real.nii.gz"):
        os.utime(path, ns=(7, 7))  # nothing but the target tells the link of now from the one of before
    catalog(root, None, SeriesRules(), cache)
    assert (outside / "far.nii.gz").stat().st_size == (root / "in.nii.gz").stat().st_size
    (root / "in.nii.gz").unlink()
    (root / "in.nii.gz").symlink_to(outside / "far.nii.gz")
    assert [c.case_id for c in catalog(root, None, SeriesRules(), cache).cases] == ["store/real"]
    cache.close()


def test_a_link_is_judged_by_the_archive_that_is_named(tmp_path):
    volume(tmp_path / "a" / "real.nii.gz")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "link.nii.gz").symlink_to(tmp_path / "a" / "real.nii.gz")
    cache = IndexCache(None)
    assert [c.case_id for c in catalog(tmp_path, None, SeriesRules(), cache).cases] == ["a/real", "b/link"]
    inner = catalog(tmp_path / "b", None, SeriesRules(), cache)
    assert (inner.cases, [p.code for p in inner.refused]) == ((), ["E-FILE-004"])


def test_nothing_found(tmp_path):
    with pytest.raises(NothingFoundError, match="E-CASE-004"):
        run(tmp_path)
    (tmp_path / "readme.txt").write_text("text")
    with pytest.raises(NothingFoundError, match="E-CASE-004"):
        run(tmp_path)
    with pytest.raises(UsageError, match="E-FILE-001"):
        run(tmp_path / "readme.txt")


def test_unreadable_files_are_named(tmp_path):
    volume(tmp_path / "good.nii.gz")
    (tmp_path / "cut.nrrd").write_bytes(b"NRRD0004\ntype: short\n")
    (tmp_path / "cut_mask.nrrd").write_bytes(b"")
    (tmp_path / "alone_seg.mha").write_bytes(b"nothing")
    (tmp_path / "text.dcm").write_text("text")
    found = run(tmp_path)
    states = {c.case_id: c.problem and c.problem.code for c in found.cases}
    assert states["good"] is None
    assert states["cut"].startswith("E-")
    files = {p.files[0].removeprefix(f"{tmp_path}/"): p.code for p in found.refused}
    assert files == {"text.dcm": "E-FILE-003", "alone_seg.mha": "E-MASK-002"}


def test_names():
    assert volume_suffix("A.NII.GZ") == ".nii.gz"
    assert volume_suffix("a.dcm") == ""
    for name in ("x_mask.nii", "x-seg.nrrd", "x.label.mha", "X_Segmentation.nii.gz"):
        assert is_mask_name(Path(name))
        assert common_stem(Path(name)).lower() == "x"
    for name in ("x_masked.nii", "unmask.nrrd", "segment.mha"):
        assert not is_mask_name(Path(name))

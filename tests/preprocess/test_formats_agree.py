"""One scan in any format, orientation, tilt or file order gives the same crop."""

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from tests.preprocess.archives import grid, run, scan, turn, write_cases, write_itk, write_nifti
from toolkit.archive.geometry import Box
from toolkit.phantom.anatomy import make_patient
from toolkit.phantom.write_dicom import write_dicom
from toolkit.phantom.write_lidc import write_lidc
from toolkit.preprocess.plan import Settings
from toolkit.store import Store

FORMATS = ("scan.mhd", "scan.mha", "scan.nrrd", "scan.nhdr", "scan.nii", "scan.nii.gz")


def crops(store: Path) -> dict[tuple[float, ...], tuple[np.ndarray, np.ndarray]]:
    """Crops by centre, rounded: ids and order depend on the format."""
    opened = Store.open(store)
    return {
        tuple(np.round(n.center_lps_mm, 2)): (np.array(opened.image(i)), np.array(opened.mask(i)))
        for i, n in enumerate(opened.nodules)
    }


def same(a: Path, b: Path) -> None:
    one, other = crops(a), crops(b)
    assert one.keys() == other.keys()
    assert one
    for key, (image, mask) in one.items():
        np.testing.assert_array_equal(image, other[key][0])
        np.testing.assert_array_equal(mask, other[key][1])


@pytest.mark.parametrize("compressed", [False, True], ids=["raw", "compressed"])
def test_dicom_nifti_metaimage_and_nrrd_give_the_same_crops(tmp_path: Path, compressed: bool) -> None:
    patient = make_patient(5, 2)
    write_dicom(patient, 5, _made(tmp_path / "dicom"))
    write_lidc(patient, 5, tmp_path / "dicom" / "readings.xml")
    assert run(tmp_path / "dicom", tmp_path / "s-dicom").nodules == len(patient.nodules)
    labels = np.zeros(patient.hu.shape, np.uint8)
    for k, nodule in enumerate(patient.nodules, start=1):
        labels[nodule.box.slices][nodule.mask > 0] = k
    for name in FORMATS if not compressed else ("scan.mha", "scan.nrrd"):
        folder = _made(tmp_path / name)
        write_itk(folder / name, patient.hu, patient.geometry, compressed)
        write_itk(folder / name.replace("scan", "scan_mask"), labels, patient.geometry, compressed)
        summary = run(folder, tmp_path / f"s-{name}")
        assert (summary.done, summary.exit_code) == (1, 0), summary
        same(tmp_path / "s-dicom", tmp_path / f"s-{name}")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_shuffled_and_renamed_slices_give_the_same_bytes(tmp_path: Path) -> None:
    patient = make_patient(5, 4)
    folder = _made(tmp_path / "a")
    write_dicom(patient, 5, folder)
    write_lidc(patient, 5, folder / "readings.xml")
    other = _made(tmp_path / "b")
    slices = sorted(folder.glob("*.dcm"))
    for k, path in enumerate(np.random.default_rng(0).permutation(slices)):
        shutil.copy(path, other / f"{k:03d}")  # no suffix either
    shutil.copy(folder / "readings.xml", other / "renamed.xml")
    run(folder, tmp_path / "s1")
    run(other, tmp_path / "s2")
    same(tmp_path / "s1", tmp_path / "s2")
    for file in ("store.json", "ledger/00000.jsonl", "plan.jsonl", "nodules.csv"):
        assert (tmp_path / "s1" / file).read_bytes() == (tmp_path / "s2" / file).read_bytes()


def test_all_48_orientations_give_the_same_crop(tmp_path: Path) -> None:
    base = grid((40, 46, 52), (1.5, 0.8, 0.9))
    image, mask = scan(base)
    archive = _made(tmp_path / "archive")
    for number, (order, signs) in enumerate(
        itertools.product(itertools.permutations(range(3)), itertools.product([1, -1], repeat=3))
    ):
        steps = tuple(slice(None, None, sign) for sign in signs)
        affine = base.affine.copy()
        for axis, sign in enumerate(signs):
            if sign < 0:
                affine[:3, 3] += affine[:3, axis] * (image.shape[axis] - 1)
                affine[:3, axis] *= -1
        affine[:, :3] = affine[:, list(order)]
        moved = type(base)(tuple(image.shape[a] for a in order), affine)
        write_nifti(archive / f"{number:02d}.nii", image[steps].transpose(order), moved)
        write_nifti(archive / f"{number:02d}_mask.nii", mask[steps].transpose(order), moved)
    summary = run(archive, tmp_path / "store", workers=2)
    assert (summary.done, summary.nodules, summary.refused) == (48, 48, {})
    store = Store.open(tmp_path / "store")
    for i in range(48):
        np.testing.assert_array_equal(store.image(i), store.image(0))
        np.testing.assert_array_equal(store.mask(i), store.mask(0))


# A trilinear sample is off by at most h^2 / 8 times the second derivative along each axis. The body's
# is at most 1200 / 7^2 HU/mm2 along y, 1200 / 8^2 along z, 1200 / 9^2 along x, and 300 / 6^2 more along
# each; both copies are off, a turned grid by the sum over axes at the largest spacing; rounding twice.
LARGEST_CURVATURE = sum(1200 / r**2 for r in (9, 7, 8)) + 3 * 300 / 36


@pytest.mark.parametrize(
    ("name", "rotation", "shear"),
    [
        ("tilted", None, np.tan(np.radians(18))),
        ("oblique", turn(25, (1, 2, -1)), 0.0),
        ("tilted-oblique", turn(-35, (2, -1, 3)), 0.3),
        ("coronal", turn(90, (1, 0, 0)), 0.0),
    ],
)
def test_a_tilted_or_oblique_copy_gives_the_crop_of_the_straight_one(tmp_path, name, rotation, shear) -> None:
    straight = grid((60, 64, 64), (1.0, 0.9, 0.9))
    other = grid((84, 96, 96), (1.0, 0.9, 0.9), rotation=rotation, shear_zy=shear)
    archive = _made(tmp_path / "archive")
    rows = []
    for case, geometry in (("straight", straight), (name, other)):
        image, _ = scan(geometry)
        write_nifti(archive / f"{case}.nii.gz", image, geometry)
        place = {"x_mm": 12.0, "y_mm": -23.0, "z_mm": 34.0, "diameter_mm": 10}
        rows.append({"case_id": case, "patient_id": case, "image": f"{case}.nii.gz", **place})
    write_cases(archive / "cases.csv", rows)
    settings = Settings(spacing_mm=0.9, size=24, margin=0)
    summary = run(archive, tmp_path / "s", manifest=archive / "cases.csv", settings=settings)
    assert summary.done == 2, summary
    store = Store.open(tmp_path / "s")
    difference = np.abs(store.image(0).astype(int) - store.image(1))
    step = 1.0 * (1 + shear)
    bound = 2 * (step**2 / 8 * LARGEST_CURVATURE) + 2
    assert difference.max() <= bound
    assert difference.mean() < 3
    assert np.std(store.image(0)) > 50 * difference.mean()


def test_the_nodule_is_where_the_mask_says(tmp_path: Path) -> None:
    archive = _made(tmp_path / "archive")
    geometry = grid((50, 60, 60), (1.25, 0.7, 0.7), rotation=turn(20, (0, 1, 1)))
    image, mask = scan(geometry)
    write_nifti(archive / "a.nii.gz", image, geometry)
    write_nifti(archive / "a_seg.nii.gz", mask, geometry)
    run(archive, tmp_path / "s")
    (nodule,) = Store.open(tmp_path / "s").nodules
    np.testing.assert_allclose(nodule.center_lps_mm, (12.0, -23.0, 34.0), atol=0.1)
    assert nodule.volume_mm3 == pytest.approx(4 / 3 * np.pi * 7 * 5 * 6, rel=0.02)
    occupancy = Store.open(tmp_path / "s").mask(0)
    inside = np.argwhere(occupancy > 127).mean(axis=0)
    np.testing.assert_allclose(inside, (16 - 0.5,) * 3, atol=0.1)
    assert nodule.occupancy == pytest.approx(nodule.volume_mm3 / 24**3, rel=0.03)


@pytest.mark.real
def test_a_real_scan_gives_the_same_crop_from_every_format(lidc_scan: Path, tmp_path: Path) -> None:
    settings = Settings(spacing_mm=1.0, size=51, margin=0)
    run(lidc_scan, tmp_path / "s-dicom", settings=settings)
    (nodule,) = Store.open(tmp_path / "s-dicom").nodules
    assert nodule.volume_mm3 == pytest.approx(6459.75, rel=0.05)  # Cornell's list
    assert (nodule.mask_source, nodule.readers, nodule.label) == ("consensus", 4, 1.0)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(next(lidc_scan.rglob("*.dcm")).parent)))
    image = reader.Execute()
    labels = _consensus_on_grid(lidc_scan, image)
    for name in FORMATS:
        folder = _made(tmp_path / name)
        sitk.WriteImage(image, str(folder / name))
        sitk.WriteImage(labels, str(folder / name.replace("scan", "scan_mask")), True)
        run(folder, tmp_path / f"s-{name}", settings=settings)
        same(tmp_path / "s-dicom", tmp_path / f"s-{name}")


def _consensus_on_grid(lidc_scan: Path, image: sitk.Image) -> sitk.Image:
    """The consensus mask as a label image (the series is axial: canonical order is the stored one)."""
    from toolkit.archive.catalog import catalog
    from toolkit.archive.dicom_series import SeriesRules
    from toolkit.archive.index_cache import IndexCache
    from toolkit.archive.regions import find

    (case,) = catalog(lidc_scan, None, SeriesRules(), IndexCache(None)).cases
    (finding,), _ = find(case, case.source, 3.0)
    array = np.zeros(image.GetSize()[::-1], np.uint8)
    box: Box = finding.box
    array[box.slices] = finding.mask
    labels = sitk.GetImageFromArray(array)
    labels.CopyInformation(image)
    return labels


@pytest.mark.real
def test_the_golden_crop(lidc_scan: Path, tmp_path: Path) -> None:
    """Item 0_nod1_ann0 of the 134 nodules is this nodule at 1 mm, axes (y, x, z) with z downwards."""
    from tests.real import real_data

    data = np.load(real_data("lidc134_hu_int16_51cube_1mm.npz"))
    at = list(data["ids"]).index("0_nod1_ann0")
    golden = data["hu"][at].transpose(2, 0, 1)[::-1].astype(float)
    marked = np.unpackbits(data["mask"][at])[: 51**3].reshape(51, 51, 51).transpose(2, 0, 1)[::-1]
    run(lidc_scan, tmp_path / "s", settings=Settings(spacing_mm=1.0, size=51, margin=5))
    store = Store.open(tmp_path / "s")
    image = np.clip(store.image(0), -1200, 400).astype(float)
    # the two cubes have different centres: find the whole-voxel shift between them
    shifts = itertools.product(range(-5, 6), repeat=3)
    best, shift = max((np.corrcoef(_cut(image, s).ravel(), golden.ravel())[0, 1], s) for s in shifts)
    assert best >= 0.99
    mask = _cut(store.mask(0), shift) > 127
    assert 2 * np.sum(mask & (marked > 0)) / (mask.sum() + marked.sum()) > 0.85


def _cut(cube: np.ndarray, shift: tuple[int, ...]) -> np.ndarray:
    return cube[tuple(slice(5 + s, 5 + s + 51) for s in shift)]

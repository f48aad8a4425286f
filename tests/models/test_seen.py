"""Ranges of what training saw, from the store alone."""

import csv
from pathlib import Path

import nibabel
import numpy as np
import pydicom

from tests.loading.records import nodule
from tests.loading.split_stores import make_store
from tests.preprocess.archives import KEY
from toolkit.models.seen import features, seen_ranges
from toolkit.preprocess.plan import Settings
from toolkit.preprocess.run import Job, preprocess
from toolkit.store import Store
from toolkit.store.scans import source_spacing


def test_ranges_are_those_of_the_chosen_nodules(tmp_path: Path) -> None:
    diameters = [3.0, None, 5.0, 100.0, 9.0]
    store = make_store(tmp_path / "s", [nodule(f"n{i}", f"p{i}", 0.0, d) for i, d in enumerate(diameters)])
    found = seen_ranges(store, np.array([4, 0, 1, 2]))["diameter_mm"]
    assert (found.least, found.median, found.largest) == (3.0, 5.0, 9.0)
    assert found.low == 3.0 + 0.02 * 2.0  # 1 % of the way along two gaps, the first of 2 mm
    assert np.isclose(found.high, 9.0 - 0.02 * 4.0)


def test_what_no_nodule_has_is_left_out(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [nodule("n0", "p0", 0.0, None)])
    assert {*seen_ranges(store, np.array([0]))}.isdisjoint({"diameter_mm", "slice_spacing_mm"})
    assert source_spacing(store) == {}


def test_spacing_and_size_are_those_of_the_phantom(phantom_archive: Path, tmp_path: Path) -> None:
    settings = Settings(spacing_mm=1.0, size=24, margin=0)
    preprocess(Job(phantom_archive, tmp_path / "s", KEY, settings=settings, index_cache=tmp_path / "i"))
    store = Store.open(tmp_path / "s")
    index = np.arange(len(store))
    found = features(store, index)
    for i in index:
        told = nearest(phantom_archive, store.nodules[i].center_lps_mm)
        assert abs(found["diameter_mm"][i] - float(told["diameter_mm"])) < 1.5
        inside = store.image(i)[store.mask(i) > 0]
        assert inside.min() < found["mean_hu"][i] < inside.max()
    spacings = {*zip(found["slice_spacing_mm"], found["pixel_spacing_mm"], strict=True)}
    assert {(round(z, 5), round(xy, 5)) for z, xy in spacings} == headers(phantom_archive)
    assert {*seen_ranges(store, index)} == {"diameter_mm", "mean_hu", "slice_spacing_mm", "pixel_spacing_mm"}


def nearest(archive: Path, center: tuple[float, float, float]) -> dict[str, str]:
    with (archive / "truth.csv").open() as file:
        return min(
            csv.DictReader(file),
            key=lambda row: np.linalg.norm(np.array([float(row[f"{a}_mm"]) for a in "xyz"]) - center),
        )


def headers(archive: Path) -> set[tuple[float, float]]:
    """(slice, pixel) spacing of every scan, as nibabel and pydicom read them."""
    found = set()
    for path in (archive / "nifti").glob("*.nii.gz"):
        x, _, z = nibabel.load(path).header.get_zooms()
        found.add((round(float(z), 5), round(float(x), 5)))
    for folder in {path.parent for path in archive.rglob("*.dcm")}:
        slices = [pydicom.dcmread(path) for path in folder.glob("*.dcm")]
        z = np.diff(sorted(float(s.ImagePositionPatient[2]) for s in slices))
        found.add((round(float(np.median(z)), 5), round(float(slices[0].PixelSpacing[0]), 5)))
    return found

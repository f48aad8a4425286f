"""Crops that show the same thing: planted copies of real nodules are found, and nothing else."""

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from tests.loading.records import nodule
from tests.loading.split_stores import make_store, texture
from tests.real import real_data
from toolkit.loading import alike as alike_module
from toolkit.loading import alike_first
from toolkit.loading.alike import alike
from toolkit.loading.alike_first import ALL_PAIRS
from toolkit.store import Store


def found(store: Store) -> set[tuple[str, str]]:
    ids = [n.nodule_id for n in store.nodules]
    return {tuple(sorted((ids[p.first], ids[p.second]))) for p in alike(store)}


@pytest.fixture(scope="module")
def real() -> tuple[np.ndarray, list[str]]:
    """134 real nodules, int16 HU of 1 mm, and whose they are."""
    data = np.load(real_data("lidc134_hu_int16_51cube_1mm.npz"))
    with real_data("lidc134_labels.csv").open() as file:
        patient = {row["Filename"]: row["patient_guess"] for row in csv.DictReader(file)}
    return data["hu"], [patient[i] for i in data["ids"]]


def moved(crop: np.ndarray, *shift: float) -> np.ndarray:
    return ndimage.shift(crop.astype(np.float64), shift, order=1, mode="nearest")


def thick(crop: np.ndarray) -> np.ndarray:
    """Through slices of 2.5 mm and pixels of 0.7 mm and back."""
    there = ndimage.zoom(crop.astype(np.float64), (1 / 2.5, 1 / 0.7, 1 / 0.7), order=1)
    return ndimage.zoom(there, [len(crop) / n for n in there.shape], order=1)


def noisy(crop: np.ndarray) -> np.ndarray:
    return crop + np.random.default_rng(0).normal(0, 60, crop.shape)


COPIES = {
    "equal": lambda c: c,
    "one voxel": lambda c: moved(c, 1, 1, 1),
    "two voxels": lambda c: moved(c, 2, -2, 2),
    "half a voxel": lambda c: moved(c, 0.5, 0.5, 0.5),
    "noise": noisy,
    "noise and a voxel": lambda c: noisy(moved(c, 1, -1, 1)),
    "intensity": lambda c: 0.5 * c + 1000,
    "resampled": thick,
}


@pytest.mark.real
def test_real_nodules_of_different_patients_are_not_alike(real, tmp_path: Path) -> None:
    images, patients = real
    assert len(images) > ALL_PAIRS  # so the first look is taken, too
    records = [nodule(f"n{i:03}", p) for i, p in enumerate(patients)]
    assert found(make_store(tmp_path / "s", records, images)) == set()


@pytest.mark.real
@pytest.mark.parametrize("name", COPIES)
def test_planted_copies_of_real_nodules_are_found(real, name: str, tmp_path: Path) -> None:
    """All of 60 with each but one, which resampling may cost; and no pair besides."""
    images, patients = real
    copies = np.stack([np.round(COPIES[name](crop)).astype(np.int16) for crop in images[:60]])
    records = [nodule(f"n{i:03}", p) for i, p in enumerate(patients)]
    records += [nodule(f"z{i:03}", f"copy of {p}") for i, p in enumerate(patients[:60])]
    pairs = found(make_store(tmp_path / "s", records, np.concatenate([images, copies])))
    expected = {(f"n{i:03}", f"z{i:03}") for i in range(60)}
    assert pairs <= expected
    assert len(expected - pairs) <= (name == "resampled")


def test_crops_of_one_patient_and_crops_without_contrast_are_left_alone(tmp_path: Path) -> None:
    flat = np.full((16, 16, 16), -1024, np.int16)
    images = np.stack([texture(1), texture(1), flat, flat, texture(2)])
    records = [nodule(f"n{i}", p) for i, p in enumerate("aabcd")]
    assert found(make_store(tmp_path / "s", records, images)) == set()


@pytest.mark.parametrize("count", [5, ALL_PAIRS + 12])
@pytest.mark.parametrize("side", [7, 16, 33])
def test_copies_are_found_at_any_size_and_in_any_order(tmp_path: Path, count: int, side: int) -> None:
    images = np.stack([texture(i, side) for i in range(count)])
    images[3] = np.round(0.7 * images[1] + 9)
    records = [nodule(f"n{i:03}", f"p{i}") for i in range(count)]
    order = np.random.default_rng(0).permutation(count)
    for name, places in (("a", np.arange(count)), ("b", order)):
        store = make_store(tmp_path / name, [records[i] for i in places], images[places])
        assert found(store) == {("n001", "n003")}


def test_more_copies_than_are_looked_at_are_still_one_group(tmp_path: Path) -> None:
    images = np.stack([texture(min(i, 120)) for i in range(160)])
    records = [nodule(f"n{i:03}", f"p{i}") for i in range(160)]
    pairs = found(make_store(tmp_path / "s", records, images))
    assert {i for pair in pairs for i in pair} == {f"n{i:03}" for i in range(120, 160)}


def test_many_crops_are_compared_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fingerprints in a file and blocks of few rows give what memory gives."""
    rng = np.random.default_rng(0)
    images = np.stack([texture(k) for k in range(150)])
    images[140:] = images[:10] + rng.normal(0, 5, images[:10].shape).astype(np.int16)
    store = make_store(tmp_path / "store", [nodule(f"{k:03}", f"p{k:03}") for k in range(150)], images)
    whole = alike(store)
    assert {(pair.first, pair.second) for pair in whole} >= {(k, 140 + k) for k in range(10)}
    for module in (alike_module, alike_first):
        monkeypatch.setattr(module, "MOST_BYTES", 4 * 150 * 7)
    monkeypatch.setattr(alike_first, "MOST_FOUND", 1)
    assert isinstance(alike_module._room((150, 16, 16, 16)), np.memmap)
    assert alike(store) == whole
    monkeypatch.setattr(alike_first, "CELL", 10)
    monkeypatch.setattr(alike_first, "PROBES", 4)
    monkeypatch.setattr(alike_first, "WHOLE", 80)
    compared = sum(len(rows) * len(members) for rows, members in alike_first._cells(_spectra_of(store)))
    assert compared < 150**2 / 2  # of all pairs
    assert alike(store) == whole


def _spectra_of(store: Store) -> np.ndarray:
    prints = np.stack([alike_module.fingerprint(store, i) for i in range(len(store))])
    spectra = alike_first._spectra(prints, np.arange(len(store)))
    return spectra - spectra.mean(axis=0)


def test_copies_among_a_great_many_are_found_from_near_centres_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many comparisons a crop with 12,000 crops as with 3,000, and each of 300 copies meets its like."""
    monkeypatch.setattr(alike_first, "CELL", 100)
    monkeypatch.setattr(alike_first, "WHOLE", 1600)
    rng = np.random.default_rng(0)
    compared = []
    for count in (3000, 12000):
        spectra = rng.normal(size=(count, 24)).astype(np.float32)
        spectra[-300:] = spectra[:300] + 0.25 * rng.normal(size=(300, 24)).astype(np.float32)
        spectra /= np.linalg.norm(spectra, axis=1, keepdims=True)
        met, pairs = np.zeros(300, bool), 0
        for rows, members in alike_first._cells(spectra):
            looks, lies = np.zeros((2, count), bool)
            looks[rows], lies[members] = True, True
            met |= (looks[:300] & lies[-300:]) | (looks[-300:] & lies[:300])
            pairs += len(rows) * len(members)
        assert met.all()
        compared.append(pairs / count)
    assert compared[1] < 1.25 * compared[0] < 3000 / 2

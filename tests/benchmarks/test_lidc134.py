"""The store of 134 real nodules holds what is known of them, and the comparison compares what it says."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from benchmarks.lidc134_scores import Column, compare
from benchmarks.lidc134_store import CROPS, LABELS, make_store, patients, scan_number
from tests.real import real_data
from toolkit.loading.alike import alike
from toolkit.loading.split import cross_validation, indices
from toolkit.store import Store


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, str]]:
    with real_data(LABELS).open() as file:
        return {row["Filename"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(real_data(CROPS).parent, tmp_path_factory.mktemp("lidc134") / "store")


@pytest.mark.real
def test_known_answers(store: Store, rows: dict[str, dict[str, str]]) -> None:
    assert Counter(nodule.rating for nodule in store.nodules) == {1: 2, 2: 24, 3: 41, 4: 39, 5: 28}
    scored = [nodule for nodule in store.nodules if nodule.label is not None]
    assert len(scored) == 93
    area = roc_auc_score([n.label for n in scored], [n.diameter_mm for n in scored])
    assert area == pytest.approx(0.78, abs=0.005)
    names = [str(name) for name in np.load(real_data(CROPS))["ids"]]
    for name, nodule in zip(names, store.nodules, strict=True):
        assert nodule.diameter_mm == pytest.approx(float(rows[name]["eq_diam_mm"]), abs=0.0051)
        assert nodule.rating == int(rows[name]["malignancy"])


@pytest.mark.real
def test_crops_and_masks_agree(store: Store) -> None:
    brighter = []
    for i, nodule in enumerate(store.nodules):
        image, mask = store.image(i), store.mask(i)
        assert image.shape == mask.shape == (51, 51, 51)
        assert {*np.unique(mask)} <= {0, 255}
        assert np.count_nonzero(mask) == round(nodule.volume_mm3 or 0)
        around = ndimage.binary_dilation(mask, iterations=3) & (mask == 0)
        brighter.append(np.median(image[mask > 0]) > np.median(image[around]))
    assert np.mean(brighter) > 0.95  # wrong axes of either would not give that


@pytest.mark.real
def test_patients(rows: dict[str, dict[str, str]], store: Store) -> None:
    order = sorted(rows, key=scan_number)
    told = [rows[name]["patient_guess"] for name in order if rows[name]["patient_guess"]]
    assert told == sorted({*told})  # scans are numbered in the order of patients, one scan a patient
    found = patients(rows)
    assert all(found[name] == rows[name]["patient_guess"] or not rows[name]["patient_guess"] for name in rows)
    pairs = [
        {found[f"{a}_nod{m}_ann0"], found[f"{b}_nod{n}_ann0"]}
        for a, m, b, n in ((306, 1, 307, 1), (340, 5, 341, 2), (575, 1, 576, 1))
    ]
    assert [len(pair) for pair in pairs] == [1, 1, 1]
    assert len({*found.values()}) == len({n.patient_id for n in store.nodules}) == 131
    assert alike(store) == []


@pytest.mark.real
def test_comparison(store: Store) -> None:
    split = cross_validation(store, 5, 2, 0.15, 0)
    label = np.array([np.nan if n.label is None else n.label for n in store.nodules])
    diameter = np.array([n.diameter_mm for n in store.nodules], np.float64)
    tests = [indices(store, part.test) for part in split.partitions]
    known = ~np.isnan(label)
    rng = np.random.default_rng(0)
    # a score that is perfect within each fold, and pooled is none: folds lie far apart
    apart = [np.nan_to_num(label[index]) + 10 * (number % 5) for number, index in enumerate(tests)]
    chance = [rng.normal(size=len(index)) for index in tests]
    columns = [
        Column.of(name, store, split, scores)
        for name, scores in (("diameter", [diameter[i] for i in tests]), ("apart", apart), ("chance", chance))
    ]
    found = {each.name.removeprefix("lidc134/auroc "): each for each in compare(columns)}
    assert found["pooled/diameter"].value == pytest.approx(
        roc_auc_score(label[known], diameter[known]), abs=1e-6
    )
    assert found["within folds/apart"].value == 1
    assert found["within folds/apart"].low == 1
    assert found["pooled/apart"].value < 0.8
    assert found["pooled/chance"].low < 0.5 < found["pooled/chance"].high
    assert found["pooled/chance - diameter"].high < 0
    assert found["within folds/apart - diameter"].low > 0
    assert {each.n for each in found.values()} == {93}


def test_a_missing_score_is_an_error(tmp_path: Path) -> None:
    store = make_store(real_data(CROPS).parent, tmp_path / "store")
    split = cross_validation(store, 5, 1, 0.15, 0)
    scores = [np.zeros(len(indices(store, part.test))) for part in split.partitions]
    scores[2][:] = np.nan
    with pytest.raises(ValueError, match="no score"):
        Column.of("x", store, split, scores)

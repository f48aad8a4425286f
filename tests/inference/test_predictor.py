"""From a store to probabilities: equal to torch by hand, refused by name where store and model differ."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.inference.model_folders import (
    CONTRACT,
    FILE,
    SIZE,
    WINDOW_HU,
    ranges,
    write_members,
    write_single,
)
from tests.loading.stores import make_store
from toolkit.errors import UsageError
from toolkit.evaluation.calibration import Calibration
from toolkit.inference.predictor import open_predictor, predict_store
from toolkit.store import Store


def by_hand(network: torch.nn.Module, store: Store, index: np.ndarray, batch: int = 32) -> np.ndarray:
    """Raw logits from the stored crops with NumPy and torch alone, float64 (n,)."""
    cut = slice(store.margin, store.margin + SIZE)
    low, high = np.float32(WINDOW_HU)
    found = []
    for start in range(0, len(index), batch):
        crops = [store.image(i)[cut, cut, cut] for i in index[start : start + batch]]
        image = np.clip((np.stack(crops).astype(np.float32) - low) / (high - low), 0, 1)[:, None]
        tensor = torch.from_numpy(image).to(memory_format=torch.channels_last_3d)
        with torch.inference_mode():
            found.append(network(tensor, None).double().numpy())
    return np.concatenate(found)


def expected_probability(logit: np.ndarray, calibration: Calibration, prevalence: float) -> np.ndarray:
    """Platt, then Bayes' rule in odds: another way than by logits."""
    p = 1 / (1 + np.exp(-(calibration.slope * logit + calibration.intercept)))
    old = calibration.prevalence / (1 - calibration.prevalence)
    odds = p / (1 - p) / old * prevalence / (1 - prevalence)
    return odds / (1 + odds)


def test_probabilities_are_those_of_torch_by_hand(phantom_store: Store, tmp_path: Path) -> None:
    network = write_single(tmp_path / "model")
    predictor = open_predictor(tmp_path / "model", "cpu")
    index = np.arange(len(phantom_store))[::-1].copy()
    scores = predict_store(predictor, phantom_store, index, prevalence=0.03)
    raw = by_hand(network, phantom_store, index)
    assert np.ptp(raw) > 0.1  # logits differ, so that an order gone wrong would show
    np.testing.assert_allclose(scores.logit, raw, rtol=0, atol=1e-5 * np.abs(raw).max())
    np.testing.assert_allclose(
        scores.probability, expected_probability(scores.logit, FILE.calibration, 0.03), rtol=1e-12
    )
    assert [n.nodule_id for n in scores.nodules] == [phantom_store.nodules[i].nodule_id for i in index]
    np.testing.assert_array_equal(scores.decision, scores.logit >= FILE.threshold)
    assert np.isnan(scores.spread).all()


def test_a_prevalence_moves_probabilities_and_no_decision(phantom_store: Store, tmp_path: Path) -> None:
    raw = by_hand(write_single(tmp_path / "a"), phantom_store, np.arange(len(phantom_store)))
    write_single(tmp_path / "model", threshold=float(np.median(raw)))
    predictor = open_predictor(tmp_path / "model", "cpu")
    one, other = (predict_store(predictor, phantom_store, prevalence=p) for p in (None, 0.9))
    assert one.prevalence == FILE.prevalence
    assert (other.probability > one.probability).all()
    np.testing.assert_array_equal(one.decision, other.decision)
    assert 0 < one.decision.sum() < len(one)
    np.testing.assert_array_equal(one.calibrated, other.calibrated)
    for wrong in (0.0, 1.0, -1.0, np.nan):
        with pytest.raises(UsageError, match="E-PRED-004"):
            predict_store(predictor, phantom_store, prevalence=wrong)


def test_an_ensemble_is_the_mean_of_calibrated_logits(phantom_store: Store, tmp_path: Path) -> None:
    members = write_members(tmp_path / "model")
    scores = predict_store(open_predictor(tmp_path / "model", "cpu"), phantom_store)
    index = np.arange(len(phantom_store))
    each = []
    for file, network in members:
        p = expected_probability(by_hand(network, phantom_store, index), file.calibration, FILE.plain_prior)
        each.append(np.log(p) - np.log1p(-p))
    np.testing.assert_allclose(scores.members, each, atol=1e-4 * np.abs(each).max())
    np.testing.assert_allclose(scores.logit, scores.members.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(scores.spread, np.std(each, axis=0, ddof=1), rtol=1e-3)
    np.testing.assert_allclose(
        scores.probability,
        expected_probability(scores.logit, Calibration(1.0, 0.0, FILE.plain_prior, "none"), FILE.prevalence),
        rtol=1e-12,
    )


def test_members_of_another_input_are_refused(tmp_path: Path) -> None:
    write_members(tmp_path / "model", input=replace(CONTRACT, size=24))
    with pytest.raises(UsageError, match="E-MODEL-003"):
        open_predictor(tmp_path / "model", "cpu")


def test_labels_play_no_part(phantom_store: Store, tmp_path: Path) -> None:
    write_single(tmp_path / "model")
    nodules = [replace(n, label=None, rating=None) for n in phantom_store.nodules]
    images = np.stack([phantom_store.image(i) for i in range(len(nodules))])
    masks = np.stack([phantom_store.mask(i) for i in range(len(nodules))])
    bare = Store.create(tmp_path / "bare", nodules, images, masks, 1.0, margin=phantom_store.margin)
    predictor = open_predictor(tmp_path / "model", "cpu")
    one, other = predict_store(predictor, phantom_store), predict_store(predictor, bare)
    np.testing.assert_array_equal(one.logit, other.logit)


def test_masks_reach_the_network(phantom_store: Store, tmp_path: Path) -> None:
    found = []
    for mode, channels in (("none", 1), ("hard", 1), ("soft", 1), ("channel", 2)):
        contract = replace(CONTRACT, mask_mode=mode, channels=channels)
        write_single(tmp_path / mode, input=contract)
        found.append(predict_store(open_predictor(tmp_path / mode, "cpu"), phantom_store).logit)
    assert len({tuple(logit) for logit in found}) == 4


def test_a_subset_and_another_batch_give_the_same(phantom_store: Store, tmp_path: Path) -> None:
    write_single(tmp_path / "model")
    predictor = open_predictor(tmp_path / "model", "cpu")
    whole = predict_store(predictor, phantom_store)
    again = predict_store(predictor, phantom_store)
    np.testing.assert_array_equal(whole.logit, again.logit)
    some = predict_store(predictor, phantom_store, np.array([5, 2]), batch=1, threads=1)
    np.testing.assert_allclose(some.logit, whole.logit[[5, 2]], rtol=0, atol=1e-5 * np.abs(whole.logit).max())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"spacing_mm": 0.8}, ["spacing 1 mm", "spacing 0.8 mm expected"]),
        ({"size": 48}, ["size 40 voxels", "at least 48 voxels"]),
        ({"size": 31}, ["size 40 voxels", "an odd number"]),
        ({"half_voxel": True}, ["size 40 voxels", "an odd number"]),
        ({"store_format": 9}, ["format 1", "format 9 expected"]),
        ({"store_format": 9, "spacing_mm": 2.0, "size": 64}, ["format 1, spacing 1 mm, size 40 voxels"]),
    ],
)
def test_another_store_is_refused_by_every_field(
    phantom_store: Store, tmp_path: Path, changes: dict[str, object], said: list[str]
) -> None:
    write_single(tmp_path / "model", input=replace(CONTRACT, **changes))
    with pytest.raises(UsageError) as caught:
        predict_store(open_predictor(tmp_path / "model", "cpu"), phantom_store)
    assert caught.value.problem.code == "E-PRED-001"
    for text in said:
        assert text in str(caught.value)


def test_nodules_without_what_the_model_is_fed_are_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", 6, side=40, margin=4, bare=2)  # no diameter, two without a mask
    contract = replace(CONTRACT, spacing_mm=0.8, mask_mode="soft", measured=("diameter",))
    write_single(tmp_path / "model", input=contract, measured={"diameter": (2.0, 0.5)})
    with pytest.raises(UsageError) as caught:
        predict_store(open_predictor(tmp_path / "model", "cpu"), store)
    assert caught.value.problem.code == "E-PRED-002"
    assert "2 of 6 nodules have no mask" in str(caught.value)
    assert "no nodule has the feature diameter" in str(caught.value)
    with pytest.raises(UsageError, match="E-PRED-003"):
        predict_store(open_predictor(tmp_path / "model", "cpu"), store, np.array([], np.int64))


def test_what_is_strange_is_said_of_its_nodule(phantom_store: Store, tmp_path: Path) -> None:
    diameters = np.array([nodule.diameter_mm for nodule in phantom_store.nodules])
    write_single(tmp_path / "model", seen=ranges(diameter_mm=float(np.median(diameters))))
    scores = predict_store(open_predictor(tmp_path / "model", "cpu"), phantom_store)
    rows = scores.rows()
    for k, size in enumerate(diameters):
        assert ("W-PRED-001" in rows[k]["warnings"]) == (size > np.median(diameters))
    worst = int(diameters.argmax())
    assert f"{diameters[worst]:.4g} mm" in scores.notes[worst][0].measured

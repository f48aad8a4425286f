"""The worst misses: which they are, and what lies behind their pictures."""

import io
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.report.stores import ball, make, nodule
from toolkit.evaluation.predictions import Predictions
from toolkit.report.misses import LEVEL, MOST, _heat, viewer, worst
from toolkit.store import Store

NAN = float("nan")


def predictions(label: list[float], probability: list[float], decision: list[int]) -> Predictions:
    n = len(label)
    names, numbers = np.array([f"{k:016x}-001" for k in range(n)]), np.array(probability)
    logit = np.log(numbers / (1 - numbers))
    return Predictions(
        np.full(n, "holdout"), names, names, names, np.array(label), np.array(label), logit, logit, numbers,
        np.zeros(n), np.array(decision), np.full(n, 8.0),
    )  # fmt: skip


def test_the_most_confident_wrong_decisions_come_first() -> None:
    made = predictions([1, 1, 0, 0, 1, NAN, 0], [0.3, 0.1, 0.9, 0.6, 0.8, 0.99, 0.2], [0, 0, 1, 1, 1, 1, 0])
    assert worst(made) == ([1, 0], [2, 3])
    assert worst(made, most=1) == ([1], [2])


def test_a_nodule_of_several_repeats_is_shown_once() -> None:
    made = predictions([1, 1, 1], [0.3, 0.1, 0.2], [0, 0, 0])
    twice = replace(made, nodule_id=np.array(["a", "b", "a"]))
    assert worst(twice) == ([1, 2], [])


def test_no_miss(tmp_path: Path) -> None:
    store = make(tmp_path / "s", 2)
    made = viewer(predictions([0, 1], [0.1, 0.9], [0, 1]), store, None, "test")
    assert (made.blocks, "No decision on the test side was wrong" in made.body) == ((), True)


def decoded(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(b64decode(text))).convert("L"))


def test_slices_mask_and_evidence_show_the_same_places(tmp_path: Path) -> None:
    store = make(tmp_path / "s", 4)
    asked = []

    def explain(index: int) -> np.ndarray:
        asked.append(index)
        evidence = np.zeros((16, 16, 16), np.float32)  # a patch smaller than the crop of 24
        evidence[12, 3:6, 9:12] = 1.0
        return evidence

    made = viewer(predictions([1, 0, 0, 1], [0.1, 0.9, 0.2, 0.9], [0, 1, 0, 1]), store, explain, "test")
    assert asked == [0, 1]
    image, mask, heat = (decoded(part) for part in made.blocks[0][1].split(" "))
    assert image.shape == mask.shape == heat.shape
    assert image.shape[0] % 24 == 0
    slices = heat.reshape(-1, 24, 24)
    hottest = np.unravel_index(slices.max(axis=(1, 2)).argmax(), len(slices))[0]
    rows, columns = np.nonzero(slices[hottest] > 128)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (
        7,
        9,
        13,
        15,
    )  # moved by the 4 around it
    from_head = len(slices) - 1 - hottest
    assert from_head + (24 - len(slices)) // 2 == pytest.approx(16, abs=1)
    assert made.body.count("data-nodule") == 2


def test_evidence_lies_at_the_centre_and_keeps_its_height() -> None:
    evidence = np.full((8, 8, 8), 0.5, np.float32)
    shown = decoded(_heat(evidence, 16, [8])).astype(int)
    assert shown.shape == (16, 16)
    assert shown[5:11, 5:11].mean() == pytest.approx(127.5, abs=4)
    assert shown[:2].max() < 12
    assert LEVEL.slices % 2 == 1  # so that one is the middle


def test_two_dozen_large_noisy_crops_with_evidence_fit_a_page(tmp_path: Path) -> None:
    """96 voxels a side, large nodules, noise of a low dose: about the most that a page can have to hold."""
    rng = np.random.default_rng(0)
    n, side = 2 * MOST, 96
    image, mask = ball(side, 20.0)
    images = np.stack([image + rng.normal(0, 60, image.shape).astype(np.int16) for _ in range(n)])
    records = [nodule(k, 40.0) for k in range(n)]
    store = Store.create(tmp_path / "s", records, images, np.stack([mask] * n), 1.0)
    label = (np.arange(n) % 2).astype(float)
    wrong = predictions(label.tolist(), rng.uniform(0.2, 0.8, n).tolist(), (1 - label).astype(int).tolist())
    rough = rng.random((8, 8, 8)).astype(np.float32).repeat(12, 0).repeat(12, 1).repeat(12, 2)
    made = viewer(wrong, store, lambda _: rough, "test")
    assert len(made.blocks) == n
    assert len(made.body) + sum(len(text) for _, text in made.blocks) < 6_000_000

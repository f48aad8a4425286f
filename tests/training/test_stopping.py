"""Stopping on curves whose truth is known: luck renews no patience, a slow rise does."""

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from toolkit.evaluation.influence import influence
from toolkit.training.config import Selection
from toolkit.training.stopping import GAIN_ERRORS, judge, restlessness, smooth

Floats = NDArray[np.float64]
NODULES, MALIGNANT, EPOCHS = 400, 40, 60
LABEL = (np.arange(NODULES) < MALIGNANT).astype(np.float64)
PATIENT = np.arange(NODULES) // 2


def auroc(logit: Floats) -> float:
    benign, malignant = np.sort(logit[LABEL == 0]), logit[LABEL == 1]
    return float(benign.searchsorted(malignant).mean() / len(benign))


def history(separation: Floats, seed: int, noise: float = 0.6) -> tuple[Floats, Floats]:
    """Values and moves of epochs whose networks separate classes by so much: what differs else is noise."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=NODULES)
    logits = [latent + LABEL * each + noise * rng.normal(size=NODULES) for each in separation]
    return (
        np.array([auroc(logit) for logit in logits]),
        np.array([influence("auroc", logit, LABEL, PATIENT) for logit in logits]),
    )


def test_smooth_is_a_mean_of_the_epochs_that_exist() -> None:
    values = [1.0, 3.0, np.nan, 5.0, 7.0, 9.0]
    assert smooth(values, 3) == pytest.approx([1, 2, 2, 4, 6, 7], abs=1e-15)
    assert smooth(values, 1) == pytest.approx(values, nan_ok=True, abs=0)
    assert smooth(values[:1], 5) == pytest.approx([1], abs=0)
    table = np.stack([values, np.arange(6)], axis=1)
    assert smooth(table, 3)[:, 1] == pytest.approx([0, 0.5, 1, 2, 3, 4], abs=1e-15)


def test_restlessness_ignores_a_trend() -> None:
    rng = np.random.default_rng(0)
    rise = np.linspace(0.5, 0.9, 2000)[:, None] + 0.01 * rng.normal(size=(2000, 1))
    found = [restlessness(rise[at : at + 20, 0]) for at in range(0, 2000, 20)]
    # 100 estimates from 18 bends each: their mean is known to 2 %
    assert np.mean(found) == pytest.approx(0.01, rel=0.06)
    assert restlessness(np.linspace(0, 1, 20)) < 1e-12
    assert restlessness(np.array([0.1, 0.9])) == 0


def test_luck_on_a_plateau_rarely_renews_patience() -> None:
    renewed = []
    for seed in range(100):
        values, moves = history(np.full(EPOCHS, 1.5), seed)
        renewed.append(judge(values, moves, Selection()).gain_epoch > 5)
    # 5 % of 300 runs, in 55 epochs of pure noise; 12 % of 100 is three standard errors above
    assert np.mean(renewed) <= 0.12
    # "a new highest value" is renewed by luck in most runs
    raw = [np.maximum.accumulate(history(np.full(EPOCHS, 1.5), seed)[0]) for seed in range(20)]
    assert np.mean([len(set(each[5:])) > 1 for each in raw]) > 0.8


def test_a_slow_true_rise_is_followed_to_its_end() -> None:
    stops = []
    for seed in range(20):
        values, moves = history(np.linspace(0.5, 2.5, EPOCHS), seed)
        stops.append(any(judge(values[:t], moves[:t], Selection()).stop for t in range(10, EPOCHS + 1)))
    assert np.mean(stops) <= 0.2
    assert judge(values, moves, Selection()).best_epoch > EPOCHS - 10


def test_training_ends_when_ranking_falls() -> None:
    separation = np.concatenate([np.linspace(0, 2, 15), np.linspace(2, 0.5, 45)])
    for seed in range(10):
        values, moves = history(separation, seed)
        ends = [t for t in range(1, EPOCHS + 1) if judge(values[:t], moves[:t], Selection()).stop]
        assert 25 <= ends[0] <= 36
        assert 12 <= judge(values, moves, Selection()).best_epoch <= 24


def test_smoothing_promises_less_than_the_peak() -> None:
    """Selected value minus the same epoch's value on as many new nodules, over 40 runs."""
    peak, smoothed = [], []
    for seed in range(40):
        rng = np.random.default_rng(1000 + seed)
        separation = 1.5 + 0.1 * rng.normal(size=EPOCHS)
        values, moves = history(separation, seed)
        truth, _ = history(separation, 5000 + seed)
        values, truth = (
            values - values.mean(),
            truth - truth.mean(),
        )  # luck of the sample hits all epochs alike
        best = judge(values, moves, Selection()).best_epoch - 1
        peak.append(values.max() - truth[values.argmax()])
        smoothed.append(smooth(values, 5)[best] - smooth(truth, 5)[best])
    assert np.mean(peak) > 0.02
    assert np.mean(smoothed) < 0.6 * np.mean(peak)  # 0.030 and 0.014 AUROC over 200 runs


def test_is_pure_so_that_a_resumed_run_agrees() -> None:
    values, moves = history(np.linspace(1, 2, EPOCHS), 3)
    kept = 0
    for t in range(1, EPOCHS + 1):
        progress = judge(values[:t], moves[:t], Selection())
        assert progress == judge(values[:t].tolist(), moves[:t].tolist(), Selection())
        assert progress.best_epoch in (kept, t), "weights of a past epoch are asked for"
        kept = progress.best_epoch


def test_equal_epochs_keep_the_later() -> None:
    progress = judge(np.full(30, 0.8), np.zeros((30, 7)), Selection(patience=0))
    assert progress.best_epoch == 30
    assert not progress.stop


@pytest.mark.parametrize(("minimum", "stop"), [(10, True), (40, False)])
def test_never_before_the_least_length(minimum: int, stop: bool) -> None:
    progress = judge(np.full(30, 0.8), np.zeros((30, 7)), Selection(patience=10, min_epochs=minimum))
    assert progress.stop is stop
    assert ("at least 40" in progress.why) is not stop


def test_says_what_it_found() -> None:
    values, moves = history(np.full(30, 1.5), 0)
    progress = judge(values, moves, Selection(patience=20))
    assert progress.gain_epoch <= 5
    since = 30 - progress.gain_epoch
    assert progress.why == f"no gain beyond the noise ({progress.noise:.2g} AUROC) in {since} epochs"
    assert progress.stop
    values, moves = history(np.linspace(0, 4, 30), 0)
    assert judge(values[:20], moves[:20], Selection()).why.startswith("a gain beyond the noise")


def test_what_is_not_defined_gains_nothing() -> None:
    values = np.array([np.nan] * 12)
    moves = np.full((12, 5), np.nan)
    progress = judge(values, moves, Selection())
    assert progress.best_epoch == 12
    assert progress.why == "AUROC is not defined on validation"
    values[3:] = 0.8
    moves[3:] = 0
    assert judge(values, moves, Selection()).best_epoch == 12


def test_noise_is_that_of_the_sample_or_of_the_curve() -> None:
    still = np.full((30, 50), 0.0)
    jumping = np.tile([0.80, 0.82], 15)
    assert judge(jumping, still, Selection()).noise > 0.01
    _, moves = history(np.full(30, 1.5), 0)
    sample = judge(np.full(30, 0.8), moves, Selection()).noise
    means = smooth(moves, 5)
    expected = GAIN_ERRORS * np.sqrt(np.square(means[29] - means[0]).sum() * 200 / 199)
    assert sample == pytest.approx(expected, rel=1e-12)


def test_is_cheap() -> None:
    rng = np.random.default_rng(0)
    values, moves = rng.random(200), rng.normal(size=(200, 1000))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        judge(values, moves, Selection())
        times.append(time.perf_counter() - start)
    assert min(times) < 0.1  # some 12 ms on an idle machine

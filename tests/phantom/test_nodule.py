import numpy as np
import pytest
from numpy.typing import NDArray

from toolkit.phantom.nodule import (
    MAX_DIAMETER_MM,
    MIN_DIAMETER_MM,
    NoduleParams,
    draw_label,
    draw_params,
    malignancy_logit,
    malignancy_probability,
)

Draws = tuple[list[NoduleParams], NDArray[np.int64]]


def auroc(score: NDArray[np.float64], label: NDArray[np.int64]) -> float:
    """By ranks; no two scores are equal here."""
    rank = np.empty(len(score))
    rank[np.argsort(score)] = np.arange(1, len(score) + 1)
    positives = label.sum()
    return float(
        (rank[label == 1].sum() - positives * (positives + 1) / 2) / positives / (len(label) - positives)
    )


@pytest.fixture(scope="module", params=[0, 1, 2])
def draws(request: pytest.FixtureRequest) -> Draws:
    rng = np.random.default_rng(request.param)
    params = [draw_params(rng) for _ in range(10_000)]
    return params, np.array([draw_label(p, rng) for p in params])


def test_auroc_of_size_alone_and_of_the_true_logit(draws: Draws) -> None:
    params, labels = draws
    assert auroc(np.array([p.diameter_mm for p in params]), labels) == pytest.approx(0.75, abs=0.02)
    assert auroc(np.array([malignancy_logit(p) for p in params]), labels) == pytest.approx(0.92, abs=0.02)


def test_prevalence_is_that_of_the_field(draws: Draws) -> None:
    assert 0.15 < draws[1].mean() < 0.20


def test_probabilities_are_calibrated(draws: Draws) -> None:
    params, labels = draws
    p = np.array([malignancy_probability(q) for q in params])
    for low, high in ((0, 0.1), (0.1, 0.4), (0.4, 0.8), (0.8, 1)):
        part = (p >= low) & (p < high)
        sigma = np.sqrt((p[part] * (1 - p[part])).sum()) / part.sum()
        assert abs(labels[part].mean() - p[part].mean()) < 4 * sigma


def test_draws_cover_what_is_promised(draws: Draws) -> None:
    params, _ = draws
    diameters = np.array([p.diameter_mm for p in params])
    assert diameters.min() >= MIN_DIAMETER_MM
    assert diameters.max() <= MAX_DIAMETER_MM
    assert diameters.min() < 4.2
    assert diameters.max() > 28
    assert {p.texture for p in params} == {"solid", "part-solid", "ground-glass"}
    assert {p.placement for p in params} == {"free", "pleura", "vessel"}
    for p in params[:1000]:
        assert all(0 <= v <= 1 for v in (p.lobulation, p.spiculation, p.blur, p.solid_share))


def test_the_logit_is_frozen() -> None:
    plain = NoduleParams(9.0, 0.0, 0.0, 0.0, "solid", 1.0, 25.0, -600.0, "free", 0)
    worst = NoduleParams(18.0, 0.5, 1.0, 0.25, "part-solid", 0.3, 25.0, -600.0, "pleura", 1)
    assert malignancy_logit(plain) == -6.72
    assert malignancy_logit(worst) == pytest.approx(-6.72 + 3.6 * np.log(2) + 6 + 1.075 + 0.3625 + 1.9)

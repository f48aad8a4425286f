"""Simulated sides: nodules clustered in patients, of known truth."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def side(
    seed: int, n: int = 300, share: float = 0.2, gap: float = 1.5, ties: bool = False
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Return logit, label and patient of n nodules; positives lie `gap` standard deviations higher."""
    random = np.random.default_rng(seed)
    label = (random.random(n) < share).astype(np.float64)
    label[:2] = (0, 1)
    logit = random.normal(size=n) + gap * label
    if ties:
        logit = np.round(logit)
    return logit, label, random.integers(0, max(2, 2 * n // 3), n)

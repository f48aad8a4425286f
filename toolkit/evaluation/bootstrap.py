"""Intervals that know that nodules of one patient belong together: patients are drawn, not nodules."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from toolkit.evaluation.results import Interval

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""From weights (draws, n) to values (draws, k)."""
LOW, HIGH = 0.025, 0.975
UNDEFINED_AT_MOST = 0.05
"""Share of draws that may lack a value; where more do, the others are no fair sample."""
AT_ONCE = 1 << 20
"""Weights held at a time: 8 MiB stay near the processor."""


def patient_counts(patients: int, draws: int, seed: int) -> NDArray[np.int32]:
    """Return how often each patient was drawn, int32 (draws, patients); each row sums to `patients`."""
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    counts = np.empty((draws, patients), np.int32)
    rows = max(1, AT_ONCE // max(patients, 1))
    for start in range(0, draws, rows):
        some = min(rows, draws - start)
        drawn = random.integers(0, patients, (some, patients))
        drawn += np.arange(some)[:, None] * patients
        counts[start : start + some] = np.bincount(drawn.ravel(), minlength=some * patients).reshape(
            some, patients
        )
    return counts


def patient_weights(patient: NDArray[np.generic], draws: int, seed: int) -> NDArray[np.int32]:
    """Return how often each nodule was drawn, int32 (draws, n).

    Each draw takes as many patients as there are, with replacement; a nodule counts as often as its patient.
    `patient` (n,) are names or numbers; the draws depend on their order among themselves, not on that of the
    lines. The seed decides all.
    """
    names, code = np.unique(patient, return_inverse=True)
    return patient_counts(len(names), draws, seed)[:, code]


def resample(
    statistic: Statistic, patient: NDArray[np.generic], draws: int, seed: int
) -> tuple[Floats, Floats]:
    """Return a statistic of all nodules, (k,), and of every draw of patients, (draws, k)."""
    names, code = np.unique(patient, return_inverse=True)
    value = statistic(np.ones((1, len(code))))[0]
    counts = patient_counts(len(names), draws, seed)
    rows = max(1, AT_ONCE // max(len(code), 1))
    drawn = [
        statistic(counts[start : start + rows].astype(np.float64)[:, code]) for start in range(0, draws, rows)
    ]
    return value, np.concatenate(drawn) if drawn else np.empty((0, len(value)))


def interval(value: float, drawn: Floats, patients: int | None = None) -> Interval:
    """Return an estimate with the 2.5 % and 97.5 % percentiles of its draws, (draws,).

    Draws in which it is not defined (NaN; no positive was drawn) are left out; where they are more than 5 %,
    or the estimate itself is NaN, the ends are NaN.

    A share of exactly 0 or 1 has no draw that differs. Where the number of `patients` behind it is given, its
    interval then ends where none of as many would still be seen in 2.5 % (Clopper and Pearson 1934).
    """
    known = drawn[~np.isnan(drawn)]
    if np.isnan(value) or not len(known) or len(drawn) - len(known) > UNDEFINED_AT_MOST * len(drawn):
        return Interval(float(value), np.nan, np.nan)
    low, high = np.quantile(known, (LOW, HIGH))
    if patients and low == high == value and value in (0, 1):
        bound = LOW ** (1 / patients)
        low, high = (bound, 1.0) if value == 1 else (0.0, 1 - bound)
    return Interval(float(value), float(low), float(high))


def intervals(value: Floats, drawn: Floats, patients: Sequence[int] | None = None) -> list[Interval]:
    """Return the intervals of several statistics, `value` (k,) and `drawn` (draws, k)."""
    behind = [None] * len(value) if patients is None else patients
    return [interval(each, drawn[:, k], behind[k]) for k, each in enumerate(value)]


def distinct(patient: NDArray[np.generic], inside: NDArray[np.bool_]) -> int:
    """Return how many patients have a nodule among those inside, bool (n,)."""
    return len(np.unique(patient[inside]))

"""What is measured of an arm, averaged over its seeds, with patient-bootstrap intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.bench.record import Estimate
from toolkit.evaluation.bootstrap import interval, patient_weights
from toolkit.evaluation.calibration import sigmoid
from toolkit.evaluation.logistic import fit_line
from toolkit.evaluation.metrics import auroc, average_precision, count
from toolkit.evaluation.predictions import Predictions

Floats = NDArray[np.float64]
Measure = Callable[[Predictions, Floats], Floats]
DRAWS, SEED = 1000, 0


@dataclass(frozen=True, eq=False)
class Outcome:
    """The test side as one run predicted it."""

    augmentation: str
    arm: str
    seed: int
    predictions: Predictions


def _brier(logit: Floats, label: Floats, weights: Floats) -> Floats:
    return (weights @ (sigmoid(logit) - label) ** 2) / weights.sum(axis=1)


MEASURES: Mapping[str, Measure] = {
    "AUROC": lambda p, w: auroc(p.logit, p.label, w),
    "average precision": lambda p, w: average_precision(p.logit, p.label, w),
    "recall at 0.5": lambda p, w: count(p.logit >= 0, p.label, w).recall,
    "specificity at 0.5": lambda p, w: count(p.logit >= 0, p.label, w).specificity,
    "recall, frozen": lambda p, w: count(p.logit >= p.threshold, p.label, w).recall,
    "specificity, frozen": lambda p, w: count(p.logit >= p.threshold, p.label, w).specificity,
    "intercept, raw": lambda p, w: fit_line(p.logit, p.label, w, slope=1.0)[1],
    "slope, raw": lambda p, w: fit_line(p.logit, p.label, w)[0],
    "Brier, raw": lambda p, w: _brier(p.logit, p.label, w),
    "intercept, calibrated": lambda p, w: fit_line(p.calibrated, p.label, w, slope=1.0)[1],
    "slope, calibrated": lambda p, w: fit_line(p.calibrated, p.label, w)[0],
    "Brier, calibrated": lambda p, w: _brier(p.calibrated, p.label, w),
}
"""At 0.5: the raw probability. Frozen: the threshold that validation chose for a sensitivity of 0.8."""


def estimates(outcomes: Sequence[Outcome]) -> list[Estimate]:
    """Return every measure of every arm, the mean over its seeds.

    The interval draws patients and keeps the seeds: it says how far another test side could be, not how far
    another seed; the values of the seeds stand in the note.
    """
    first = outcomes[0].predictions
    for each in outcomes:
        if not np.array_equal(each.predictions.nodule_id, first.nodule_id):
            raise ValueError(f"{each.augmentation} {each.arm} {each.seed}: another test side")
    weights = patient_weights(first.patient_id, DRAWS, SEED).astype(np.float64)
    ones = np.ones((1, len(first)))
    found = []
    for augmentation, arm in dict.fromkeys((each.augmentation, each.arm) for each in outcomes):
        own = [each for each in outcomes if (each.augmentation, each.arm) == (augmentation, arm)]
        for name, measure in MEASURES.items():
            values = [float(measure(each.predictions, ones)[0]) for each in own]
            drawn = np.mean([measure(each.predictions, weights) for each in own], axis=0)
            value, low, high = (float(f"{v:.6g}") for v in interval(float(np.mean(values)), drawn))
            told = ", ".join(f"{each.seed}: {v:.4g}" for each, v in zip(own, values, strict=True))
            note = f"{int(first.label.sum())} malignant; by seed {told}"
            path = f"imbalance/{augmentation}/{arm}/{name}"
            found.append(Estimate(path, value, low, high, len(first), note))
    return found


def differences(outcomes: Sequence[Outcome]) -> list[Estimate]:
    """Return paired differences of AUROC: with and without augmentation, and between sampler and the others.

    Both sides see the same redrawn patients; averaged over the seeds that both have.
    """
    first = outcomes[0].predictions
    weights = patient_weights(first.patient_id, DRAWS, SEED).astype(np.float64)
    by_name = {(each.augmentation, each.arm, each.seed): each.predictions for each in outcomes}
    arms, seeds = (dict.fromkeys(key[k] for key in by_name) for k in (1, 2))
    pairs = [(("augmented", arm), ("plain", arm)) for arm in arms]
    pairs += [(("augmented", "sampler"), ("augmented", arm)) for arm in arms if arm != "sampler"]
    found = []
    for one, other in pairs:
        both = [
            (by_name[(*one, seed)], by_name[(*other, seed)])  # type: ignore[index]
            for seed in seeds
            if {(*one, seed), (*other, seed)} <= by_name.keys()
        ]
        if not both:
            continue
        rows = np.concatenate([np.ones((1, len(first))), weights])
        apart = np.mean(
            [auroc(a.logit, a.label, rows) - auroc(b.logit, b.label, rows) for a, b in both], axis=0
        )
        value, low, high = (float(f"{v:.6g}") for v in interval(float(apart[0]), apart[1:]))
        name = f"imbalance difference/{'/'.join(one)} - {'/'.join(other)}/AUROC"
        found.append(Estimate(name, value, low, high, len(first), f"paired, {len(both)} seeds"))
    return found


def table(found: Sequence[Estimate]) -> str:
    """Return the estimates as Markdown, a line an arm."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for each in found:
        _, augmentation, arm, name = each.name.split("/")
        shown = f"{each.value:.3f}"
        if name in ("AUROC", "average precision"):
            shown += f" ({each.low:.3f} to {each.high:.3f})"
        cells.setdefault((augmentation, arm), {})[name] = shown
    lines = ["| augmentation | balance | " + " | ".join(MEASURES) + " |", "|---" * (2 + len(MEASURES)) + "|"]
    for (augmentation, arm), row in cells.items():
        lines.append(f"| {augmentation} | {arm} | " + " | ".join(row[name] for name in MEASURES) + " |")
    return "\n".join(lines)

"""What an evaluation found, in memory and as ``evaluation.json``: one sealed line of JSON.

Every `Interval` is a patient bootstrap; in repeated cross-validation the folds of a repeat are pooled, the
mean over repeats is taken, and a drawn patient brings the lines of all repeats. In JSON an `Interval` is
[value, low, high], what is not defined is null, the fields are those of `Evaluation`, and ``kind`` is
"evaluation".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from toolkit.errors import Problem, StoreError, UsageError
from toolkit.evaluation.quality import Quality
from toolkit.evaluation.results import Interval, to_json
from toolkit.store.files import write_atomic
from toolkit.store.format import sealed, unseal

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Part:
    """One partition (fold) of those that were pooled; its values have no interval, for each is small."""

    partition: str
    nodules: int
    positives: int
    threshold: float
    auroc: float
    average_precision: float
    recall: float
    specificity: float


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold gives.

    Attributes
    ----------
    goal
        In words.
    basis
        ``validation``: frozen before this side was looked at; ``this side``: chosen on the very nodules that
        it is measured on, so for illustration only, and too good.
    threshold
        On the calibrated logit at the prevalence of training, with its interval over the patient bootstrap;
        NaN for the frozen one, which lives on the raw logit of each model (`Part.threshold`).
    probability
        The same as a probability at the declared prevalence; NaN likewise.
    true_positive, false_negative, false_positive, true_negative
        Nodules; means over repeats.
    precision, negative_predictive_value, f_beta
        At the share of positives of this side; `beta` is that of the F-beta.
    """

    goal: str
    basis: Literal["validation", "this side"]
    threshold: Interval
    probability: float
    true_positive: float
    false_negative: float
    false_positive: float
    true_negative: float
    recall: Interval
    specificity: Interval
    precision: Interval
    negative_predictive_value: Interval
    balanced_accuracy: Interval
    beta: float
    f_beta: Interval


@dataclass(frozen=True)
class Predictive:
    """Predictive values of the frozen threshold where this share of nodules is malignant."""

    prevalence: float
    positive: Interval
    negative: Interval


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit a nodule, TP - FP x t / (1 - t) as shares, at the declared prevalence (Vickers 2006).

    Attributes
    ----------
    prevalence
        The declared one.
    thresholds
        Probabilities t at which one would act.
    model, baseline
        Of acting where the probability reaches t; `baseline` knows the diameter alone.
    treat_all
        Of acting on every nodule; acting on none gives 0.
    """

    prevalence: float
    thresholds: tuple[float, ...]
    model: tuple[Interval, ...]
    baseline: tuple[Interval, ...]
    treat_all: tuple[float, ...]


@dataclass(frozen=True)
class Subgroup:
    """Nodules that have something in common.

    `by` is what (``diameter``, ``solidity``, ``slice spacing``), `name` which. Where a class has fewer
    nodules than `toolkit.evaluation.subgroups.FEWEST`, what needs it is NaN and `note` says ``too few ...``.
    """

    by: str
    name: str
    nodules: int
    patients: int
    positives: int
    auroc: Interval
    recall: Interval
    specificity: Interval
    note: str = ""


@dataclass(frozen=True)
class Baseline:
    """A logistic regression of log diameter alone, beside the model on the same nodules.

    Differences are model - baseline, paired: the same patients are drawn for both.
    """

    auroc: Interval
    average_precision: Interval
    auroc_difference: Interval
    average_precision_difference: Interval
    verdict: str


@dataclass(frozen=True)
class Curve:
    """A curve as points, and a pointwise 95 % band on a grid of x.

    ROC: x = 1 - specificity, y = recall. Precision-recall: x = recall, y = precision. In repeated
    cross-validation the points are of the first repeat, the band of all.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    grid: tuple[float, ...]
    band: tuple[Interval, ...]


@dataclass(frozen=True)
class Miss:
    """A wrong decision; `probability` at the declared prevalence."""

    nodule_id: str
    case_id: str
    partition: str
    label: int
    decision: int
    probability: float
    calibrated: float
    diameter_mm: float


@dataclass(frozen=True)
class Evaluation:
    """All that was found on one side.

    Attributes
    ----------
    nodules, patients, positives, unscored
        Distinct nodules with a class, and those without.
    repeats
        Of cross-validation, else 1.
    prior, plain_prior, prevalence
        Effective share of positives in training; that among its nodules; the declared one. In
        cross-validation the first two are means over folds.
    goal
        Of the frozen threshold, in words.
    observed
        Share of positives of this side.
    frozen, points
        The frozen threshold, and others chosen on this side for illustration only.
    calibration
        ``raw``, ``prior corrected``, ``calibrated``; all at the prevalence of training.
    false_negatives, false_positives
        The wrong decisions that the model was surest of, surest first.
    sentences
        Findings in plain words.
    """

    nodules: int
    patients: int
    positives: int
    unscored: int
    repeats: int
    prior: float
    plain_prior: float
    prevalence: float
    observed: float
    goal: str
    beta: float
    draws: int
    seed: int
    auroc: Interval
    average_precision: Interval
    parts: tuple[Part, ...]
    frozen: OperatingPoint
    points: tuple[OperatingPoint, ...]
    predictive: tuple[Predictive, ...]
    calibration: Mapping[str, Quality]
    decision_curve: DecisionCurve
    subgroups: tuple[Subgroup, ...]
    baseline: Baseline
    roc: Curve
    precision_recall: Curve
    false_negatives: tuple[Miss, ...]
    false_positives: tuple[Miss, ...]
    sentences: tuple[str, ...]


def write_evaluation(path: Path, evaluation: Evaluation) -> None:
    """Write ``evaluation.json`` in one step; equal evaluations give equal bytes."""
    write_atomic(path, sealed({**to_json(evaluation), "kind": "evaluation", "format": FORMAT_VERSION}))


def read_evaluation(path: Path) -> dict[str, Any]:
    """Return what `write_evaluation` wrote, as plain JSON types.

    Raises `UsageError` E-EVAL-004 where it is missing, damaged or of another format.
    """
    action = "Make it again with toolkit evaluate"
    try:
        value = unseal(path.read_bytes(), path)
    except OSError as error:
        told = error.strerror or "it cannot be opened"
        raise _unreadable(path, told, action) from error
    except StoreError as error:
        raise _unreadable(path, "its digest does not match its content", action) from error
    if value.get("kind") != "evaluation" or value.get("format") != FORMAT_VERSION:
        raise _unreadable(path, f"kind {value.get('kind')}, format {value.get('format')}", action)
    return value


def _unreadable(path: Path, measured: str, action: str) -> UsageError:
    expected = f"a sealed evaluation of format {FORMAT_VERSION}"
    what = "the evaluation cannot be read"
    return UsageError(Problem("E-EVAL-004", what, measured, expected, action, (str(path),)))

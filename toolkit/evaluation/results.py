"""The shapes of results, as they stand in ``metrics.jsonl`` and ``evaluation.json``.

In JSON an `Interval` is a list [value, low, high] of numbers or null, all else a mapping of its fields.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple


class Interval(NamedTuple):
    """An estimate and its 95 % interval; NaN where it is not defined.

    Patient bootstrap, percentiles (`toolkit.evaluation.bootstrap.interval`); for a share of exactly 0 or 1,
    of which no draw differs, the exact binomial bound for as many patients.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class AtThreshold:
    """What a threshold on the raw logit gives; `f_beta` with the beta of the configuration."""

    threshold: float
    recall: Interval
    specificity: Interval
    precision: Interval
    balanced_accuracy: Interval
    f_beta: Interval


@dataclass(frozen=True)
class Summary:
    """One side at one time.

    Attributes
    ----------
    nodules, patients, positives
        Scored ones.
    loss_positive, loss_negative
        Mean binary cross-entropy of the raw logit over malignant and over benign nodules.
    loss
        Both, weighted by the prior that training effectively has: what the objective would be here.
    at_half, at_threshold
        At a raw logit of 0 (a raw probability of 0.5), and at the threshold chosen on validation.
    """

    nodules: int
    patients: int
    positives: int
    loss: float
    loss_positive: float
    loss_negative: float
    auroc: Interval
    average_precision: Interval
    at_half: AtThreshold
    at_threshold: AtThreshold


def to_json(value: Any) -> Any:
    """Return dataclasses, intervals and numbers as plain JSON types; NaN and infinities become null."""
    if isinstance(value, Interval):
        return [to_json(each) for each in value]
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): to_json(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(each) for each in value]
    if hasattr(value, "tolist"):
        return to_json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

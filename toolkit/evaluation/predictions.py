"""Predictions of one side of one or more partitions, in memory and as ``predictions_<side>.csv``."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from sys import float_info
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import Problem, UsageError
from toolkit.evaluation.labels import LabelRule
from toolkit.store import Nodule
from toolkit.store.files import write_atomic

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Predictions:
    """n predictions.

    Attributes
    ----------
    partition
        Names of partitions, (n,): in repeated cross-validation a nodule has one line a repeat.
    nodule_id, case_id, patient_id
        Keyed hashes, (n,).
    target
        In [0, 1]; NaN where unknown.
    label
        1 malignant, 0 benign, NaN not scored.
    logit
        Raw logit of the model; thresholds refer to it.
    probability
        Calibrated, at the declared prevalence.
    decision
        1 where the raw logit reaches the frozen threshold of its model.
    threshold
        That threshold.
    calibrated
        Calibrated logit at the prevalence of training, which can be compared between folds; the raw logits
        of two models cannot.
    diameter_mm
        NaN where nobody measured it.
    """

    partition: NDArray[np.str_]
    nodule_id: NDArray[np.str_]
    case_id: NDArray[np.str_]
    patient_id: NDArray[np.str_]
    target: Floats
    label: Floats
    logit: Floats
    calibrated: Floats
    probability: Floats
    threshold: Floats
    decision: NDArray[np.int64]
    diameter_mm: Floats

    def __len__(self) -> int:
        return len(self.nodule_id)


def of_nodules(
    nodules: Sequence[Nodule],
    partition: str,
    rule: LabelRule,
    *,
    logit: Floats,
    calibrated: Floats,
    probability: Floats,
    threshold: float,
) -> Predictions:
    """Return what one model said of n nodules, with what is known of them; see `Predictions`."""
    target = rule.targets(nodules)
    return Predictions(
        partition=np.full(len(nodules), partition),
        nodule_id=np.array([nodule.nodule_id for nodule in nodules], np.str_),
        case_id=np.array([nodule.case_id for nodule in nodules], np.str_),
        patient_id=np.array([nodule.patient_id for nodule in nodules], np.str_),
        target=target,
        label=rule.classes(target),
        logit=logit,
        calibrated=calibrated,
        probability=probability,
        threshold=np.full(len(nodules), threshold),
        decision=(logit >= threshold).astype(np.int64),
        diameter_mm=diameters(nodules),
    )


def diameters(nodules: Sequence[Nodule]) -> Floats:
    """Return diameters in mm, float64 (n,); NaN where nobody measured one."""
    return np.array([np.nan if n.diameter_mm is None else n.diameter_mm for n in nodules], np.float64)


COLUMNS = tuple(field.name for field in fields(Predictions))
TEXT = ("partition", "nodule_id", "case_id", "patient_id")
RANGES = {
    "target": (0.0, 1.0, True),
    "label": (0.0, 1.0, True),
    "logit": (-float_info.max, float_info.max, False),
    "calibrated": (-float_info.max, float_info.max, False),
    "probability": (0.0, 1.0, False),
    "threshold": (-float_info.max, float_info.max, False),
    "decision": (0.0, 1.0, False),
    "diameter_mm": (0.0, float_info.max, True),
}
"""Least and largest value of each column of numbers, and whether it may be empty."""


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write predictions as a csv file in one step: floats in full, NaN as an empty field."""
    text = io.StringIO(newline="")
    columns = [_texts(getattr(predictions, name)) for name in COLUMNS]
    # Python 3.11 leaves a lone carriage return unquoted, and then reads it as the end of a line
    bare = any("\r" in field for column in columns for field in column)
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if bare else csv.QUOTE_MINIMAL)
    writer.writerow(COLUMNS)
    writer.writerows(zip(*columns, strict=True))
    write_atomic(path, text.getvalue().encode())


def read_predictions(path: Path) -> Predictions:
    """Return exactly what `write_predictions` wrote.

    Raises `UsageError` E-EVAL-002 with the line where it is missing or damaged.
    """
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise _unreadable(path, error.strerror or "it cannot be opened") from error
    except UnicodeDecodeError as error:
        raise _unreadable(path, "it is no text") from error
    if not text.endswith("\n"):
        raise _unreadable(path, f"line {text.count(chr(10)) + 1} is cut short")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[list[str | float]] = []
    try:
        if next(reader) != list(COLUMNS):
            raise _unreadable(path, "line 1 does not name these columns", ", ".join(COLUMNS))
        for row in reader:
            if len(row) != len(COLUMNS):
                told = f"line {reader.line_num} has {len(row)} fields"
                raise _unreadable(path, told, f"{len(COLUMNS)}")
            rows.append([_value(path, reader.line_num, *each) for each in zip(COLUMNS, row, strict=True)])
    except csv.Error as error:
        raise _unreadable(path, f"line {reader.line_num}: {error}") from error
    columns = zip(*rows, strict=True) if rows else [()] * len(COLUMNS)
    types = [np.str_ if name in TEXT else np.int64 if name == "decision" else np.float64 for name in COLUMNS]
    arrays: list[Any] = [np.array(each, kind) for each, kind in zip(columns, types, strict=True)]
    return Predictions(*arrays)


def _texts(column: NDArray[Any]) -> list[str]:
    return ["" if each != each else each if isinstance(each, str) else repr(each) for each in column.tolist()]


def _value(path: Path, line: int, name: str, text: str) -> str | float:
    """Read a field; refuse what no writer of ours would write."""
    if name in TEXT:
        return text
    low, high, may_lack = RANGES[name]
    try:
        value = float(text) if text else math.nan
    except ValueError:
        value = math.inf
    whole = name not in ("label", "decision") or value in (0, 1) or not text
    if not whole or not (low <= value <= high if text else may_lack):
        told = f"line {line}: {name} is {text[:30]!r}"
        expected = f"{'0 or 1' if name in ('label', 'decision') else f'a number from {low:g} to {high:g}'}"
        raise _unreadable(path, told, expected + (" or nothing" if may_lack else ""))
    return value


def _unreadable(path: Path, measured: str, expected: str = "") -> UsageError:
    action = "Make them again with toolkit evaluate (or train)"
    what = "predictions cannot be read"
    return UsageError(Problem("E-EVAL-002", what, measured, expected, action, (str(path),)))

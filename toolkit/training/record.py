"""Lines of ``metrics.jsonl``: written whole in one step, read back as they were."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import Problem, UsageError
from toolkit.evaluation.results import Summary, from_json, to_json
from toolkit.store.files import write_atomic
from toolkit.training.config import Metric


@dataclass(frozen=True)
class EpochRecord:
    """A line of ``metrics.jsonl``; see `toolkit.training.run_folder` for the fields.

    Attributes
    ----------
    selected
        The metric of selection, smoothed up to this epoch; higher is better.
    best_epoch
        The epoch that is kept, as known after this one.
    noise
        The least gain over the last one that would have counted, in units of `selected`.
    why
        What selection says, a sentence.
    """

    epoch: int
    lr: float
    train_loss: float
    val: Summary
    train: Summary
    selected: float
    best_epoch: int
    noise: float = math.nan
    why: str = ""


def selection_value(summary: Summary, metric: Metric) -> float:
    """Return the metric of selection of a summary, higher is better; it may be NaN."""
    if metric == "loss":
        return -summary.loss
    if metric == "auroc":
        return summary.auroc.value
    if metric == "average_precision":
        return summary.average_precision.value
    at = summary.at_threshold
    return at.balanced_accuracy.value if metric == "balanced_accuracy" else at.f_beta.value


def write_records(path: Path, records: Iterable[EpochRecord]) -> None:
    """Write all lines; replaces an older file in one step.

    Raises `ResourceError` E-DISK-001.
    """
    lines = (json.dumps(to_json(each), allow_nan=False, separators=(",", ":")) for each in records)
    write_atomic(path, "".join(line + "\n" for line in lines).encode())


def read_records(path: Path) -> list[EpochRecord]:
    """Return all lines, null as NaN.

    Raises `UsageError` E-RUN-001 where the file is missing, a line is damaged, or epochs do not count from 1.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise _unreadable(path, reason) from error
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = from_json(EpochRecord, json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise _unreadable(path, f"line {number} is damaged") from error
        if record.epoch != number:
            raise _unreadable(path, f"line {number} is epoch {record.epoch}")
        records.append(record)
    return records


def _unreadable(path: Path, measured: str) -> UsageError:
    what, expected = "the metrics of the run cannot be read", "a line an epoch, from 1 on"
    return UsageError(Problem("E-RUN-001", what, measured, expected, "Nothing done", (str(path),)))

"""What a model says of each nodule, in memory and as a table."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import Problem
from toolkit.store import Nodule

Floats = NDArray[np.float64]

COLUMNS = (
    "nodule_id",
    "case_id",
    "patient_id",
    "probability",
    "decision",
    "logit",
    "spread",
    "diameter_mm",
    "x_mm",
    "y_mm",
    "z_mm",
    "warnings",
)


@dataclass(frozen=True, eq=False)
class Scores:
    """n predictions, in the order in which they were asked for.

    Attributes
    ----------
    index
        int64 (n,): numbers of the nodules in their store.
    nodules
        Their records.
    logit
        float64 (n,): raw, to which the threshold refers.
    calibrated
        float64 (n,): calibrated logit at the share of malignant nodules in training, which can be compared
        between models.
    probability
        float64 (n,): calibrated, at `prevalence`.
    prevalence
        The declared share of malignant nodules.
    threshold
        Of the raw logit, frozen on validation; no prevalence moves it.
    decision
        int64 (n,): 1 where the raw logit reaches the threshold.
    members
        float64 (m, n): calibrated logits of an ensemble's models, whose mean is `logit`; (0, n) for one.
    notes
        Of each nodule: where it lies outside what the model saw, and what its model lacks.
    scan_notes
        Of each nodule: codes of what preprocessing noted on its scan.
    """

    index: NDArray[np.int64]
    nodules: tuple[Nodule, ...]
    logit: Floats
    calibrated: Floats
    probability: Floats
    prevalence: float
    threshold: float
    decision: NDArray[np.int64]
    members: Floats
    notes: tuple[tuple[Problem, ...], ...]
    scan_notes: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.index)

    @property
    def spread(self) -> Floats:
        """Standard deviation of the members' calibrated logits, float64 (n,); NaN for fewer than two."""
        if len(self.members) < 2:
            return np.full(len(self), math.nan)
        return np.asarray(self.members.std(axis=0, ddof=1), np.float64)

    def rows(self) -> list[dict[str, Any]]:
        """Return a mapping of `COLUMNS` a nodule; None where unknown; warnings as codes."""
        spread = self.spread
        rows = []
        for k, nodule in enumerate(self.nodules):
            x, y, z = nodule.center_lps_mm
            codes = [note.code for note in self.notes[k]] + list(self.scan_notes[k])
            values = (
                nodule.nodule_id,
                nodule.case_id,
                nodule.patient_id,
                float(self.probability[k]),
                "malignant" if self.decision[k] else "benign",
                float(self.logit[k]),
                None if math.isnan(spread[k]) else float(spread[k]),
                nodule.diameter_mm,
                *(x, y, z),
                list(dict.fromkeys(codes)),
            )
            rows.append(dict(zip(COLUMNS, values, strict=True)))
        return rows


def as_csv(rows: Sequence[dict[str, Any]], columns: Sequence[str] = COLUMNS) -> str:
    """Return rows as a table; numbers read back exactly, codes of warnings are divided by blanks."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows([[_cell(row[name]) for name in columns] for row in rows])
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value)
    return " ".join(value) if isinstance(value, list) else str(value)

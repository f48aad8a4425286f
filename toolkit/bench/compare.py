"""Two records beside each other: what changed by more than the noise.

The noise of a ratio B / A. In each record p20 and p80 lie 1.68 standard deviations apart, if times scatter
normally; the two sides are independent, so their relative deviations add as squares; a change counts where
it is beyond twice that, and beyond `LEAST` in any case, because two runs of one program differ by more than
either run shows:

    sd(side) = (p80 - p20) / (1.68 p50)        band = max(LEAST, 2 sqrt(sd(A)^2 + sd(B)^2))
    changed: |ln(B / A)| > ln(1 + band)

The number of measurements does not enter: they are not independent, a warm or a busy machine moves them all.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from toolkit.errors import Problem, UsageError

LEAST = 0.05
WITHIN_DEVIATIONS = 1.6832  # from the 20th to the 80th percentile of a normal distribution
DEVIATIONS = 2.0
LESS_IS_MORE = {"s", "ms", "us", "MiB", "s/case", "ms/case"}
CONTEXT = ("device", "cpu", "cores", "gpu", "system", "versions")
Verdict = Literal["same", "better", "worse"]


@dataclass(frozen=True)
class Side:
    """A figure of one record: middle and spread, of all its lines where there are several."""

    unit: str
    p20: float
    p50: float
    p80: float

    @property
    def deviation(self) -> float:
        """Relative standard deviation."""
        return abs(self.p80 - self.p20) / WITHIN_DEVIATIONS / abs(self.p50) if self.p50 else math.inf


@dataclass(frozen=True)
class Change:
    """A figure in both records; `band` is the relative change that noise could make."""

    name: str
    a: Side
    b: Side
    ratio: float
    band: float
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """What two records have in common, what only one has, and in what their machines differ."""

    changes: tuple[Change, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    contexts: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether anything is beyond its band."""
        return any(each.verdict != "same" for each in self.changes)


def compare(a: Path, b: Path, least: float = LEAST) -> Comparison:
    """Compare two records of JSON lines.

    Raises `UsageError` E-BENCH-002 where one cannot be read, E-BENCH-003 where no figure is in both.
    """
    rows_a, rows_b = read(a), read(b)
    sides_a, sides_b = sides(rows_a), sides(rows_b)
    common = [name for name in sides_a if name in sides_b and sides_a[name].unit == sides_b[name].unit]
    if not common:
        measured = f"{len(sides_a)} and {len(sides_b)} figures"
        action = "Nothing compared; give two records of the same stages"
        problem = Problem("E-BENCH-003", "no figure in common", measured, "", action, (str(a), str(b)))
        raise UsageError(problem)
    return Comparison(
        tuple(judge(name, sides_a[name], sides_b[name], least) for name in common),
        tuple(name for name in sides_a if name not in common),
        tuple(name for name in sides_b if name not in common),
        tuple(_differences(rows_a, rows_b)),
    )


def judge(name: str, a: Side, b: Side, least: float = LEAST) -> Change:
    """Return whether B is beyond the noise of A and itself, and whether that is better."""
    band = max(least, DEVIATIONS * math.hypot(a.deviation, b.deviation))
    if not (a.p50 > 0 and b.p50 > 0):
        same = a.p50 == b.p50
        return Change(name, a, b, 1.0 if same else math.nan, band, "same" if same else "worse")
    ratio = b.p50 / a.p50
    verdict: Verdict = "same"
    if abs(math.log(ratio)) > math.log1p(band):
        verdict = "better" if (ratio > 1) != (a.unit in LESS_IS_MORE) else "worse"
    return Change(name, a, b, ratio, band, verdict)


def read(path: Path) -> list[dict[str, Any]]:
    """Return the figures of a record, one a line; estimates, which have no spread, are left out."""
    try:
        rows = [json.loads(text) for text in path.read_text("utf-8").splitlines() if text.strip()]
        found = [row for row in rows if "p50" in row]
        for row in found:
            _ = str(row["name"]), str(row["unit"]), *(float(row[key]) for key in ("p20", "p50", "p80"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        measured = type(error).__name__
        expected = "JSON lines of toolkit bench --out"
        problem = Problem("E-BENCH-002", "the record cannot be read", measured, expected, "", (str(path),))
        raise UsageError(problem) from error
    return found


def sides(rows: Iterable[Mapping[str, Any]]) -> dict[str, Side]:
    """Return figures by name; of several lines the middle median and the widest spread."""
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(row["name"], []).append(row)
    return {
        name: Side(
            each[0]["unit"],
            min(float(row["p20"]) for row in each),
            float(np.median([row["p50"] for row in each])),
            max(float(row["p80"]) for row in each),
        )
        for name, each in grouped.items()
    }


def _differences(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return in what the machines of two records differ, in words; clocks move by themselves."""
    one, other = _flat(a[0]), _flat(b[0])
    return [
        f"{name}: {one.get(name)} in A, {other.get(name)} in B"
        for name in sorted({*one, *other})
        if one.get(name) != other.get(name)
    ]


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in CONTEXT:
        value = row.get(name)
        if isinstance(value, Mapping):
            found |= {f"{name}.{key}": each for key, each in value.items() if "clock" not in key}
        else:
            found[name] = value
    return found

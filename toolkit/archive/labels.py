"""``labels.csv``: labels for cases that bring none, joined on case, nodule or position."""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from toolkit.archive.case import Case, Finding, ToldLabel
from toolkit.archive.files import number, table_text
from toolkit.archive.geometry import Geometry
from toolkit.errors import InputError, Problem, UsageError

NAME = "labels.csv"
CASE = ("case_id", "series_uid", "patient_id")
PLACE = ("x_mm", "y_mm", "z_mm")
LUNA16_NAMES = {"seriesuid": "series_uid", "coordX": "x_mm", "coordY": "y_mm", "coordZ": "z_mm"}
NEAREST_MM = 1.5  # how far beside its mask a position may lie: positions are often rounded to voxels


@dataclass(frozen=True)
class LabelTable:
    """The lines of a ``labels.csv`` by the kind and value of what names their case."""

    lines: Mapping[tuple[str, str], tuple[ToldLabel, ...]]
    path: str

    def of(self, case: Case, series_uid: str) -> tuple[ToldLabel, ...]:
        """Return the lines for a case; a volume is also known by its file's name without the suffix."""
        keys = [("case_id", case.case_id), ("series_uid", series_uid), ("patient_id", case.patient_id)]
        short = case.case_id.rpartition("/")[2]
        if short != case.case_id:
            keys += [("case_id", short), ("patient_id", short)]
        return tuple(label for key in keys for label in self.lines.get(key, ()))


def read_labels(path: Path) -> LabelTable:
    """Read and check a table of labels.

    Columns: one or more of ``case_id``, ``series_uid``, ``patient_id``, of which a line fills exactly
    one; ``label`` in [0, 1]; optional ``nodule_id`` (a label value, component number or name), or
    ``x_mm``, ``y_mm``, ``z_mm`` (LPS), optional ``diameter_mm``. A line without nodule and position
    speaks of every nodule of its case. LUNA16's column names are known. Other columns are ignored,
    and so are lines with an empty label.

    Raises `UsageError` E-CSV-001, E-CSV-002 or E-CSV-003 as a manifest does.
    """
    try:
        text = table_text(path)
        table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        header = [LUNA16_NAMES.get(name.strip(), name.strip()) for name in table.fieldnames or ()]
        table.fieldnames = header
        _check_header(header, path)
        rows = [(table.line_num, row) for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise UsageError(Problem("E-CSV-001", "labels cannot be read", reason, files=(str(path),))) from error
    wrong: list[str] = []
    lines: dict[tuple[str, str], list[ToldLabel]] = defaultdict(list)
    for line, row in rows:
        if None in row or None in row.values():  # a decimal comma is one cell more
            wrong.append(f"line {line}: {'too many' if None in row else 'too few'} fields")
        else:
            _take(line, {name: value.strip() for name, value in row.items()}, lines, wrong)
    if wrong:
        shown = "; ".join(wrong[:20]) + ("" if len(wrong) <= 20 else f"; and {len(wrong) - 20} more")
        raise UsageError(Problem("E-CSV-003", "values of labels", shown, files=(str(path),)))
    return LabelTable({key: tuple(told) for key, told in lines.items()}, str(path))


def _check_header(header: Sequence[str], path: Path) -> None:
    missing = [] if set(CASE) & set(header) else [f"one of {', '.join(CASE)}"]
    missing += [] if "label" in header else ["label"]
    if set(PLACE) & set(header):
        missing += [name for name in PLACE if name not in header]
    doubled = sorted({name for name in header if name and header.count(name) > 1})
    if missing or doubled:
        parts = (("missing", missing), ("twice", doubled))
        measured = "; ".join(f"{what} {', '.join(names)}" for what, names in parts if names)
        raise UsageError(Problem("E-CSV-002", "columns of labels", measured, files=(str(path),)))


def _take(
    line: int, row: Mapping[str, str], lines: dict[tuple[str, str], list[ToldLabel]], wrong: list[str]
) -> None:
    """Check one line and add it to `lines`; what is wrong with it is appended to `wrong`."""
    keys = [(name, row[name]) for name in CASE if row.get(name)]
    if not row.get("label"):
        return
    values: dict[str, float] = {}
    for name in ("label", *PLACE, "diameter_mm"):
        if row.get(name):
            try:
                values[name] = number(row[name])
            except ValueError:
                values[name] = math.nan
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    given = [name for name in PLACE if name in values]
    if bad:
        wrong.append(f"line {line}: {', '.join(bad)} is not a number")
    elif len(keys) != 1:
        wrong.append(f"line {line}: {len(keys)} of {', '.join(CASE)} filled, one expected")
    elif not 0 <= values["label"] <= 1:
        wrong.append(f"line {line}: label {values['label']:g} is not in [0, 1]")
    elif given and len(given) < len(PLACE):
        wrong.append(f"line {line}: {', '.join(n for n in PLACE if n not in given)} missing")
    elif given and row.get("nodule_id"):
        wrong.append(f"line {line}: both a nodule and a position")
    else:
        place = (values["x_mm"], values["y_mm"], values["z_mm"]) if given else None
        told = ToldLabel(values["label"], row.get("nodule_id", ""), place, values.get("diameter_mm"), line)
        lines[keys[0]].append(told)


def with_labels(
    case: Case, findings: Iterable[Finding], geometry: Geometry
) -> tuple[list[Finding], list[Problem]]:
    """Return the findings of a case with the labels that its table gives them, which speak last.

    A position names the nodule whose mask holds it, or else the nearest within its radius or 1.5 mm of
    the mask. Returns notes W-CSV-001 on lines that match no nodule. Raises `InputError` E-CSV-005
    where a line fits several nodules, or where two lines give one nodule different labels.
    """
    found = list(findings)
    labels: dict[int, ToldLabel] = {}
    lost: list[int] = []
    for told in sorted(case.told, key=lambda told: (told.whole_case is False, told.line)):
        matches = _matches(told, found, geometry)
        if not matches and found:
            lost.append(told.line)
        if len(matches) > 1 and not told.whole_case:
            raise _conflict("a label fits several nodules", f"line {told.line}: {len(matches)} nodules", "1")
        for k in matches:
            other = labels.get(k)
            if other is not None and other.value != told.value and other.whole_case is told.whole_case:
                lines = f"lines {other.line} and {told.line}: {other.value:g} and {told.value:g}"
                raise _conflict("two labels for one nodule", lines, "one")
            labels[k] = told  # a line for a nodule comes after, and goes before, one for its case
    notes = []
    if lost:
        shown = ", ".join(map(str, lost[:10])) + (", ..." if len(lost) > 10 else "")
        action = "These lines were left out; the nodules found are unchanged"
        notes.append(
            Problem("W-CSV-001", "labels match no nodule of their case", f"lines {shown}", "", action)
        )
    return [
        replace(finding, label=labels[k].value) if k in labels else finding for k, finding in enumerate(found)
    ], notes


def _conflict(what: str, measured: str, expected: str) -> InputError:
    return InputError(Problem("E-CSV-005", what, measured, expected, "Case skipped; correct labels.csv"))


def _matches(told: ToldLabel, findings: Sequence[Finding], geometry: Geometry) -> list[int]:
    """Return the numbers of the findings that a line speaks of."""
    if told.whole_case:
        return list(range(len(findings)))
    if told.center_lps_mm is None:
        return [k for k, finding in enumerate(findings) if finding.name == told.nodule_id]
    place = np.array(told.center_lps_mm)
    inside = [k for k, finding in enumerate(findings) if _distance_mm(finding, place, geometry) == 0]
    if inside:
        return inside
    radius = (told.diameter_mm or 0) / 2
    gaps = {}
    for k, finding in enumerate(findings):
        gap = _distance_mm(finding, place, geometry)
        if gap <= max(NEAREST_MM, radius):
            gaps[k] = gap
    return [min(gaps, key=lambda k: gaps[k])] if gaps else []


def _distance_mm(finding: Finding, place: "np.ndarray", geometry: Geometry) -> float:
    """Return how far a position lies from a nodule: 0 inside its mask, or inside a point's sphere."""
    if finding.mask is None or finding.box is None:
        gap = float(np.linalg.norm(place - finding.center_lps_mm)) - (finding.diameter_mm or 0) / 2
        return max(0.0, gap)
    voxels = np.argwhere(finding.mask) + np.array(finding.box.start_zyx)
    index = geometry.to_nominal_index(place)
    own = voxels.astype(np.float64)
    if geometry.slice_positions is not None:
        own[:, 0] = np.asarray(geometry.slice_positions)[voxels[:, 0]]
    if bool((np.abs(own - index) <= 0.5).all(axis=1).any()):
        return 0.0
    return float(np.linalg.norm((own - index) @ geometry.affine[:3, :3].T, axis=1).min())

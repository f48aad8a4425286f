"""``cases.csv``: the table that says which image goes with which mask, point and label."""

import csv
import io
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.archive.case import Case
from toolkit.archive.files import number, table_text
from toolkit.errors import Problem, UsageError

REQUIRED = ("case_id", "patient_id", "image")
POINT = ("x_mm", "y_mm", "z_mm", "diameter_mm")
COLUMNS = (*REQUIRED, "series_uid", "mask", "mask_series_uid", *POINT, "nodule_id", "label", "split")
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Row:
    """One line of a manifest, checked. Paths are absolute; empty fields are None or empty."""

    line: int
    case_id: str
    patient_id: str
    image: Path
    series_uid: str = ""
    mask: Path | None = None
    mask_series_uid: str = ""
    center_lps_mm: tuple[float, float, float] | None = None
    diameter_mm: float | None = None
    nodule_id: str = ""
    label: float | None = None
    split: str = ""


def read_manifest(path: Path) -> dict[str, list[Row]]:
    """Read and check a manifest; rows by case id, in file order.

    Raises `UsageError`: E-CSV-001 where it is no table, E-CSV-002 for wrong columns, E-CSV-003 for a
    wrong value (all of them listed, with their lines), E-CSV-004 where rows contradict each other.
    """
    try:
        text = table_text(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError(
            Problem("E-CSV-001", "manifest cannot be read", reason, files=(str(path),))
        ) from error
    table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in table.fieldnames or ()]
        table.fieldnames = header
        _check_header(header, path)
        lines = [(table.line_num, line) for line in table]
    except csv.Error as error:
        raise UsageError(
            Problem("E-CSV-001", "manifest is no table", str(error), files=(str(path),))
        ) from error
    wrong: list[str] = []
    rows = [_row(number, line, path.resolve().parent, wrong) for number, line in lines]
    if wrong:
        shown = "; ".join(wrong[:20]) + ("" if len(wrong) <= 20 else f"; and {len(wrong) - 20} more")
        raise UsageError(Problem("E-CSV-003", "manifest values", shown, files=(str(path),)))
    cases: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        cases[row.case_id].append(row)
    for found in cases.values():
        _check_case(found, path)
    return dict(cases)


def write_manifest(
    path: Path,
    cases: Iterable[Case],
    force: bool = False,
    write: Callable[[Path, bytes], object] = Path.write_bytes,
) -> None:
    """Write the manifest of found cases, one line a mask or a point, to be edited.

    Paths are relative to the manifest's folder; `write` puts the bytes there. Raises `UsageError` E-OUT-001
    where a file that says something else is there already, unless `force`.
    """
    base = path.resolve().parent
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    for case in cases:
        table.writerows(_lines(case, base))
    try:
        data = text.getvalue().encode()
    except UnicodeEncodeError as error:
        what, action = "a file name is not UTF-8 text", "Nothing written; rename the file"
        name = text.getvalue()[error.start - 40 : error.end + 40].splitlines()
        shown = " ".join(name).encode(errors="backslashreplace").decode()
        raise UsageError(Problem("E-CSV-001", what, shown, "", action, (str(path),))) from error
    try:
        if path.exists() and path.read_bytes() != data and not force:
            action = "Left as it is; --force replaces it, --out names another"
            raise UsageError(
                Problem("E-OUT-001", "a different manifest is there already", "", "", action, (str(path),))
            )
        write(path, data)
    except OSError as error:
        problem = Problem(
            "E-DISK-001", "manifest cannot be written", error.strerror or "", files=(str(path),)
        )
        raise UsageError(problem) from error


def _lines(case: Case, base: Path) -> list[dict[str, object]]:
    """Return the lines of one case."""
    line: dict[str, object] = {
        "case_id": case.case_id,
        "patient_id": case.patient_id,
        "image": _relative(case.image, base),
        "split": case.split,
    }
    if Path(case.image).is_dir():
        line["series_uid"] = case.case_id
    lines = []
    for mask in case.masks:
        told = sorted({*mask.names, *mask.labels}) or [0]
        for key in told:
            label = mask.labels.get(key, "")
            lines.append(
                {
                    **line,
                    "mask": _relative(mask.path, base),
                    "mask_series_uid": mask.slices[0].header.series_uid if mask.slices else "",
                    "nodule_id": mask.names.get(key, ""),
                    "label": label,
                }
            )
    for point in case.points:
        place = dict(zip(("x_mm", "y_mm", "z_mm"), point.center_lps_mm, strict=True))
        label = "" if point.label is None else point.label
        lines.append(
            {**line, **place, "diameter_mm": point.diameter_mm or "", "nodule_id": point.name, "label": label}
        )
    return lines or [line]


def _relative(path: str, base: Path) -> str:
    return Path(os.path.relpath(Path(path).resolve(), base)).as_posix()


def _check_header(header: Sequence[str], path: Path) -> None:
    missing = [name for name in REQUIRED if name not in header]
    unknown = [name or "(empty)" for name in header if name not in COLUMNS]
    doubled = sorted({name for name in header if header.count(name) > 1})
    if len({*POINT} & {*header}) not in (0, len(POINT)):
        missing += [name for name in POINT if name not in header]
    if missing or unknown or doubled:
        parts = [("missing", missing), ("unknown", unknown), ("twice", doubled)]
        measured = "; ".join(f"{what} {', '.join(names)}" for what, names in parts if names)
        raise UsageError(
            Problem(
                "E-CSV-002",
                "manifest columns",
                measured,
                f"columns out of {', '.join(COLUMNS)}",
                "",
                (str(path),),
            )
        )


def _row(number: int, line: dict[str | None, str | None], base: Path, wrong: list[str]) -> Row:
    """Check one line; what is wrong with it is appended to `wrong`."""
    start = len(wrong)
    if None in line or None in line.values():
        wrong.append(f"line {number}: {'too many' if None in line else 'too few'} fields")
    value = {
        str(key): (text or "").strip()
        for key, text in line.items()
        if key is not None and isinstance(text, str | None)
    }
    wrong += [f"line {number}: {name} is empty" for name in REQUIRED if not value.get(name)]
    numbers = {name: _number(number, name, value.get(name, ""), wrong) for name in (*POINT, "label")}
    given = [name for name in POINT if value.get(name)]
    if given and len(given) < len(POINT):
        wrong.append(
            f"line {number}: {', '.join(n for n in POINT if n not in given)} missing beside {given[0]}"
        )
    if given and value.get("mask"):
        wrong.append(f"line {number}: both a mask and a point; use one line for each")
    diameter, label, split = numbers["diameter_mm"], numbers["label"], value.get("split", "")
    if diameter is not None and not 0 < diameter <= 500:
        wrong.append(f"line {number}: diameter_mm {diameter:g} is not in (0, 500]")
    if label is not None and not 0 <= label <= 1:
        wrong.append(f"line {number}: label {label:g} is not in [0, 1]")
    if split not in ("", *SPLITS):
        wrong.append(f"line {number}: split is none of {', '.join(SPLITS)}")
    center = None
    if len(given) == len(POINT) and len(wrong) == start:
        center = (float(numbers["x_mm"] or 0), float(numbers["y_mm"] or 0), float(numbers["z_mm"] or 0))
    return Row(
        line=number,
        case_id=value.get("case_id", ""),
        patient_id=value.get("patient_id", ""),
        image=base / value.get("image", ""),
        series_uid=value.get("series_uid", ""),
        mask=base / value["mask"] if value.get("mask") else None,
        mask_series_uid=value.get("mask_series_uid", ""),
        center_lps_mm=center,
        diameter_mm=diameter,
        nodule_id=value.get("nodule_id", ""),
        label=label,
        split=split,
    )


def _number(line: int, name: str, text: str, wrong: list[str]) -> float | None:
    if not text:
        return None
    try:
        value = number(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        wrong.append(f"line {line}: {name} {text[:20]!r} is not a number (use a point as decimal mark)")
        return None
    return value


def _check_case(rows: Sequence[Row], path: Path) -> None:
    """Refuse rows of one case that name different scans or patients, or one nodule twice."""
    first = rows[0]
    for field in ("patient_id", "image", "series_uid", "split"):
        for row in rows[1:]:
            if getattr(row, field) != getattr(first, field):
                raise UsageError(
                    Problem(
                        "E-CSV-004",
                        f"{field} differs within a case",
                        f"lines {first.line} and {row.line}",
                        "one value",
                        files=(str(path),),
                    )
                )
    seen: dict[tuple[object, ...], int] = {}
    for row in rows:
        key = (row.mask, row.mask_series_uid, row.nodule_id, row.center_lps_mm if not row.nodule_id else None)
        if key in seen:
            measured = f"lines {seen[key]} and {row.line}"
            raise UsageError(
                Problem("E-CSV-004", "one nodule named twice", measured, "once", files=(str(path),))
            )
        seen[key] = row.line

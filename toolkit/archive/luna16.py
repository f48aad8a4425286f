"""LUNA16's tables of positions: ``annotations.csv`` (nodules) and ``candidates.csv`` (nodule or not).

Columns as published: ``seriesuid,coordX,coordY,coordZ,diameter_mm`` and
``seriesuid,coordX,coordY,coordZ,class``; world coordinates are ITK's, that is LPS mm. A candidate has
neither a diameter nor a malignancy, and most of them are no nodules.
"""

import csv
import io
import math
from pathlib import Path
from typing import Literal, NamedTuple

from toolkit.archive.case import Point
from toolkit.archive.files import number, readable, refusal, table_text
from toolkit.errors import InputError

Kind = Literal["annotations", "candidates"]


class LunaRow(NamedTuple):
    """A position in LPS mm, and its diameter where it has one."""

    series_uid: str
    x_mm: float
    y_mm: float
    z_mm: float
    diameter_mm: float | None


_PLACE = ("seriesuid", "coordX", "coordY", "coordZ")
_LAST: dict[str, Kind] = {"diameter_mm": "annotations", "class": "candidates"}


def sniff_luna16(path: Path) -> Kind | None:
    """Tell from its first line whether a csv file is a table of LUNA16, and which."""
    with readable(str(path)) as file:
        head = file.readline(256).decode("utf-8-sig", errors="replace")
    names = tuple(name.strip(' "\r\n') for name in head.split(","))  # R writes quotes
    return _LAST.get(names[4]) if len(names) == 5 and names[:4] == _PLACE else None


def read_luna16(path: Path, kind: Kind) -> list[LunaRow]:
    """Read a table; of candidates those of class 1, whose diameter is None.

    Raises `InputError` E-LUNA-001 where a line is wrong: a table that is wrong in one line may be in
    others.
    """
    rows: list[LunaRow] = []
    try:
        text = table_text(path)
    except UnicodeDecodeError as error:
        raise _refused("a line", "UTF-8 text", path) from error
    except OSError as error:
        raise refusal("E-FILE-005", "file cannot be read", error.strerror or "", path=str(path)) from error
    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        next(table, None)
        for line in table:
            if line:
                rows += _row(line, kind)
    except (ValueError, csv.Error) as error:
        where = f"line {table.line_num}"
        expected = f"{', '.join(_PLACE)} and a {'diameter' if kind == 'annotations' else 'class 0 or 1'}"
        raise _refused(where, expected, path) from error
    return rows


def _row(line: list[str], kind: Kind) -> list[LunaRow]:
    """Check a line; ValueError says that it is wrong."""
    uid, *numbers = (field.strip() for field in line)
    x, y, z, last = map(number, numbers)
    if not uid or not all(map(math.isfinite, (x, y, z, last))):
        raise ValueError
    if kind == "annotations":
        if not 0 < last <= 500:
            raise ValueError
        return [LunaRow(uid, x, y, z, last)]
    if last not in (0, 1):
        raise ValueError
    return [LunaRow(uid, x, y, z, None)] if last == 1 else []


def _refused(where: str, expected: str, path: Path) -> InputError:
    return refusal("E-LUNA-001", "wrong line in a table of positions", where, expected, path=str(path))


def points_of(rows: list[LunaRow]) -> tuple[Point, ...]:
    """Return the points of one series, in a fixed order."""
    ordered = sorted(set(rows), key=lambda row: (row.z_mm, row.y_mm, row.x_mm, row.diameter_mm or 0.0))
    return tuple(Point("", (row.x_mm, row.y_mm, row.z_mm), row.diameter_mm) for row in ordered)

"""Curves as a line of block characters."""

import math
from collections.abc import Sequence

BLOCKS, PLAIN = "▁▂▃▄▅▆▇█", "_.,-=+*#"


def sparklines(
    series: Sequence[Sequence[float]], mark: int, width: int, *, ascii_only: bool = False
) -> list[str]:
    """Return a line for each series, on one scale, and a last one that marks a position.

    Where there are more values than `width`, a column shows the mean of its values; NaN is a gap. The scale
    is that of all but the first quarter, so that a steep start does not flatten what follows.
    """
    count = len(series[0])
    each = max(math.ceil(count / width), 1)
    columns = [[_mean(values[i : i + each]) for i in range(0, count, each)] for values in series]
    later = len(columns[0]) // 4
    known = [value for line in columns for value in line[later:] if math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    marks = PLAIN if ascii_only else BLOCKS

    def block(value: float) -> str:
        if not math.isfinite(value):
            return " "
        share = (value - low) / (high - low) if high > low else 0.5
        return marks[min(max(int(share * len(marks)), 0), len(marks) - 1)]

    lines = ["".join(map(block, line)) for line in columns]
    return [*lines, " " * (mark // each) + ("^" if ascii_only else "▲")]


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return math.fsum(known) / len(known) if known else math.nan

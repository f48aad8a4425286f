"""Axes of charts: where they end, where their ticks stand, and a number's place on them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from toolkit.report.charts import nice_step
from toolkit.report.words import plain

TICKS = 4
DECADE = (1.0, 2.0, 5.0)


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes
    ----------
    name
        What is read on it; may be empty.
    low, high
        Its ends.
    ticks
        Where numbers stand, within the ends.
    kind
        ``linear`` or ``log``.
    percent
        Numbers are shares, told as per cent.
    """

    name: str
    low: float
    high: float
    ticks: tuple[float, ...]
    kind: Literal["linear", "log"] = "linear"
    percent: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies: 0 at the low end, 1 at the high one; held at the ends."""
        low, high = self.low, self.high
        if self.kind == "log":
            low, high, value = math.log(low), math.log(high), math.log(max(value, self.low))
        return min(1.0, max(0.0, (value - low) / (high - low)))

    def tell(self, value: float) -> str:
        """Return a value on this axis as text."""
        return told(value, percent=self.percent)


def told(value: float, *, percent: bool = False) -> str:
    """Return a number, or a share as per cent, with the digits that a person reads."""
    text = f"{plain(100 * value)} %" if percent else plain(value)
    return text.replace("-", "\u2212")


def fitted(name: str, values: Iterable[float], *, floor: float | None = None, percent: bool = False) -> Axis:
    """Return a linear axis whose ends are round numbers about the finite ones of `values`.

    It begins at `floor` where that is given and nothing lies below.
    """
    finite = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if floor is not None:
        low = min(low, floor)
    step = nice_step((high - low) / TICKS if high > low else max(abs(high), 1e-3) / TICKS)
    first = math.floor(low / step + 1e-9)
    last = max(first + 1, math.ceil(high / step - 1e-9))
    ticks = tuple(round(step * k, 12) for k in range(first, last + 1))
    return Axis(name, ticks[0], ticks[-1], ticks, percent=percent)


def counted(name: str, last: int) -> Axis:
    """Return an axis of whole numbers from 1 to `last`."""
    step = max(1, round(nice_step(max(last, 2) / TICKS)))
    ticks = (1.0, *(float(k) for k in range(step, last + 1, step) if k > 1))
    return Axis(name, 1.0, float(max(2, last)), ticks)


def share(name: str) -> Axis:
    """Return an axis from 0 to 1."""
    return Axis(name, 0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0))


def logarithmic(name: str, low: float, high: float, *, percent: bool = False) -> Axis:
    """Return an axis with ticks at 1, 2 and 5 times the powers of ten."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [round(m * 10.0**k, 12) for k in powers for m in DECADE]
    ticks = tuple(v for v in every if low * (1 - 1e-9) <= v <= high * (1 + 1e-9))
    return Axis(name, low, high, ticks, "log", percent)

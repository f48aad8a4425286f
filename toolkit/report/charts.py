"""Histograms as small inline SVG, with their numbers as text: no script, no library."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from toolkit.report.words import plain

HEIGHT = 40
NICE = (1.0, 2.0, 2.5, 5.0, 10.0)
TICKS, PER_TICK = 4, 5  # about four ticks, so about twenty bars


@dataclass(frozen=True)
class Series:
    """Values under one name; `style` is a class of the page's style sheet."""

    name: str
    values: Sequence[float]
    style: str = "plain"


@dataclass(frozen=True, eq=False)
class Bars:
    """Counts in bins, and the line of numbers beside their name."""

    name: str
    counts: NDArray[np.int64]
    numbers: str
    style: str = "plain"


def histogram(title: str, unit: str, series: Sequence[Series], note: str = "") -> str:
    """Return a figure: one row of bars for each series over a shared axis; nothing where nothing has values.

    The axis ends at the 99.5th percentile; what lies beyond is counted in the last bar.
    """
    kept = [one for one in series if len(one.values)]
    if not kept:
        return ""
    edges = nice_edges(np.concatenate([np.asarray(one.values, np.float64) for one in kept]))
    rows = [Bars(one.name, count(one.values, edges), numbers(one.values), one.style) for one in kept]
    return figure(title, unit, rows, edges, note)


def nice_edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return bin edges, `PER_TICK` bins to each of a few ticks at round numbers."""
    low, high = float(values.min()), float(np.quantile(values, 0.995))
    tick = nice_step((high - low) / TICKS) if high > low else nice_step(max(abs(high), 1.0) / TICKS)
    first = math.floor(low / tick + 1e-9)
    last = max(first + 1, math.ceil(high / tick - 1e-9))
    return np.round(tick / PER_TICK * np.arange(first * PER_TICK, last * PER_TICK + 1), 9)


def nice_step(least: float) -> float:
    """Return 1, 2, 2.5 or 5 times a power of ten, not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in NICE if power * factor >= least * (1 - 1e-9))


def count(values: Sequence[float], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count values in half-open bins; what lies beyond the ends falls into the end bins."""
    bin_of = np.searchsorted(edges, np.asarray(values, np.float64) + 1e-9, side="right") - 1
    return np.bincount(np.clip(bin_of, 0, len(edges) - 2), minlength=len(edges) - 1)


def numbers(values: Sequence[float]) -> str:
    """Return count, median and the middle 90 % as text."""
    low, middle, high = np.quantile(np.asarray(values, np.float64), [0.05, 0.5, 0.95])
    return f"{len(values):,} · median {plain(middle)} ({plain(low)} to {plain(high)})"


def figure(title: str, unit: str, rows: Sequence[Bars], edges: NDArray[np.float64], note: str = "") -> str:
    """Return the figure of bars that are counted already; `PER_TICK` of them to a tick."""
    caption = escape(title) + (f' <span class="unit">{escape(unit)}</span>' if unit else "")
    body = "".join(_row(bars, edges, unit) for bars in rows)
    stops = edges[::PER_TICK]
    body += '<div class="axis">' + "".join(f"<span>{plain(float(v))}</span>" for v in stops) + "</div>"
    told = f'<p class="note">{escape(note)}</p>' if note else ""
    return f'<figure class="chart"><figcaption>{caption}</figcaption>{body}{told}</figure>'


def _row(bars: Bars, edges: NDArray[np.float64], unit: str) -> str:
    """Return one row: a name, its numbers, its bars; each bar tells its numbers when pointed at."""
    total, top = max(1, int(bars.counts.sum())), max(1, int(bars.counts.max()))
    drawn = []
    for k, number in enumerate(bars.counts.tolist()):
        ends = f"{plain(float(edges[k]))} to {plain(float(edges[k + 1]))}"
        told = f"{ends} {unit}: {number:,} ({100 * number / total:.1f} %)"
        height = max(1.0, HEIGHT * number / top) if number else 0.0
        drawn.append(
            f'<g><title>{escape(told)}</title><rect class="hit" x="{k}" width="1" height="{HEIGHT}"/>'
            f'<rect x="{k + 0.06:.2f}" y="{HEIGHT - height:.2f}" width="0.88" height="{height:.2f}"/></g>'
        )
    name = f'<b class="{bars.style}">{escape(bars.name)}</b> ' if bars.name else ""
    label = escape(f"{bars.name} {bars.numbers}".strip())
    return (
        f'<p class="numbers">{name}{escape(bars.numbers)}</p>'
        f'<svg class="bars {bars.style}" viewBox="0 0 {len(bars.counts)} {HEIGHT}" preserveAspectRatio="none"'
        f' role="img" aria-label="{label}">{"".join(drawn)}</svg>'
    )

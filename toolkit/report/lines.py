"""Line charts as inline SVG: lines with bands, steps, points, marks; values as text, no script.

Colours are classes of the style sheet and mean one thing on all of a page: ``model`` (also validation),
``other`` (training, a baseline), ``malignant``, ``benign``.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from toolkit.report.axes import Axis

WIDTH, HEIGHT = 340, 220
LEFT, RIGHT, TOP, BOTTOM = 38, 10, 10, 34
LETTER = 6.2  # of the axis' font, in units of the picture
MOST_HITS = 120
Numbers = Sequence[float]


@dataclass(frozen=True)
class Curve:
    """Points joined by lines; NaN parts them. `low` and `high` bound the band about it."""

    name: str
    x: Numbers
    y: Numbers
    style: str = "model"
    low: Numbers | None = None
    high: Numbers | None = None
    dashed: bool = False


@dataclass(frozen=True)
class Point:
    """One marked place, told when pointed at, with the cross of its intervals where given."""

    x: float
    y: float
    told: str
    style: str = "model"
    x_ends: tuple[float, float] | None = None
    y_ends: tuple[float, float] | None = None
    hollow: bool = False


@dataclass(frozen=True)
class Mark:
    """A vertical line with a word."""

    x: float
    told: str


@dataclass(frozen=True)
class Plot:
    """What one chart shows; `spans` are stretches of x that are shaded."""

    title: str
    x: Axis
    y: Axis
    curves: Sequence[Curve] = ()
    points: Sequence[Point] = ()
    marks: Sequence[Mark] = ()
    spans: Sequence[tuple[float, float]] = ()
    note: str = ""
    alt: str = ""


def plot(chart: Plot) -> str:
    """Return a figure; `note` and `alt` are plain text."""
    told = f'<p class="note">{escape(chart.note)}</p>' if chart.note else ""
    unit = f' <span class="unit">{escape(chart.y.name)}</span>' if chart.y.name else ""
    alt = f"{chart.title}. {chart.alt or _alt(chart)}"
    parts = [_spans(chart), _grid(chart), *(_band(chart, c) for c in chart.curves), _marks(chart)]
    parts += [*(_line(chart, c) for c in chart.curves), *(_point(chart, p) for p in chart.points)]
    parts += [_hits(chart), *(_reach(chart, p) for p in chart.points)]
    return (
        f'<figure class="chart"><figcaption>{escape(chart.title)}{unit}</figcaption>'
        f'<svg class="lines" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" tabindex="0" '
        f'aria-label="{escape(alt)}">'
        f"{''.join(parts)}</svg>{_legend(chart)}{told}</figure>"
    )


def _alt(chart: Plot) -> str:
    """Say what each curve does, for those who do not see it."""
    said = []
    for curve in chart.curves:
        known = [(x, y) for x, y in zip(curve.x, curve.y, strict=True) if math.isfinite(y)]
        if known:
            (x0, y0), (x1, y1) = known[0], known[-1]
            ends = f"{chart.y.tell(y0)} at {chart.x.tell(x0)}, {chart.y.tell(y1)} at {chart.x.tell(x1)}"
            said.append(f"{curve.name or chart.title}: {ends}")
    said += [point.told for point in chart.points]
    return "; ".join(said) or "nothing to show"


def _legend(chart: Plot) -> str:
    """Name the curves, where more than one has a name."""
    named = [curve for curve in chart.curves if curve.name]
    if len(named) < 2:
        return ""
    keys = "".join(
        f'<span><svg class="key" viewBox="0 0 18 8" aria-hidden="true"><path class="line {c.style}'
        f'{" dashed" if c.dashed else ""}" d="M0 4H18"/></svg>{escape(c.name)}</span>'
        for c in named
    )
    return f'<p class="legend">{keys}</p>'


def _at(chart: Plot, x: float, y: float) -> tuple[float, float]:
    across = LEFT + chart.x.place(x) * (WIDTH - LEFT - RIGHT)
    return across, TOP + (1 - chart.y.place(y)) * (HEIGHT - TOP - BOTTOM)


def _grid(chart: Plot) -> str:
    """Return grid lines, ticks and the names of the axes."""
    floor, parts = HEIGHT - BOTTOM, []
    for value in chart.y.ticks:
        _, y = _at(chart, chart.x.low, value)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(
            f'<text class="end" x="{LEFT - 5}" y="{y + 3.5:.1f}">{escape(chart.y.tell(value))}</text>'
        )
    free = 0.0
    for value in chart.x.ticks:
        x, _ = _at(chart, value, chart.y.low)
        text = chart.x.tell(value)
        half = len(text) * LETTER / 2
        x_text = min(max(x, half), WIDTH - half)
        parts.append(f'<path class="tick" d="M{x:.1f} {floor}v3"/>')
        if x_text - half >= free:
            parts.append(f'<text class="mid" x="{x_text:.1f}" y="{floor + 15}">{escape(text)}</text>')
            free = x_text + half + 4
    parts.append(f'<path class="floor" d="M{LEFT} {floor}H{WIDTH - RIGHT}"/>')
    if chart.x.name:
        parts.append(
            f'<text class="end name" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}">{escape(chart.x.name)}</text>'
        )
    return "".join(parts)


def _spans(chart: Plot) -> str:
    parts = []
    for low, high in chart.spans:
        (x0, _), (x1, _) = _at(chart, low, chart.y.low), _at(chart, high, chart.y.low)
        parts.append(
            f'<rect class="span" x="{x0:.1f}" y="{TOP}" width="{x1 - x0:.1f}" '
            f'height="{HEIGHT - TOP - BOTTOM}"/>'
        )
    return "".join(parts)


def _runs(chart: Plot, x: Numbers, *ys: Numbers) -> Iterable[list[tuple[float, ...]]]:
    """Split at undefined values, and yield rows of (x, y, ...) in units of the picture."""
    run: list[tuple[float, ...]] = []
    for row in zip(x, *ys, strict=True):
        if all(math.isfinite(value) for value in row):
            run.append((_at(chart, row[0], row[1])[0], *(_at(chart, row[0], y)[1] for y in row[1:])))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _band(chart: Plot, curve: Curve) -> str:
    if curve.low is None or curve.high is None:
        return ""
    parts = []
    for run in _runs(chart, curve.x, curve.low, curve.high):
        there = " ".join(f"{x:.1f} {low:.1f}" for x, low, _ in run)
        back = " ".join(f"{x:.1f} {high:.1f}" for x, _, high in reversed(run))
        parts.append(f'<path class="band {curve.style}" d="M{there} {back}Z"/>')
    return "".join(parts)


def _line(chart: Plot, curve: Curve) -> str:
    parts = []
    for run in _runs(chart, curve.x, curve.y):
        places = " ".join(f"{x:.1f} {y:.1f}" for x, y in run)
        style = f"line {curve.style}{' dashed' if curve.dashed else ''}"
        if len(run) == 1:
            parts.append(
                f'<circle class="dot {curve.style}" cx="{run[0][0]:.1f}" cy="{run[0][1]:.1f}" r="2"/>'
            )
        else:
            parts.append(f'<path class="{style}" d="M{places}"/>')
    return "".join(parts)


def _marks(chart: Plot) -> str:
    parts = []
    for mark in chart.marks:
        x, _ = _at(chart, mark.x, chart.y.low)
        side = "end" if x > WIDTH * 0.6 else ""
        shift = -4 if side else 4
        parts.append(
            f'<path class="mark" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"/>'
            f'<text class="{side}" x="{x + shift:.1f}" y="{HEIGHT - BOTTOM - 6}">{escape(mark.told)}</text>'
        )
    return "".join(parts)


def _point(chart: Plot, point: Point) -> str:
    """Return a point and its cross."""
    if not (math.isfinite(point.x) and math.isfinite(point.y)):
        return ""
    x, y = _at(chart, point.x, point.y)
    cross = ""
    if point.x_ends:
        (x0, _), (x1, _) = (_at(chart, end, point.y) for end in point.x_ends)
        cross += f"M{x0:.1f} {y:.1f}H{x1:.1f}"
    if point.y_ends:
        (_, y0), (_, y1) = (_at(chart, point.x, end) for end in point.y_ends)
        cross += f"M{x:.1f} {y0:.1f}V{y1:.1f}"
    drawn = f'<path class="cross {point.style}" d="{cross}"/>' if cross else ""
    kind = "ring" if point.hollow else "dot"
    return f'{drawn}<circle class="{kind} {point.style}" cx="{x:.1f}" cy="{y:.1f}" r="3.6"/>'


def _reach(chart: Plot, point: Point) -> str:
    """Return what tells a point when pointed at; above all else."""
    if not (math.isfinite(point.x) and math.isfinite(point.y)):
        return ""
    x, y = _at(chart, point.x, point.y)
    told = escape(point.told)
    return f'<g><title>{told}</title><circle class="hit" cx="{x:.1f}" cy="{y:.1f}" r="9"/></g>'


def _hits(chart: Plot) -> str:
    """Return upright strips that tell all values at their x, where the curves share their x."""
    curves = [c for c in chart.curves if len(c.x) > 1]
    if not curves:
        return ""
    x = list(curves[0].x)
    shared = [c for c in curves if list(c.x) == x]
    step = max(1, math.ceil(len(x) / MOST_HITS))
    places = [_at(chart, x[k], chart.y.low)[0] for k in range(0, len(x), step)]
    parts = []
    for n, k in enumerate(range(0, len(x), step)):
        before = places[n - 1] if n else 2 * places[0] - places[1]
        after = places[n + 1] if n + 1 < len(places) else 2 * places[-1] - places[-2]
        left, right = (before + places[n]) / 2, (places[n] + after) / 2
        if right <= left:
            continue
        head = f"{chart.x.name} {chart.x.tell(x[k])}".strip()
        told = "\n".join([head, *(_value(chart, c, k) for c in shared)])
        parts.append(
            f'<g><title>{escape(told)}</title><rect class="hit" x="{left:.1f}" y="{TOP}" '
            f'width="{right - left:.1f}" height="{HEIGHT - TOP - BOTTOM}"/></g>'
        )
    return "".join(parts)


def _value(chart: Plot, curve: Curve, k: int) -> str:
    value = chart.y.tell(curve.y[k]) if math.isfinite(curve.y[k]) else "not defined"
    if curve.low is not None and curve.high is not None and math.isfinite(curve.low[k]):
        value += f" ({chart.y.tell(curve.low[k])} to {chart.y.tell(curve.high[k])})"
    return f"{curve.name}: {value}" if curve.name else value

"""The chart of `benchmarks.waterfall`, as SVG: a bar a technique, drawn from the newest record that has one.

Plain attributes and a background of its own: a page that strips styles, and one that is dark, show it alike.
"""

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

PREFIX = "waterfall/"
WIDTH, LEFT, RIGHT, ROW, BAR, TOP, SIDE = 920, 366, 756, 30, 16, 84, 16
FONT, SMALL, PER_CHARACTER = 13, 11, 0.62  # of the size: what a character of a sans-serif takes at most
PAPER, INK, FAINT, STEP, WAIT, SLOWER = "#ffffff", "#1f2328", "#59636e", "#1f5fa8", "#a8c8ea", "#c2570c"
DEVIATION = 1.01  # a bar that is so much longer than the one before is slower, not noise of a pixel


@dataclass(frozen=True)
class Bar:
    """A state: milliseconds a sample fed and on a resident batch, rate, and what it gained."""

    title: str
    ms: float
    resident_ms: float
    rate: float
    gain: float | None
    ours: bool


def newest(results: Sequence[Path]) -> tuple[list[dict[str, Any]], str]:
    """Return the lines of the last waterfall in the last file (by date) that has one, and the file's name."""
    for path in sorted(results, key=lambda path: (path.stem.split("_")[1], path.stem), reverse=True):
        found: list[dict[str, Any]] = []
        for row in map(json.loads, path.read_text("utf-8").splitlines()):
            if row["name"].startswith(PREFIX) or row["name"].startswith("waterfall.ratio/"):
                found = [row] if row["name"] == f"{PREFIX}plain" else [*found, row]
        if found:
            return found, path.name
    return [], ""


def bars(rows: Sequence[Mapping[str, Any]]) -> list[Bar]:
    """Return the bars in order; gains are the medians of ratios within a turn."""
    by_name = {row["name"]: row for row in rows}
    found = []
    for name, row in by_name.items():
        alone = by_name.get(f"{name}, resident")
        if not name.startswith(PREFIX) or alone is None:
            continue
        config = row["config"]
        ratio = by_name.get(f"waterfall.ratio/{name.removeprefix(PREFIX)} / {config['before']}")
        gain = None if ratio is None else float(ratio["value"])
        ms = 1000 / row["value"]
        found.append(
            Bar(config["title"], ms, min(ms, 1000 / alone["value"]), row["value"], gain, config["ours"])
        )
    return found


def draw(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the chart of a waterfall's lines."""
    made, first = bars(rows), rows[0]
    longest = max(bar.ms for bar in made)
    notes = _notes(first)
    height = TOP + ROW * len(made) + 14 + 15 * len(notes) + 10
    what = f"The training step, a technique at a time: {first['device']}"
    parts = [
        f'<rect width="{WIDTH}" height="{height}" rx="6" fill="{PAPER}" stroke="#d1d9e0"/>',
        _text(SIDE, 28, what, 16, weight="bold"),
        _text(SIDE, 48, first["note"], SMALL, FAINT),
        *_legend(),
    ]
    before: Bar | None = None
    for number, bar in enumerate(made):
        parts += _row(TOP + ROW * number, bar, before, (RIGHT - LEFT) / longest)
        before = bar
    end = TOP + ROW * len(made) + 22
    parts += [_text(SIDE, end + 15 * k, each, SMALL, FAINT) for k, each in enumerate(notes)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" aria-labelledby="title desc" font-family="sans-serif">\n'
        f'<title id="title">{escape(what)}</title>\n<desc id="desc">{escape(describe(made))}</desc>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def describe(made: Sequence[Bar]) -> str:
    """Return the chart in words."""
    return "; ".join(
        f"{bar.title}: {_number(bar.rate)} samples/s{'' if bar.gain is None else f', {bar.gain:.2f} times'}"
        for bar in made
    )


def _row(y: int, bar: Bar, before: Bar | None, scale: float) -> list[str]:
    """Return a technique's name, its bar, and its numbers; what it took away is outlined."""
    end, alone, middle = scale * bar.ms, scale * bar.resident_ms, y + BAR - 4
    found = [
        _text(SIDE, middle, f"{bar.title}{'' if bar.ours or before is None else ' *'}"),
        _rect(LEFT, y, alone, STEP),
        _rect(LEFT + alone, y, end - alone, WAIT),
    ]
    if before is not None:
        was, slower = scale * before.ms, bar.ms > DEVIATION * before.ms
        if slower:
            found.append(_rect(LEFT + was, y, end - was, SLOWER))
        else:
            outline = f'fill="none" stroke="{FAINT}" stroke-dasharray="3 3"'
            found.append(
                f'<rect x="{LEFT + end:.1f}" y="{y + 0.5}" width="{max(0.0, was - end):.1f}" '
                f'height="{BAR - 1}" {outline}/>'
            )
    told = f"{_number(bar.rate)} samples/s"
    gain = "" if bar.gain is None else f"{bar.gain:.2f}x"
    colour = SLOWER if bar.gain is not None and bar.gain < 1 / DEVIATION else INK
    return [
        *found,
        _text(WIDTH - 58, middle, told, anchor="end"),
        _text(WIDTH - SIDE, middle, gain, colour=colour, anchor="end"),
    ]


def _legend() -> list[str]:
    y = 58
    found, x = [], float(SIDE)
    for colour, what in (
        (STEP, "the step on a resident batch"),
        (WAIT, "waiting for data"),
        (SLOWER, "slower than before"),
    ):
        found += [_rect(x, y + 1, 10, colour, 10), _text(x + 15, y + 10, what, SMALL, FAINT)]
        x += 15 + 20 + PER_CHARACTER * SMALL * len(what)
    return [*found, _text(x, y + 10, "bars: time a sample; x: as many times the rate above", SMALL, FAINT)]


def _notes(first: Mapping[str, Any]) -> list[str]:
    """Return what stands below: versions, what was left out, and what the asterisk means."""
    versions = first["versions"]
    known = [f"{name} {versions[name]}" for name in ("torch", "monai") if name in versions]
    when = f"commit {first['commit'][:10]}, {first['date']}"
    about = [f"{', '.join(known)}; {when}; * not what toolkit train does by itself"]
    left = first["config"].get("left_out") or {}
    if left:
        about.append("Left out: " + "; ".join(f"{name} ({why})" for name, why in left.items()))
    most = int((WIDTH - 2 * SIDE) / (PER_CHARACTER * SMALL))
    return [each for text in about for each in textwrap.wrap(text, most)]


def _text(
    x: float,
    y: float,
    text: str,
    size: int = FONT,
    colour: str = INK,
    *,
    anchor: str = "start",
    weight: str = "normal",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )


def _rect(x: float, y: float, width: float, colour: str, height: float = BAR) -> str:
    return f'<rect x="{x:.1f}" y="{y}" width="{max(0.0, width):.1f}" height="{height}" fill="{colour}"/>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"

"""Line charts: where things are drawn, read back from the SVG and put through the axes the other way."""

import math
import re
from xml.etree import ElementTree

import pytest

from toolkit.report.axes import Axis, counted, fitted, logarithmic, share
from toolkit.report.lines import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Curve, Mark, Plot, Point, plot

PIXEL = 0.06  # coordinates are rounded to a tenth


def drawn(chart: Plot) -> ElementTree.Element:
    return ElementTree.fromstring(plot(chart))


def paths(figure: ElementTree.Element, kind: str) -> list[list[tuple[float, float]]]:
    """Places of all paths of a kind, in units of the picture; the key of the legend is none."""
    picture = next(e for e in figure.iter("svg") if e.get("class") == "lines")
    found = []
    for element in picture.iter("path"):
        if kind in element.get("class", "").split():
            numbers = [float(n) for n in re.findall(r"-?[\d.]+", element.get("d", ""))]
            found.append(list(zip(numbers[::2], numbers[1::2], strict=True)))
    return found


def told(figure: ElementTree.Element) -> list[str]:
    return [e.text or "" for e in figure.iter("title")]


def test_a_line_stands_where_its_values_are() -> None:
    x, y = [0.0, 1.0, 4.0, 10.0], [0.2, 0.9, 0.0, 1.0]
    chart = Plot("t", Axis("x", 0, 10, (0, 10)), share(""), [Curve("a", x, y)])
    (line,) = paths(drawn(chart), "line")
    for (px, py), a, b in zip(line, x, y, strict=True):
        assert (px - LEFT) / (WIDTH - LEFT - RIGHT) * 10 == pytest.approx(a, abs=10 * PIXEL / WIDTH * 2)
        assert 1 - (py - TOP) / (HEIGHT - TOP - BOTTOM) == pytest.approx(b, abs=PIXEL / HEIGHT * 2)


def test_undefined_values_part_a_line_and_its_band() -> None:
    nan = math.nan
    y = [0.1, 0.2, nan, 0.4, 0.5, 0.6, nan, 0.8]
    low, high = [v - 0.05 for v in y], [v + 0.05 for v in y]
    figure = drawn(
        Plot("t", counted("epoch", 8), share(""), [Curve("a", range(1, 9), y, low=low, high=high)])
    )
    assert [len(line) for line in paths(figure, "line")] == [2, 3]
    assert [len(band) for band in paths(figure, "band")] == [4, 6, 2]
    assert len([e for e in figure.iter("circle") if "dot" in e.get("class", "")]) == 1  # the lonely last one
    assert "a: not defined" in told(figure)[2]
    assert told(figure)[3] == "epoch 4\na: 0.4 (0.35 to 0.45)"


def test_a_band_encloses_its_line() -> None:
    y = [0.3, 0.5, 0.4]
    curve = Curve("a", [1, 2, 3], y, low=[0.2, 0.4, 0.3], high=[0.4, 0.6, 0.5])
    figure = drawn(Plot("t", counted("", 3), share(""), [curve]))
    (band,), (line,) = paths(figure, "band"), paths(figure, "line")
    lower, upper = band[:3], band[:2:-1]
    for (x, y_line), (x0, y0), (x1, y1) in zip(line, lower, upper, strict=True):
        assert x == x0 == x1
        assert y1 < y_line < y0  # downwards


def test_what_lies_beyond_an_axis_is_held_at_its_end() -> None:
    axis = Axis("", 0, 1, (0, 1))
    assert [axis.place(v) for v in (-3.0, 0.0, 0.25, 1.0, 7.0)] == [0, 0, 0.25, 1, 1]
    log = logarithmic("", 0.01, 1.0)
    assert [log.place(v) for v in (0.001, 0.01, 0.1, 1.0)] == pytest.approx([0, 0, 0.5, 1])


@pytest.mark.parametrize(
    ("values", "floor", "ticks"),
    [
        ([0.13, 0.58], 0.0, (0, 0.2, 0.4, 0.6)),
        ([-1.7, 0.8], None, (-2, -1, 0, 1)),
        ([0.84, 0.93, math.nan], None, (0.825, 0.85, 0.875, 0.9, 0.925, 0.95)),
        ([], None, (0, 0.25, 0.5, 0.75, 1)),
    ],
)
def test_ticks_are_round_and_hold_all(
    values: list[float], floor: float | None, ticks: tuple[float, ...]
) -> None:
    axis = fitted("", values, floor=floor)
    assert axis.ticks == pytest.approx(ticks)
    assert (axis.low, axis.high) == (axis.ticks[0], axis.ticks[-1])


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0, 1e-9, 1e6])
def test_one_value_has_an_axis(value: float) -> None:
    axis = fitted("", [value, value])
    assert axis.low <= value <= axis.high
    assert axis.low < axis.high


def test_whole_numbers_and_decades() -> None:
    assert counted("", 30).ticks == (1, 10, 20, 30)
    assert counted("", 1).ticks == (1,)
    assert logarithmic("", 0.005, 0.5).ticks == pytest.approx((0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5))
    assert logarithmic("", 0.005, 0.5, percent=True).tell(0.005) == "0.5 %"


def test_points_tell_themselves_and_stand_on_their_cross() -> None:
    point = Point(0.25, 0.75, "here", x_ends=(0.1, 0.4), y_ends=(0.6, 0.9))
    figure = drawn(Plot("t", share(""), share(""), points=[point, Point(math.nan, 0.1, "nowhere")]))
    assert told(figure) == ["here"]
    dot = next(e for e in figure.iter("circle") if "dot" in e.get("class", ""))
    wide = WIDTH - LEFT - RIGHT
    assert float(dot.get("cx", "")) == pytest.approx(LEFT + 0.25 * wide, abs=PIXEL)
    cross = next(e for e in figure.iter("path") if "cross" in e.get("class", ""))
    assert cross.get("d", "").startswith(f"M{LEFT + 0.1 * wide:.1f} ")


def test_text_is_escaped_and_names_are_in_the_legend() -> None:
    evil = '<script>alert(1)</script>&"'
    curves = [Curve(evil, [1, 2], [0, 1]), Curve("b", [1, 2], [1, 0])]
    chart = Plot(evil, counted(evil, 2), share(evil), curves, marks=[Mark(1, evil)], note=evil, alt=evil)
    html = plot(chart)
    assert "<script" not in html
    figure = ElementTree.fromstring(html)
    assert ["".join(s.itertext()) for s in figure.iter("span")] == [
        evil,
        evil,
        "b",
    ]  # of the axis, then the legend
    assert next(e for e in figure.iter("svg")).get("aria-label", "").startswith(evil)


def test_every_chart_can_be_reached_and_says_what_it_shows() -> None:
    figure = drawn(Plot("AUROC", counted("epoch", 3), share(""), [Curve("val", [1, 2, 3], [0.5, 0.7, 0.8])]))
    svg = next(figure.iter("svg"))
    assert (svg.get("tabindex"), svg.get("role")) == ("0", "img")
    assert svg.get("aria-label") == "AUROC. val: 0.5 at 1, 0.8 at 3"

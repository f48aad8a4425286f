"""Histograms: every value is in one bar, ticks are round, numbers are text."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.evaluation.results import Interval
from toolkit.report.charts import Series, count, histogram, nice_edges, nice_step, numbers
from toolkit.report.words import (
    chance,
    fixed,
    percent,
    plain,
    plural,
    prose,
    ranged,
    ranged_percent,
    sentence,
    size,
)

VALUES = st.lists(st.floats(-1e4, 1e6).map(lambda v: round(v, 3)), min_size=1, max_size=60)


@given(VALUES)
def test_every_value_is_counted_once(values) -> None:
    edges = nice_edges(np.array(values))
    counts = count(values, edges)
    assert counts.sum() == len(values)
    assert len(counts) == len(edges) - 1 <= 40
    assert edges[0] <= min(values) + 1e-6
    assert (np.diff(edges) > 0).all()


def test_bins_are_half_open() -> None:
    np.testing.assert_array_equal(count([0, 0.999, 1, 2.5, 3, 99], np.array([0.0, 1, 2, 3])), [2, 1, 3])


@pytest.mark.parametrize(
    ("least", "step"), [(0.9, 1), (1, 1), (1.01, 2), (2.2, 2.5), (3, 5), (7, 10), (0.03, 0.05)]
)
def test_steps_are_round(least: float, step: float) -> None:
    assert nice_step(least) == pytest.approx(step)


def test_a_histogram_is_sound_markup_and_tells_its_numbers() -> None:
    html = histogram("A & <b>", "mm", [Series("one", [1, 2, 3, 4]), Series("absent", [])], "Said.")
    root = ET.fromstring(html)  # well-formed
    assert "".join(root.find("figcaption").itertext()) == "A & <b> mm"
    bars = [g.find("title").text for g in root.iter("g")]
    assert next(t for t in bars if ": 1 (25.0 %)" in t).startswith("1 to 1.2 mm")
    assert "4 · median 2.5 (1.15 to 3.85)" in html
    assert "absent" not in html
    heights = [float(rect.get("height")) for rect in root.iter("rect") if rect.get("class") is None]
    assert sorted({*heights}) == [0, 40]
    assert histogram("A", "mm", [Series("none", [])]) == ""


def test_numbers_of_one_value() -> None:
    assert numbers([3.0]) == "1 · median 3 (3 to 3)"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (-0.0, "0"), (0.004, "0"), (0.0123, "0.012"), (0.5, "0.5"), (12.345, "12.3"), (999.6, "1,000"),
     (1234.5, "1,234"), (-250.4, "-250"), (100, "100")],
)  # fmt: skip
def test_numbers_are_plain(value: float, text: str) -> None:
    assert plain(value) == text


def test_words() -> None:
    assert (percent(0.1234, 1), percent(1.0)) == ("12.3 %", "100 %")
    assert (plural(1, "case"), plural(1200, "case")) == ("1 case", "1,200 cases")
    assert (size(2_500_000), size(3_210_000_000), size(99_900)) == ("2.5 MB", "3.21 GB", "99.9 kB")
    assert (sentence("multi-frame CT"), sentence("")) == ("Multi-frame CT", "")


def test_estimates_carry_their_interval() -> None:
    nan = float("nan")
    assert ranged(Interval(0.874, 0.8249, 0.911)) == "0.87 (0.82 to 0.91)"
    assert ranged(Interval(-0.013, -0.06, 0.001)) == "\u22120.01 (\u22120.06 to 0.00)"
    assert ranged_percent(Interval(0.874, 0.8249, 0.911)) == "87 % (82 to 91)"
    assert (ranged(Interval(nan, nan, nan)), ranged_percent(Interval(0.5, nan, nan))) == (
        "not defined",
        "50 %",
    )
    assert (fixed(-0.001), fixed(-1234.5, 1), fixed(nan)) == ("0.00", "\u22121,234.5", "not defined")


def test_no_chance_is_rounded_to_certainty() -> None:
    assert [chance(p) for p in (0.0, 4e-4, 5e-4, 0.1234, 0.9994, 0.9995, 1.0)] == [
        "below 0.1 %", "below 0.1 %", "0.1 %", "12.3 %", "99.9 %", "above 99.9 %", "above 99.9 %",
    ]  # fmt: skip


def test_prose_is_escaped_and_keeps_commands() -> None:
    told = prose("Recall <b> fell by -0.2, 5 % of `run --set a=-1 <x>`, sub-2 mm")
    assert told == (
        "Recall &lt;b&gt; fell by \u22120.2, 5\u00a0% of <code>run --set a=-1 &lt;x&gt;</code>, sub-2 mm"
    )

"""The chart of the waterfall: its bars are its record's, its text is whole, and it needs no style sheet."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import waterfall_chart as chart
from benchmarks.waterfall import TECHNIQUES

SVG = "{http://www.w3.org/2000/svg}"
MEASURED = (400, 420, 600, 590, 900, 940, 1500, 1490, 2900, 2800, 3100, 4000)
RATES = dict(zip((each.name for each in TECHNIQUES), MEASURED, strict=True))


def rows(rates: dict[str, float] = RATES) -> list[dict[str, Any]]:
    """A record as a GPU with everything would write it."""
    about = {
        "device": "NVIDIA H200", "commit": "0123456789", "date": "2026-01-02",
        "versions": {"torch": "2.13.0", "monai": "1.6.1"}, "unit": "samples/s",
        "note": "densenet121, 64^3, batch 32, 16 workers of the DataLoader, TF32 convolutions",
    }  # fmt: skip
    found, before = [], ""
    for each in TECHNIQUES:
        if each.name not in rates:
            continue
        config = {"title": each.title, "before": before, "ours": each.ours}
        if not before:
            config["left_out"] = {t.name: "there is no GPU" for t in TECHNIQUES if t.name not in rates}
        rate = rates[each.name]
        found.append({**about, "name": f"waterfall/{each.name}", "value": rate, "config": config})
        alone = {"name": f"waterfall/{each.name}, resident", "value": 1.25 * rate}
        found.append({**about, "config": config, **alone})
        if before:
            ratio = {"name": f"waterfall.ratio/{each.name} / {before}", "value": rate / rates[before]}
            found.append({**about, "config": {}, **ratio})
        before = each.name
    return found


def test_bars_are_times_and_gains_are_ratios() -> None:
    made = chart.bars(rows())
    assert [bar.rate for bar in made] == [*RATES.values()]
    assert made[0].gain is None
    assert made[2].gain == pytest.approx(600 / 420)
    assert all(bar.ms == pytest.approx(1.25 * bar.resident_ms) for bar in made)


def test_lengths_are_in_proportion_and_what_is_slower_is_marked() -> None:
    picture = ElementTree.fromstring(chart.draw(rows()))
    steps, waits, slower = (
        [each for each in picture.iter(f"{SVG}rect") if each.get("fill") == colour][1:]  # the legend's first
        for colour in (chart.STEP, chart.WAIT, chart.SLOWER)
    )
    lengths = [float(a.get("width", 0)) + float(b.get("width", 0)) for a, b in zip(steps, waits, strict=True)]
    assert lengths == pytest.approx([lengths[0] * 400 / rate for rate in RATES.values()], abs=0.11)
    assert lengths[0] == pytest.approx(chart.RIGHT - chart.LEFT, abs=0.11)
    assert len(slower) == 2  # autotune and guards; max-autotune is within a hundredth


@pytest.mark.parametrize("rates", [RATES, {k: RATES[k] / 400 * 9.3 for k in ("plain", "network", "guards")}])
def test_no_text_is_cut_and_nothing_needs_a_style(rates: dict[str, float]) -> None:
    text = chart.draw(rows(rates))
    assert not re.search(r"<style|<script|class=|style=|href", text)
    picture = ElementTree.fromstring(text)
    assert picture.find(f"{SVG}title") is not None
    assert "plain MONAI script" in (picture.findtext(f"{SVG}desc") or "")
    background = next(picture.iter(f"{SVG}rect"))
    assert [background.get(key) for key in ("width", "height")] == [
        picture.get(key) for key in ("width", "height")
    ]
    spans: dict[str, list[tuple[float, float]]] = {}
    for each in picture.iter(f"{SVG}text"):
        width = chart.PER_CHARACTER * float(each.get("font-size", 0)) * len(each.text or "")
        begin = float(each.get("x", 0)) - (width if each.get("text-anchor") == "end" else 0)
        assert begin >= 0
        assert begin + width <= chart.WIDTH
        assert float(each.get("y", 0)) <= float(picture.get("height", 0)) - 4
        spans.setdefault(each.get("y", ""), []).append((begin, begin + width))
    for line in spans.values():
        line.sort()
        assert all(a[1] <= b[0] for a, b in pairwise(line))
    for each in chart.bars(rows(rates)):
        width = chart.PER_CHARACTER * chart.FONT * len(each.title + " *")
        assert chart.SIDE + width <= chart.LEFT, each.title


def test_the_last_run_of_the_newest_file_counts(tmp_path: Path) -> None:
    old, new, other = (tmp_path / f"gpu_2026-01-0{day}_abc.jsonl" for day in (1, 2, 3))
    old.write_text("\n".join(map(json.dumps, rows())))
    twice = [*rows(), *rows({"plain": 100, "network": 110})]
    new.write_text("\n".join(map(json.dumps, twice)))
    other.write_text(json.dumps({"name": "read/whole", "value": 1}))
    found, name = chart.newest([other, old, new])
    assert name == new.name
    assert [bar.rate for bar in chart.bars(found)] == [100, 110]
    assert chart.newest([other]) == ([], "")

"""The README's tables and its chart are what the newest results say."""

from benchmarks.readme import ROOT, chart, drawn, render


def test_the_tables_are_fresh() -> None:
    text = (ROOT / "README.md").read_text()
    assert render(text) == text


def test_the_chart_is_fresh() -> None:
    assert drawn() == chart()[1]

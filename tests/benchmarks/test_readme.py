"""The README's table is what the newest results say."""

from benchmarks.readme import ROOT, render


def test_the_table_is_fresh() -> None:
    text = (ROOT / "README.md").read_text()
    assert render(text) == text

"""How ``toolkit bench`` shows figures, advice and comparisons."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from toolkit.bench.compare import Comparison
    from toolkit.bench.run import Report

WIDE = 160


def show_report(report: "Report") -> None:
    """Print one table of all figures, and the recommendations below."""
    from rich.table import Table
    from rich.text import Text

    table = Table("figure", box=None)
    for title in ("median", "unit", "p20", "p80", "n", "of the ceiling"):
        table.add_column(title, justify="left" if title == "unit" else "right")
    for each in report.figures:
        share = "" if each.share is None else f"{each.share:.0f} % of {each.ceiling.partition('/')[2]}"
        numbers = (_number(each.p20), _number(each.p80)) if each.n > 1 else ("", "")
        row = (each.name, _number(each.p50), each.unit, *numbers, str(each.n), share)
        table.add_row(*(Text(cell) for cell in row))
    console = _console()
    console.print(table)
    for told in report.advice:
        what = told.flag or (f"{told.key}: as it is" if told.key else "note")
        console.print(f"{what}: {told.why}")


def show_comparison(found: "Comparison") -> None:
    """Print one table of what both records have, what changed first by name, and what they do not share."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("figure", "A", "B", "unit", "B / A", "noise", "verdict", box=None)
    for each in found.changes:
        a, b = _number(each.a.p50), _number(each.b.p50)
        row = (each.name, a, b, each.a.unit, f"{each.ratio:.3f}", f"{100 * each.band:.0f} %", each.verdict)
        table.add_row(*(Text(cell, style="" if each.verdict == "same" else "bold") for cell in row))
    _console().print(table)
    talk = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    for side, names in (("A", found.only_a), ("B", found.only_b)):
        if names:
            talk.print(f"only in {side}: {', '.join(names)}")
    for difference in found.contexts:
        talk.print(f"not the same machine: {difference}")


def _console() -> "Console":
    """Return where tables go; as wide as they need to be where no terminal says how wide it is."""
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False, markup=False)
    return (
        console if console.is_terminal else Console(soft_wrap=True, highlight=False, markup=False, width=WIDE)
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"

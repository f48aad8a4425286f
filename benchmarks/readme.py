"""Writes the README's table of speeds from the newest results: ``python -m benchmarks.readme [--check]``."""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEGIN = "<!-- speed: made by python -m benchmarks.readme -->\n"
END = "<!-- end of speed -->"


def newest() -> Path | None:
    """Return the newest file of results by its date, then by its name."""
    files = sorted(
        (ROOT / "benchmarks" / "results").glob("*.jsonl"), key=lambda p: (p.stem.split("_")[1], p.stem)
    )
    return files[-1] if files else None


def table(results: Path) -> str:
    """Return the figures of a file of results as Markdown."""
    rows = [json.loads(row) for row in results.read_text().splitlines()]
    about = rows[-1]
    versions = ", ".join(
        f"{name} {number}" for name, number in about["versions"].items() if name != "toolkit"
    )
    lines = [
        f"{about['cores']} cores of {about['cpu']}, {about['date']}, commit {about['commit'][:10]};",
        f"{versions}.",
        "Median, with the 20th and 80th percentile. Each comparison ran side by side in one run.",
        "",
        "| figure | median | p20 - p80 | n | note |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        spread = f"{row['p20']:.3g} - {row['p80']:.3g}"
        lines.append(
            f"| {row['name']} | {row['value']:.3g} {row['unit']} | {spread} | {row['n']} | {row['note']} |"
        )
    return "\n".join(lines) + "\n"


def render(text: str) -> str:
    """Return the README with a fresh table."""
    before, rest = text.split(BEGIN)
    after = rest.split(END, 1)[1]
    results = newest()
    return f"{before}{BEGIN}{table(results) if results else ''}{END}{after}"


def main() -> int:
    """Write the table, or check that it is fresh."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    readme = ROOT / "README.md"
    old = readme.read_text()
    new = render(old)
    if check:
        print(
            "README is fresh" if new == old else "README is stale: run python -m benchmarks.readme",
            file=sys.stderr,
        )
        return int(new != old)
    readme.write_text(new)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

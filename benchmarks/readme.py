"""Writes the README's table of speeds from the newest results: ``python -m benchmarks.readme [--check]``."""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEGIN = "<!-- speed: made by python -m benchmarks.readme -->\n"
END = "<!-- end of speed -->"
SHOWN = {
    "preprocess/toolkit-first/rate": "`toolkit preprocess`, first run",
    "preprocess/toolkit-second/rate": "`toolkit preprocess`, second run: other spacing, other store",
    "preprocess/sitk-series/rate": "SimpleITK: series reader, resample of the region",
    "preprocess/sitk-slices/rate": "SimpleITK given only the needed slices",
    "preprocess/ratio/toolkit-first / sitk-series": "first run against SimpleITK",
    "preprocess/ratio/toolkit-second / sitk-series": "second run against SimpleITK",
    "preprocess/ratio/toolkit-first / sitk-slices": "first run against SimpleITK given the slices",
    "preprocess/ratio/toolkit-second / sitk-slices": "second run against SimpleITK given the slices",
    "preprocess/ratio/toolkit-first / monai": "first run against MONAI (load, Spacing, crop)",
    "preprocess/ratio/toolkit-second / monai": "second run against MONAI (load, Spacing, crop)",
    "preprocess/toolkit-first/start-up": "start-up, worker pool included",
    "preprocess/toolkit-first/peak-rss-worker": "peak memory of a worker",
    "kernel/0.6mm/ratio/sitk-image / toolkit-image": "kernel, equal output: image, against SimpleITK",
    "kernel/0.6mm/ratio/sitk-image+mask / toolkit-image+mask": "kernel, equal output: image and mask",
    "kernel/1.0mm/ratio/sitk-image / toolkit-image": "kernel, 1 mm (ours filters, SimpleITK does not): image",
    "kernel/0.6mm-oblique/ratio/sitk-image / toolkit-image": "kernel, oblique, equal output: image",
}


def newest() -> Path | None:
    """Return the newest file of results by its date, then by its name."""
    files = (ROOT / "benchmarks" / "results").glob("*.jsonl")
    return max(files, key=lambda path: (path.stem.split("_")[1], path.stem), default=None)


def table(results: Path) -> str:
    """Return the figures of a file of results as Markdown."""
    rows = {row["name"]: row for row in map(json.loads, results.read_text().splitlines())}
    about = next(iter(rows.values()))
    versions = ", ".join(
        f"{name} {number}" for name, number in about["versions"].items() if name != "toolkit"
    )
    lines = [
        f"{about['cores']} cores of {about['cpu']}, {about['date']}, commit {about['commit'][:10]};",
        f"{versions}.",
        "Median of measurements taken in turn in one run, warm page cache, two processes a side (the kernel",
        f"on one thread). All figures, losses too: `benchmarks/results/{results.name}`.",
        "",
        "| what | median | p20 to p80 | n |",
        "|---|---|---|---|",
    ]
    for name, label in SHOWN.items():
        row = rows[name]
        spread = f"{row['p20']:.3g} to {row['p80']:.3g}" if row["n"] > 1 else ""
        lines.append(f"| {label} | {row['value']:.3g} {row['unit']} | {spread} | {row['n']} |")
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
        said = "fresh" if new == old else "stale: run python -m benchmarks.readme"
        print(f"README is {said}", file=sys.stderr)
        return int(new != old)
    readme.write_text(new)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

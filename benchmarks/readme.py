"""Writes the README's tables and chart from the newest results: ``python -m benchmarks.readme [--check]``."""

import argparse
import json
import sys
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from benchmarks import waterfall_chart
from benchmarks.readme_reliability import tables as reliability_tables

ROOT = Path(__file__).parents[1]
CHART = ROOT / "benchmarks" / "waterfall.svg"
CHART_BEGIN = "<!-- waterfall: made by python -m benchmarks.readme -->\n"
CHART_END = "<!-- end of waterfall -->"
BEGIN = "<!-- speed: made by python -m benchmarks.readme -->\n"
END = "<!-- end of speed -->"
BALANCE_BEGIN = "<!-- balance: made by python -m benchmarks.readme -->\n"
BALANCE_END = "<!-- end of balance -->"
BALANCE = {
    "AUROC": "AUROC",
    "recall at 0.5": "recall at 0.5",
    "specificity at 0.5": "specificity at 0.5",
    "intercept, raw": "calibration intercept, raw",
    "Brier, raw": "Brier score, raw",
    "Brier, calibrated": "calibrated",
    "recall, frozen": "recall at the frozen threshold",
}
RELIABILITY_BEGIN = "<!-- reliability: made by python -m benchmarks.readme -->\n"
RELIABILITY_END = "<!-- end of reliability -->"
REAL_BEGIN = "<!-- real: made by python -m benchmarks.readme -->\n"
REAL_END = "<!-- end of real -->"
REAL = {
    "toolkit": "`toolkit train`, `benchmarks/configs/lidc134.toml`",
    "monai": "plain MONAI DenseNet-121 script",
    "diameter": "diameter alone",
    "toolkit - diameter": "difference: toolkit - diameter",
    "monai - toolkit": "difference: MONAI - toolkit",
}
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
    "kernel/0.6mm/ratio/volresample-grid_sample-image / toolkit-image": "against volresample, grid_sample",
    "kernel/0.6mm-oblique/ratio/volresample-grid_sample-image / toolkit-image": (
        "kernel, oblique, equal output: image, against volresample"
    ),
    "augment/plain/fused": "augmentation, 64^3: warp, window, gain, bias",
    "augment/noise/fused": "augmentation with noise",
    "augment/elastic/fused": "augmentation, elastic",
    "augment/plain/ratio/fused / dali": "against DALI's CPU pipeline, the same patches",
    "augment/plain/ratio/fused / torch": "against torch affine_grid + grid_sample, the same patches",
    "augment/plain/ratio/fused / monai": "against MONAI Affine without metadata, the same patches",
    "augment/plain/ratio/fused / torchio": "against TorchIO's affine and crop",
    "augment/plain/ratio/fused / kornia": "against Kornia's warp_affine3d, the same patches",
    "augment/plain/ratio/fused / batchaug": "against BatchAug's RandAffine and crop, the same patches",
    "step/toolkit eager float32": "training step of DenseNet-121, 64^3, batch 8, float32",
    "step.ratio/toolkit eager float32 / monai eager float32": "against a plain script with MONAI's network",
    "step.ratio/loader / fastest step": "batches the loader makes for each that the step takes",
    "luna25/toolkit/train": "from files to trained-on samples, DenseNet-121, 64^3; after preprocessing",
    "luna25/toolkit/once": "what runs once for that: `toolkit preprocess`, start-up included",
    "luna25/ratio/loader/toolkit / scans": "its loader against LUNA25's recipe on whole scans",
    "luna25/ratio/loader/toolkit / blocks": "its loader against LUNA25's recipe on blocks cut once",
    "luna25/ratio/train/toolkit / scans": "a later epoch against the recipe on whole scans",
    "luna25/ratio/train/toolkit / blocks": "a later epoch against the recipe on blocks",
    "luna25/ratio/1-epochs/toolkit / scans": "one epoch, preprocessing included, against whole scans",
    "luna25/ratio/10-epochs/toolkit / scans": "ten epochs, preprocessing included, against whole scans",
    "luna25/ratio/10-epochs/toolkit / blocks": "ten epochs, with what runs once, against blocks",
}


def results() -> list[Path]:
    """Return all files of timings and scores, oldest first; a letter behind a date is a later one."""
    found = (ROOT / "benchmarks" / "results").glob("*.jsonl")
    return sorted((path for path in found if not path.name.startswith("reliability_")), key=_when)


def _when(path: Path) -> tuple[str, str]:
    return path.stem.split("_")[1], path.stem


def newest(kind: str, only: Container[str] | None = None) -> dict[str, dict[str, Any]]:
    """Return the latest rows of a kind by name, all of the device that was measured last for it."""
    found: dict[str, dict[str, Any]] = {}
    for path in results():
        here = path.stem.split("_")[0]
        for row in map(json.loads, path.read_text().splitlines()):
            if _kind(row["name"]) == kind and (only is None or row["name"] in only):
                if found and here != next(iter(found.values()))["here"]:
                    found = {}
                found[row["name"]] = {**row, "file": path.name, "here": here}
    return found


def _kind(name: str) -> str:
    return name.split("/")[0].split(".")[0]


def table() -> str:
    """Return the figures of speed as Markdown, a table a device."""
    rows: dict[str, dict[str, Any]] = {}
    for kind in dict.fromkeys(map(_kind, SHOWN)):
        rows |= newest(kind, SHOWN)
    shown = [name for name in SHOWN if name in rows]
    devices = dict.fromkeys(rows[name]["here"] for name in shown)
    return "\n".join(_table({n: rows[n] for n in shown if rows[n]["here"] == device}) for device in devices)


def _table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the figures of one device."""
    about = next(iter(rows.values()))
    versions = dict(pair for row in rows.values() for pair in row["versions"].items() if pair[0] != "toolkit")
    files = dict.fromkeys(f"`benchmarks/results/{row['file']}`" for row in rows.values())
    commits = dict.fromkeys(f"{row['commit'][:10]} ({row['date']})" for row in rows.values())
    lines = [
        f"{about['cores']} cores of {about['cpu']}, commits {', '.join(commits)};",
        f"{', '.join(f'{name} {number}' for name, number in versions.items())}.",
        "Median of measurements taken in turn in one run, warm page cache, two processes or threads a side",
        f"(the extraction kernel on one). All figures, losses too: {', '.join(files)}.",
        "",
        "| what | median | p20 to p80 | n |",
        "|---|---|---|---|",
    ]
    for name, row in rows.items():
        spread = f"{_number(row['p20'])} to {_number(row['p80'])}" if row["n"] > 1 else ""
        lines.append(f"| {SHOWN[name]} | {_number(row['value'])} {row['unit']} | {spread} | {row['n']} |")
    return "\n".join(lines) + "\n"


def balance_table() -> str:
    """Return what each way to balance does at 10:1 as Markdown, a line an arm."""
    rows = newest("imbalance")
    if not rows:
        return ""
    arms = dict.fromkeys(tuple(name.split("/")[1:3]) for name in rows)
    head = ["balance", "augmentation", *BALANCE.values()]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for augmentation, arm in sorted(arms, key=lambda each: each[0] != "augmented"):
        cells = [rows[f"imbalance/{augmentation}/{arm}/{name}"] for name in BALANCE]
        shown = [
            _estimate(cell) if name == "AUROC" else f"{cell['value']:.3g}"
            for name, cell in zip(BALANCE, cells, strict=True)
        ]
        lines.append(
            f"| {arm} | {'default' if augmentation == 'augmented' else 'none'} | {' | '.join(shown)} |"
        )
    lines += ["", "| paired difference of AUROC | |", "|---|---|"]
    for name, row in newest("imbalance difference").items():
        one, other = (side.split("/") for side in name.split("/", 1)[1].removesuffix("/AUROC").split(" - "))
        what = f"{one[1]}: default - none" if one[0] != other[0] else f"default: {one[1]} - {other[1]}"
        lines.append(f"| {what} | {_estimate(row)} |")
    return _about(rows) + "\n\n" + "\n".join(lines) + "\n"


def real_table() -> str:
    """Return the ranking of the 134 real nodules as Markdown."""
    rows = newest("lidc134")
    if not rows:
        return ""
    lines = ["| 93 scored nodules, 3 x 5 folds | AUROC, pooled | within folds |", "|---|---|---|"]
    for name, what in REAL.items():
        both = [_estimate(rows[f"lidc134/auroc {how}/{name}"]) for how in ("pooled", "within folds")]
        lines.append(f"| {what} | {' | '.join(both)} |")
    return _about(rows) + "\n\n" + "\n".join(lines) + "\n"


def chart() -> tuple[str, str]:
    """Return the waterfall as Markdown and as SVG, from the newest record that has one; empty without one."""
    rows, name = waterfall_chart.newest(results())
    if not rows:
        return "", ""
    told = waterfall_chart.describe(waterfall_chart.bars(rows))
    link = f"![The training step, a technique at a time. {told}](benchmarks/waterfall.svg)"
    about = f"`benchmarks/results/{name}` (commit {rows[0]['commit'][:10]}, {rows[0]['date']})."
    return f"{link}\n\n{about}\n", waterfall_chart.draw(rows)


def _about(rows: Mapping[str, Mapping[str, Any]]) -> str:
    one = next(iter(rows.values()))
    where = f"`benchmarks/results/{one['file']}` (commit {one['commit'][:10]}, {one['date']})"
    return f"{where}; in brackets 95 % intervals."


def _estimate(row: Mapping[str, Any]) -> str:
    return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def render(text: str) -> str:
    """Return the README with fresh tables."""
    for begin, end, made in (
        (BEGIN, END, table),
        (BALANCE_BEGIN, BALANCE_END, balance_table),
        (REAL_BEGIN, REAL_END, real_table),
        (RELIABILITY_BEGIN, RELIABILITY_END, lambda: reliability_tables(ROOT / "benchmarks" / "results")),
    ):
        before, rest = text.split(begin)
        text = f"{before}{begin}{made()}{end}{rest.split(end, 1)[1]}"
    before, rest = text.split(CHART_BEGIN)
    return f"{before}{CHART_BEGIN}{chart()[0]}{CHART_END}{rest.split(CHART_END, 1)[1]}"


def main() -> int:
    """Write the table, or check that it is fresh."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    readme = ROOT / "README.md"
    old = readme.read_text()
    new = render(old)
    if check:
        stale = new != old or drawn() != chart()[1]
        print(f"README is {'stale: run python -m benchmarks.readme' if stale else 'fresh'}", file=sys.stderr)
        return int(stale)
    readme.write_text(new)
    picture = chart()[1]
    if picture:
        CHART.write_text(picture)
    else:
        CHART.unlink(missing_ok=True)
    return 0


def drawn() -> str:
    """Return the chart as it lies in the checkout; empty where there is none."""
    return CHART.read_text() if CHART.exists() else ""


if __name__ == "__main__":
    raise SystemExit(main())

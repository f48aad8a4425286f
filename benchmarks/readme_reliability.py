"""What the README says of faults, damaged files, scale and long runs, from files of results."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
SCALE = {
    "index": "archive indexed before: index read",
    "resume": "finished store: seen to be finished",
    "nodules.csv": "`nodules.csv` written",
    "open": "`Store.open`",
    "split": "split, crops not compared",
    "split file": "split written and read",
    "plan": "shards planned",
    "sampler": "sampler begun (store opened before)",
}
LARGEST = 1_000_000
WHOLE_SCANS = "scale/index 15000 x300"


def rows_of(folder: Path, name: str) -> list[Row]:
    """Return the lines of a file of results, none where there is no such file."""
    path = folder / f"reliability_{name}.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def tables(folder: Path) -> str:
    """Return both tables as Markdown."""
    lines = ["| what was done | tried | what was lost | again |", "|---|---|---|---|"]
    lines += [*_faults(rows_of(folder, "faults")), *_fuzz(rows_of(folder, "fuzz"))]
    lines += _soak(rows_of(folder, "soak"))
    return "\n".join([*lines, "", *_scale(rows_of(folder, "scale"))]) + "\n"


def _faults(rows: Sequence[Row]) -> list[str]:
    last = {row["what"].removeprefix("faults: "): row for row in rows}
    found = []
    for job, row in last.items():
        what = f"killed, disk full, I/O error, flipped bit, power lost while {TITLES[job]}"
        tried = f"{row['tried']} faults, {row['seeds']} seeds, any of {row['operations']} operations"
        lost = "nothing; the next run gave the same bytes" if not row["found"] else f"{row['found']} runs"
        found.append(_line(what, tried, lost, f"`python -m tests.faults {job} --seeds {row['seeds']}`"))
    return found


TITLES = {"preprocess": "preprocessing", "training": "training, evaluating, predicting, reporting"}


def _fuzz(rows: Sequence[Row]) -> list[str]:
    """Return a line for damage that is drawn, and one for damage that atheris steers."""
    again = "`python -m tests.fuzz --inputs 100000 --seed 7`"
    steered = "`python -m tests.fuzz.atheris TARGET --seconds 30 --seed 1`, with the extra `fuzz`"
    kinds = {"fuzz": ("damaged files", again), "atheris": ("damage steered by coverage (atheris)", steered)}
    found = []
    for kind, (what, command) in kinds.items():
        last = {row["target"]: row for row in rows if row["what"] == kind}
        if last:
            tried = f"{sum(row['tried'] for row in last.values()):,} files, {len(last)} readers"
            found.append(_line(f"{what}: {', '.join(last)}", tried, _lost(last), command))
    return found


def _lost(last: Mapping[str, Row]) -> str:
    died = {name: row["died"] for name, row in last.items() if row.get("died")}
    other = {
        name: [f for f in row["found"] if not (row.get("died") and f == "the process ended with -6")]
        for name, row in last.items()
    }
    if open_ := {name: found for name, found in other.items() if found}:
        return f"open: {json.dumps(open_)}"
    lost = "no reader failed otherwise than by a code"
    if died:
        named = ", ".join(f"{name} {count}" for name, count in died.items())
        own = f"decoders that ended their own process ({named})"
        lost += f", but for {own}: the worker dies, the case is named"
    return lost


def _soak(rows: Sequence[Row]) -> list[str]:
    value = {row["name"].removeprefix("soak/"): row["value"] for row in rows}
    if not value:
        return []
    config = rows[0]["config"]
    share = 100 * config["spoiled"] / config["series"]
    what = f"{config['series']:,} series, {share:.0f} % of them spoiled; killed and resumed"
    tried = f"{value['cases accounted for']:,.0f} cases, {value['files refused by name']:.0f} other files"
    growth = max(value["growth of parent"], value["growth of worker"])
    lost = (
        f"nothing: each has its due fate; {value['files compared after the kill']:.0f} files have the same "
        f"bytes after the kill; memory grows by {growth:.2f} MiB per 1,000 cases"
    )
    return [_line(what, tried, lost, "`python -m benchmarks.soak`")]


def _scale(rows: Sequence[Row]) -> list[str]:
    by_name = {row["name"]: row for row in rows}
    if not by_name:
        return []
    lines = [
        f"| {LARGEST:,} nodules of 200,000 series (4 slices each), simulated | processor | memory "
        "| grows as n log n to the power of |",
        "|---|---|---|---|",
    ]
    for step, what in SCALE.items():
        name = f"scale/{step} {LARGEST}"
        growth = by_name.get(f"scale.growth/{step}")
        power = "too short to tell"
        if growth is not None and growth["low"] < growth["high"]:
            power = f"{growth['value']:.2f} ({growth['low']:.2f} to {growth['high']:.2f})"
        seconds, mib = (by_name[f"{name} {kind}"]["value"] for kind in ("processor", "memory"))
        lines.append(_line(what, f"{seconds:.2g} s", f"{mib:,.0f} MiB", power))
    kinds = [by_name[f"{WHOLE_SCANS} {kind}"] for kind in ("processor", "memory")]
    return [*lines, _of_slices(*kinds)]


def _of_slices(processor: Row, memory: Row) -> str:
    """Return the line of an archive of whole scans, and what each slice of it costs."""
    series, slices = (memory["config"][name] for name in ("series", "slices"))
    seconds, mib = processor["value"], memory["value"]
    each = (
        f"{1e6 * seconds / (series * slices):.1f} us and {mib * 2**20 / (series * slices):.0f} bytes a slice"
    )
    what = f"{SCALE['index']}, {series:,} series of {slices} slices"
    return _line(what, f"{seconds:.2g} s", f"{mib:,.0f} MiB", each)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"

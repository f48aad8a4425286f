"""A long run over many series, spoiled ones among them: memory, accounting, rate, a kill in the middle.

``python -m benchmarks.soak [--series 2000] [--spoiled 0.05] [--workers 2] [--work FOLDER] [--out FILE]``

`toolkit preprocess` runs as the command that a user gives. What must become of each series is known from how
it was written, and is compared with the ledgers, not with what the command says of itself. Linux only: memory
is read from /proc.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.soak_archive import Fate, write_soak
from benchmarks.soak_watch import EVERY_S, Watch, growth, run
from toolkit.bench.record import Figure, append, figure, line
from toolkit.memory import cores
from toolkit.preprocess.identity import IdKey
from toolkit.store.ledger import Entry, committed, read_ledger
from toolkit.store.verify import verify

KEY = "soak"
WARM = 0.25
"""Share of the cases after which memory is looked at: caches are filled and every decoder was imported."""
MOST_GROWTH_MIB = 8.0
"""Per 1,000 cases, of the parent and of each worker. A crop of this run that was never freed takes 0.3 MiB,
a series 1 MiB or more: of either, one in a hundred that is kept would show as 3 MiB or 10 MiB."""
LEAST_LOOKS = 10
"""Fewer looks after warm-up say nothing about growth."""


def command(archive: Path, store: Path, cache: Path, workers: int) -> list[str]:
    """Return the command line of a run."""
    settings = ["--size", "32", "--margin", "8", "--id-key", KEY, "--json"]
    words = [sys.executable, "-m", "toolkit", "preprocess", str(archive), str(store), *settings]
    return [*words, "--workers", str(workers), "--index-cache", str(cache)]


def in_ledgers(store: Path) -> int:
    """Return how many cases are committed, counting lines."""
    count = 0
    for path in (store / "ledger").glob("*.jsonl"):
        count += path.read_bytes().count(b"\n")
    return count


def account(fates: Sequence[Fate], store: Path, told: Mapping[str, Any], archive: Path) -> list[str]:
    """Return what does not add up: a case without its fate, one too many, one told otherwise."""
    key = IdKey(KEY.encode())
    found: dict[str, list[Entry]] = defaultdict(list)
    for shard in committed(store):
        for entry in read_ledger(store, shard):
            found[entry.case_id].append(entry)
    wrong = []
    for fate in (fate for fate in fates if fate.is_case):
        entries = found.pop(key.hash("case", fate.name), [])
        if [entry.status for entry in entries] != [fate.outcome]:
            wrong.append(f"{fate.kind}: {[(e.status, e.code) for e in entries]}, not {fate.outcome}")
        elif fate.outcome == "refused" and entries[0].code != fate.code:
            wrong.append(f"{fate.kind}: {entries[0].code}, not {fate.code}")
        elif fate.code and fate.outcome != "refused" and fate.code not in _notes(entries[0]):
            wrong.append(f"{fate.kind}: no note {fate.code}")
    wrong += [f"nobody's case: {entries[0].status} {entries[0].code}" for entries in found.values()]
    files = {Path(p).relative_to(archive).as_posix(): f["code"] for f in told["files"] for p in f["files"]}
    due = {fate.name: fate.code for fate in fates if not fate.is_case}
    wrong += [f"file {name}: {files.get(name)}, not {due.get(name)}" for name in files.keys() ^ due.keys()]
    wrong += [f"file {name}: {files[name]}" for name in files.keys() & due.keys() if files[name] != due[name]]
    refused = sum(told["refused"].values())
    if told["cases"] != told["done"] + told["empty"] + refused or told["exit_code"] != 8:
        wrong.append(f"told: {told['cases']} cases, {told['done']} + {told['empty']} + {refused}")
    outcomes = Counter(fate.outcome for fate in fates if fate.is_case)
    if (outcomes["done"], outcomes["empty"], outcomes["refused"]) != (told["done"], told["empty"], refused):
        wrong.append(f"told {told['done']}, {told['empty']}, {refused}; due {dict(outcomes)}")
    return wrong


def _notes(entry: Entry) -> set[str]:
    return {code for code, _ in (entry.facts or {}).get("notes", ())}


def identity(store: Path) -> dict[str, str]:
    """Return the digest of every file of a store that is part of its identity."""
    parts = ("store.json", "plan.jsonl", "nodules.csv", "shards/*", "ledger/*")
    paths = sorted(path for part in parts for path in store.glob(part))
    return {path.relative_to(store).as_posix(): sha256(path.read_bytes()).hexdigest() for path in paths}


def memory(watch: Watch, cases: int, config: Mapping[str, Any]) -> tuple[list[Figure], list[str]]:
    """Return peak and growth of the parent's and the workers' memory, and what grew too fast."""
    warm = [k for k, done in enumerate(watch.done) if done >= WARM * cases]
    seen = {"parent": [(k, watch.parent[k]) for k in warm]}
    for number, looks in enumerate(watch.workers.values()):
        seen[f"worker {number}"] = [(k, mib) for k, mib in looks if k in warm and k < len(watch.done)]
    slopes = {
        name: growth([watch.done[k] for k, _ in looks], [mib for _, mib in looks])
        for name, looks in seen.items()
        if len(looks) >= LEAST_LOOKS
    }
    wrong = [
        f"{name} grows by {s:.1f} MiB per 1,000 cases" for name, s in slopes.items() if s > MOST_GROWTH_MIB
    ]
    over = f"looks {EVERY_S} s apart, after {WARM:.0%} of the cases"
    note = f"Theil-Sen slope over {over}; bound {MOST_GROWTH_MIB:g}"
    peak = max(mib for looks in watch.workers.values() for _, mib in looks)
    figures = [
        figure("soak/parent peak", [max(watch.parent)], "MiB", f"VmRSS, every {EVERY_S} s", config=config),
        figure("soak/largest worker peak", [peak], "MiB", f"VmRSS, every {EVERY_S} s", config=config),
    ]
    for role in ("parent", "worker"):
        of_role = [s for name, s in slopes.items() if name.startswith(role)]
        if of_role:
            what = "MiB/1,000"
            figures.append(figure(f"soak/growth of {role}", of_role, what, note, config=config))
    return figures, wrong


def rate(watch: Watch, cases: int, config: Mapping[str, Any]) -> list[Figure]:
    """Return cases a second, and the processor time of a case late in the run over that of one early."""

    def at(share: float) -> int:
        return next(k for k, done in enumerate(watch.done) if done >= share * cases)

    if len([done for done in watch.done if WARM * cases <= done < cases]) < LEAST_LOOKS:
        return []
    a, b, c = at(WARM), at((1 + WARM) / 2), int(np.argmax(watch.cpu))  # later, workers are gone
    each = [
        (watch.cpu[q] - watch.cpu[p]) / max(1, watch.done[q] - watch.done[p]) for p, q in ((a, b), (b, c))
    ]
    wall = (watch.done[c] - watch.done[a]) / (watch.seconds[c] - watch.seconds[a])
    late = "second half over first half, after warm-up; processor time, so that other programs matter little"
    return [
        figure("soak/rate", [wall], "cases/s", "after warm-up, of this machine as loaded", config=config),
        figure("soak/processor time late over early", [each[1] / each[0]], "x", late, config=config),
    ]


def soak(work: Path, fates: Sequence[Fate], workers: int) -> tuple[list[Figure], list[str]]:
    """Run over ``work/archive``, judge, kill another run in the middle and resume it: figures and faults."""
    archive, whole, killed = work / "archive", work / "whole", work / "killed"
    spoiled = sum(fate.spoiled for fate in fates)
    config = {"series": len(fates), "spoiled": spoiled, "workers": workers}
    cases = sum(fate.is_case for fate in fates)
    words = command(archive, whole, work / "index", workers)
    watch, code, output = run(words, lambda: in_ledgers(whole))
    wrong = [] if code == 8 else [f"exit code {code}, not 8"]
    told = json.loads(output)
    wrong += account(fates, whole, told, archive)
    wrong += [problem.what for problem in verify(whole)]
    figures, grown = memory(watch, cases, config)
    wrong += grown
    figures += rate(watch, cases, config)
    words = command(archive, killed, work / "index of killed", workers)
    _, dead, _ = run(words, lambda: in_ledgers(killed), until=cases // 2)
    committed_before = in_ledgers(killed)
    _, code, output = run(words, lambda: in_ledgers(killed))
    wrong += [] if (dead, code) == (-9, 8) else [f"exit codes {dead} and {code}, not -9 and 8"]
    wrong += account(fates, killed, json.loads(output), archive)
    one, other = identity(whole), identity(killed)
    differing = [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]
    wrong += [f"{len(differing)} files differ after a kill: {sorted(differing)[:5]}"] * bool(differing)
    figures += [
        figure(
            "soak/cases accounted for", [cases], "cases", "each with the fate that was due", config=config
        ),
        figure("soak/spoiled as expected", [spoiled], "series", config=config),
        figure("soak/files refused by name", [len(told["files"])], "files", config=config),
        figure(
            "soak/committed when killed", [committed_before], "cases", "resumed: same bytes", config=config
        ),
        figure("soak/files compared after the kill", [len(one)], "files", "SHA-256", config=config),
        figure("soak/disk", [_bytes(work) / 1e9], "GB", "archive and both stores", config=config),
    ]
    return figures, wrong


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--series", type=int, default=2000)
    parser.add_argument("--spoiled", type=float, default=0.05)
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--work", type=Path, help="folder for archive and stores (default: a temporary one)")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(argv)
    work = Path(tempfile.mkdtemp(prefix="soak-", dir=given.work))
    try:
        fates = write_soak(work / "archive", given.series, given.spoiled, 0, given.workers)
        figures, wrong = soak(work, fates, given.workers)
    finally:
        shutil.rmtree(work)
    for found in figures:
        print(line(found))
    for fault in wrong:
        print(f"FAULT {fault}", file=sys.stderr)
    if given.out and not wrong:
        append(figures, given.out)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""``python -m tests.fuzz [TARGET ...] --inputs 100000``: damage valid files and read them in child processes.

A child that dies or hangs costs the input that it was on, which is named and saved; another one goes on
behind it. Findings lie in the folder of ``--findings``, as small as they could be made.
"""

import argparse
import contextlib
import json
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.fuzz.child import ended
from tests.fuzz.targets import TARGETS
from toolkit.bench.machine import context

SILENT_SECONDS = 60  # a child that stays on one input for longer is ended: 5 s of its own time have passed


def child(name: str, first: str, stop: str, seed: int, folder: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "tests.fuzz.child", name, first, stop, str(seed), str(folder)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def now(folder: Path) -> int | None:
    try:
        return int(struct.unpack("<q", (folder / "now").read_bytes())[0])
    except (OSError, struct.error):
        return None


def watched(process: subprocess.Popen[str], folder: Path) -> str | None:
    """Wait for a child; return its last line, or None where it died or had to be ended."""
    last, since = None, time.monotonic()
    while True:
        try:
            out, _ = process.communicate(timeout=2)
        except subprocess.TimeoutExpired:
            at = now(folder)
            if at != last:
                last, since = at, time.monotonic()
            elif at is not None and time.monotonic() - since > SILENT_SECONDS:
                process.kill()
                process.communicate()
                return None
            continue
        return out.splitlines()[-1] if process.returncode == 0 else None


def fuzz(name: str, inputs: int, seed: int, findings: Path) -> dict[str, Any]:
    """Try all inputs of one target, however many children that takes."""
    start, codes, done = time.perf_counter(), Counter[str](), 0
    found: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        folder = Path(place)
        while done < inputs:
            (folder / "now").unlink(missing_ok=True)
            process = child(name, str(done), str(inputs), seed, folder)
            line = watched(process, folder)
            if line is not None:
                codes.update(json.loads(line)["codes"])
                done = inputs
                break
            at = now(folder)
            if at is None or process.returncode > 0:
                raise SystemExit(f"{name}: the child ended with {process.returncode} before it read")
            data = TARGETS[name].inputs(folder / "seeds").number(at, seed)
            found.setdefault(ended(process.returncode), data)
            codes[f"died {process.returncode}"] += 1
            done = at + 1
        saved(name, found, folder, findings)
    seconds = time.perf_counter() - start
    return {
        "target": name,
        "tried": inputs,
        "seconds": round(seconds, 1),
        "found": sorted(found),
        "died": sum(count for code, count in codes.items() if code.startswith("died ")),
        "codes": codes,
    }


def saved(name: str, found: dict[str, bytes], folder: Path, findings: Path) -> None:
    """Add what a child told to what ended it, and save an input of each, cut down."""
    told = folder / "found.jsonl"
    for text in told.read_text().splitlines() if told.exists() else ():
        value = json.loads(text)
        found.setdefault(value["finding"], bytes.fromhex(value["data"]))
        keep(findings / name, value["finding"], value["trace"].encode(errors="backslashreplace"), ".txt")
    for finding, data in found.items():
        shrink(name, keep(findings / name, finding, data, ".bin"), finding, folder)


def keep(folder: Path, finding: str, data: bytes, suffix: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ("".join(c if c.isalnum() else "_" for c in finding) + suffix)
    path.write_bytes(data)
    return path


def shrink(name: str, path: Path, finding: str, folder: Path) -> None:
    """Cut a saved input down in place, for a minute at most."""
    words = [sys.executable, "-m", "tests.fuzz.child", name, str(path), "smaller", finding, str(folder)]
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(words, stderr=subprocess.DEVNULL, timeout=SILENT_SECONDS, check=False)


def recorded(what: str, result: dict[str, Any], seed: int, path: Path | None) -> None:
    """Print what became of a target, and append it to a file of results."""
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    if path:
        about = {each: context("cpu")[each] for each in ("commit", "date", "device")}
        with path.open("a") as out:
            out.write(json.dumps({"what": what, **result, "seed": seed, **about}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--record", type=Path, help="append a line of JSON for each target")
    told = parser.parse_args()
    failed = False
    for name in told.targets or TARGETS:
        result = fuzz(name, told.inputs, told.seed, told.findings)
        failed |= bool(result["found"])
        recorded("fuzz", result, told.seed, told.record)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()

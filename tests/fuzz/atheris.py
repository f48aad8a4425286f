"""``python -m tests.fuzz.atheris TARGET --seconds 60``: what `tests.fuzz` does, steered by coverage.

Needs the extra ``fuzz`` (Linux, x86-64). Seeds, readers, contract and limits are the target's; a child that
dies names its input, and another one goes on with what the corpus has come to.
"""

import argparse
import importlib.util
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.fuzz.__main__ import keep, now, recorded, saved, watched
from tests.fuzz.child import ended
from tests.fuzz.targets import TARGETS

MOST_DEATHS = 20  # the corpus leads back to the same abort again and again
CPLUSPLUS = 77  # atheris caught what nothing else would have: without it the process aborts
COVERED = re.compile(r"cov: (\d+) ft: \d+ corp: (\d+)")


def fuzz(name: str, seconds: float, runs: int, seed: int, findings: Path) -> dict[str, Any]:
    """Fuzz one target for so many seconds of processor time, or until `runs` inputs are read."""
    start, end, codes = time.monotonic(), spent() + seconds, Counter[str]()
    tried = died = edges = kept = 0
    found: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        folder = Path(place)
        while died < MOST_DEATHS and tried < runs and (left := end - spent()) > 0:
            (folder / "now").unlink(missing_ok=True)
            with (folder / "log").open("w") as out:
                words = [sys.executable, "-m", "tests.fuzz.guided", name]
                words += [str(left), str(runs - tried), str(seed + died), str(folder)]
                process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=out, text=True)
                line = watched(process, folder)
            log = (folder / "log").read_text(errors="replace")
            for told in COVERED.findall(log)[-1:]:
                edges, kept = map(int, told)
            if line is not None:
                codes.update(json.loads(line)["codes"])
                tried += json.loads(line)["tried"]
                break
            at = now(folder)
            code = process.returncode if process.returncode != CPLUSPLUS else -signal.SIGABRT
            if not at or code > 0:
                raise SystemExit(f"{name}: the child ended with {code}\n{log[-2000:]}")
            data = (folder / "input").read_bytes()
            found.setdefault(ended(code), data[8 : 8 + struct.unpack("<q", data[:8])[0]])
            keep(findings / name, ended(code), log[-3000:].encode(), ".txt")
            tried, died = tried + at, died + 1
        saved(name, found, folder, findings)
    return {
        "target": name, "tried": tried, "seconds": round(time.monotonic() - start, 1), "found": sorted(found),
        "died": died, "codes": codes, "edges": edges, "kept": kept,
    }  # fmt: skip


def spent() -> float:
    """Return the processor time of all children that have ended, in seconds."""
    times = os.times()
    return times.children_user + times.children_system


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.atheris", description=__doc__)
    parser.add_argument("targets", nargs="+", metavar="TARGET", choices=TARGETS, help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=float, default=60.0, help="of processor time")
    parser.add_argument("--runs", type=int, default=1 << 40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--record", type=Path, help="append a line of JSON for each target")
    told = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        parser.error("atheris is not installed; it comes with the extra: pip install -e '.[fuzz]'")
    failed = False
    for name in told.targets:
        result = fuzz(name, told.seconds, told.runs, told.seed, told.findings)
        failed |= bool(result["found"])
        recorded("atheris", result, told.seed, told.record)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()

"""The toolkit as its users run it: ``toolkit preprocess`` in a process of its own."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ID_KEY = "benchmark"
POLL_SECONDS = 0.02


def preprocess(
    archive: Path, store: Path, index: Path, spacing_mm: float, workers: int, options: Sequence[str] = ()
) -> tuple[float, Any]:
    """Run ``toolkit preprocess`` once; returns seconds, interpreter start included, and its summary.

    Raises RuntimeError where it does not do all cases in this run.
    """
    start = time.perf_counter()
    words = [*_words(archive, store, index, spacing_mm, workers), *options]
    done = subprocess.run(words, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    return seconds, _checked(done.returncode, done.stdout, done.stderr)


def peak_rss_mib(
    archive: Path, store: Path, index: Path, spacing_mm: float, workers: int
) -> dict[str, float]:
    """Run it once more while sampling resident memory; returns the peaks of a worker and of the parent.

    Sampling takes time from the cores, so this run is not timed. Shared library pages count in full.
    """
    import psutil

    words = _words(archive, store, index, spacing_mm, workers)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        parent = psutil.Process(process.pid)
        peak = {"parent": 0.0, "worker": 0.0}
        while process.poll() is None:
            try:
                peak["parent"] = max(peak["parent"], parent.memory_info().rss / 2**20)
                for child in parent.children(recursive=True):
                    peak["worker"] = max(peak["worker"], child.memory_info().rss / 2**20)
            except psutil.NoSuchProcess:
                pass
            time.sleep(POLL_SECONDS)
        _checked(process.returncode, process.stdout.read() if process.stdout else "", "")
    return peak


def _words(archive: Path, store: Path, index: Path, spacing_mm: float, workers: int) -> list[str]:
    options = ["--index-cache", str(index), "--id-key", ID_KEY, "--spacing", str(spacing_mm)]
    run = [sys.executable, "-c", "from toolkit.cli import main; main()", "preprocess"]
    return [*run, str(archive), str(store), *options, "--workers", str(workers), "--device", "cpu", "--json"]


def _checked(code: int, out: str, talk: str) -> Any:
    if code != 0:
        raise RuntimeError(f"toolkit preprocess ended with {code}: {talk[-500:]}")
    summary = json.loads(out)
    if summary["done"] != summary["cases"] or summary["resumed"]:
        raise RuntimeError(f"not all cases were done in this run: {summary}")
    return summary

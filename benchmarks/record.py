"""Figures of a benchmark as JSON lines: value, spread, and everything that it depends on."""

import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent
PACKAGES = (
    "numpy",
    "numba",
    "scipy",
    "pydicom",
    "SimpleITK",
    "itk",
    "monai",
    "torch",
    "torchio",
    "nvidia-dali-cuda120",
    "toolkit",
)
KEPT_SAMPLES = 12


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes
    ----------
    value
        The median; equal to `p50`.
    n
        How many measurements there are.
    samples
        All of them where they are few, in the order in which they were taken.
    note
        What was measured, and what a reader could get wrong.
    """

    name: str
    value: float
    unit: str
    p20: float
    p50: float
    p80: float
    n: int
    samples: tuple[float, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Estimate:
    """One estimated number and its 95 % interval.

    Attributes
    ----------
    n
        How many nodules it was estimated from.
    note
        How, and what a reader could get wrong.
    """

    name: str
    value: float
    low: float
    high: float
    n: int
    note: str = ""


def figure(name: str, samples: Sequence[float], unit: str, note: str = "") -> Figure:
    """Return median and spread of some measurements of one thing."""
    p20, p50, p80 = (float(f"{p:.6g}") for p in np.percentile(samples, (20, 50, 80)))
    kept = tuple(float(f"{s:.6g}") for s in samples) if len(samples) <= KEPT_SAMPLES else ()
    return Figure(name, p50, unit, p20, p50, p80, len(samples), kept, note)


def line(found: Figure | Estimate) -> str:
    """Return a figure for people."""
    if isinstance(found, Estimate):
        return f"{found.name:<52}{found.value:10.3f} (95 % {found.low:.3f} to {found.high:.3f}, n {found.n})"
    spread = f"{found.p50:10.3f} {found.unit:<8} (p20 {found.p20:.3f}, p80 {found.p80:.3f}, n {found.n})"
    return f"{found.name:<52}{spread}"


def cpu_model() -> str:
    """Return the processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        match = re.search(r"model name\s*:\s*(.+)", info.read_text())
        if match:
            return match[1].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that a figure may depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Return the checked-out commit, with ``-dirty`` where tracked files differ from it."""
    head = _git("rev-parse", "--short=10", "HEAD") or "unknown"
    return f"{head}-dirty" if _git("status", "--porcelain", "--untracked-files=no") else head


def context() -> dict[str, Any]:
    """Return what every figure of a run has in common."""
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "cpu": cpu_model(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "load_1min_at_end": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "versions": versions(),
        "commit": commit(),
        "date": date.today().isoformat(),
    }


def default_path(name: str = "") -> Path:
    """Return ``results/<device>_<date>_<commit>.jsonl``; the device is the processor unless named."""
    about = context()
    device = re.sub(r"[^a-z0-9]+", "-", (name or f"{about['cores']}x {about['cpu']}").lower()).strip("-")
    return FOLDER / "results" / f"{device}_{about['date']}_{about['commit']}.jsonl"


def append(figures: Iterable[Figure | Estimate], path: Path) -> None:
    """Add figures to a file, one JSON line each."""
    about = context()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for found in figures:
            file.write(json.dumps({**asdict(found), **about}) + "\n")


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=FOLDER, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()

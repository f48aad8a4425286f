"""Figures as JSON lines: value, spread, share of a ceiling, and everything that they depend on."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.bench.machine import Kind, context, slug

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
    share, ceiling
        Per cent of what the machine can do, and the name of the figure that says what that is.
    config
        Settings that it was measured with.
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
    share: float | None = None
    ceiling: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)


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


def figure(
    name: str,
    samples: Sequence[float],
    unit: str,
    note: str = "",
    *,
    of: Figure | None = None,
    in_its_unit: float = 1.0,
    config: Mapping[str, Any] | None = None,
) -> Figure:
    """Return median and spread of some measurements of one thing.

    `of` is the ceiling, which one unit of this figure takes `in_its_unit` of: a kernel that moves 1 MB a
    sample is, at 2,000 samples/s, at 20 % of a ceiling of 10 GB/s with ``in_its_unit=1e-3``.
    """
    p20, p50, p80 = (float(f"{p:.6g}") for p in np.percentile(samples, (20, 50, 80)))
    kept = tuple(float(f"{s:.6g}") for s in samples) if len(samples) <= KEPT_SAMPLES else ()
    share = None if of is None else float(f"{100 * p50 * in_its_unit / of.value:.4g}")
    ceiling = "" if of is None else of.name
    return Figure(
        name, p50, unit, p20, p50, p80, len(samples), kept, note, share, ceiling, dict(config or {})
    )


def line(found: Figure | Estimate) -> str:
    """Return a figure for people."""
    if isinstance(found, Estimate):
        return f"{found.name:<52}{found.value:10.3f} (95 % {found.low:.3f} to {found.high:.3f}, n {found.n})"
    spread = f"{found.p50:10.3f} {found.unit:<8} (p20 {found.p20:.3f}, p80 {found.p80:.3f}, n {found.n})"
    share = "" if found.share is None else f", {found.share:.0f} % of {found.ceiling}"
    return f"{found.name:<52}{spread}{share}"


def default_path(folder: Path, device: Kind = "cpu") -> Path:
    """Return ``<folder>/<device>_<date>_<commit>.jsonl``."""
    about = context(device)
    return folder / f"{slug(about['device'])}_{about['date']}_{about['commit']}.jsonl"


def append(figures: Iterable[Figure | Estimate], path: Path, device: Kind = "cpu") -> None:
    """Add figures to a file, one JSON line each."""
    about = context(device)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for found in figures:
            file.write(json.dumps({**asdict(found), **about}) + "\n")

"""How steps grow, at small sizes: by counting what Python calls, so that a busy machine changes nothing."""

import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scale import MOST, Measured, grown, slope
from benchmarks.scale_rows import NODULES, SETTINGS, write_rows
from benchmarks.scale_steps import STEPS, TOGETHER
from toolkit.archive.catalog import catalog
from toolkit.archive.index_cache import IndexCache
from toolkit.loading import split
from toolkit.store import Store

SERIES = (100, 800)
COUNTED = [name for steps in TOGETHER for name in steps if name not in ("resume", "crops")]
"""Starting a worker takes seconds; the parts of ``resume`` are here. ``crops`` does not depend on n."""


@pytest.fixture(scope="module")
def works(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("scale")
    for series in SERIES:
        write_rows(folder / str(series), series, 2)
    return [folder / str(series) for series in SERIES]


def calls(function: Callable[[], object]) -> int:
    """How many functions, Python's and C's, are called."""
    count = 0

    def counted(frame, event, argument) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count


def exponent(counts: list[int]) -> float:
    return slope([n * NODULES for n in SERIES], [float(count) for count in counts])[0]


@pytest.fixture(scope="module")
def counts(works) -> dict[str, list[int]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split, "alike", split.alike)  # the steps replace it
        found: dict[str, list[int]] = {name: [] for name in COUNTED}
        for work in works:
            state: dict[str, object] = {}
            for name in COUNTED:
                found[name].append(calls(partial(STEPS[name].run, work, state)))
    return found


@pytest.mark.parametrize("name", COUNTED)
def test_no_step_grows_faster_than_n_log_n(counts, name: str) -> None:
    assert exponent(counts[name]) <= MOST


def by_manifest(work: Path) -> None:
    """Find the cases of a manifest that names a folder a line."""
    folders = sorted(path for path in (work / "archive").glob("*/*") if path.is_dir())
    lines = [f"{k},{k},archive/{folder.relative_to(work / 'archive')}" for k, folder in enumerate(folders)]
    (work / "cases.csv").write_text("\n".join(["case_id,patient_id,image", *lines]))
    cache = IndexCache(work / "index")
    found = catalog(work / "archive", work / "cases.csv", SETTINGS.rules, cache, open_cases=False)
    cache.close()
    assert [case.problem for case in found.cases] == [None] * len(folders)


def with_damage(work: Path) -> None:
    """Find the cases of an archive in each folder of which a file cannot be read."""
    damaged = [folder / "damaged.dcm" for folder in (work / "archive").glob("*/*")]
    for path in damaged:
        path.write_bytes(bytes(128) + b"DICM" + bytes(100))
    found = catalog(work / "archive", None, SETTINGS.rules, IndexCache(work / "index"), open_cases=False)
    for path in damaged:
        path.unlink()
    assert {case.problem.code for case in found.cases if case.problem} == {"E-DCM-008"}


@pytest.mark.parametrize("step", [by_manifest, with_damage])
def test_no_way_into_an_archive_grows_faster_than_n_log_n(works, step) -> None:
    assert exponent([calls(partial(step, work)) for work in works]) <= MOST


def test_a_quadratic_step_is_seen() -> None:
    def quadratic(n: int) -> None:
        for _ in range(n):
            for _ in range(n // 50):
                abs(1)

    assert exponent([calls(lambda n=n: quadratic(n)) for n in SERIES]) > MOST


def test_a_finished_store_is_found_finished(works) -> None:
    STEPS["resume"].run(works[0], {})  # raises where a key, a size or a case differs
    assert len(Store.open(works[0] / "store")) == SERIES[0] * NODULES


@pytest.mark.parametrize(("power", "fast"), [(1.0, False), (1.5, True), (2.0, True)])
def test_the_fit_tells_powers_apart(power: float, fast: bool) -> None:
    rng = np.random.default_rng(0)
    runs = [
        Measured(
            "resume", n, 0, 1e-6 * n**power * math.log2(n) ** (power == 1) * rng.uniform(0.9, 1.1), 0, {}
        )
        for n in (100_000, 300_000, 1_000_000)
    ]
    found = grown(runs)
    assert found is not None
    assert (found.value > MOST) == fast
    assert found.low <= found.value <= found.high

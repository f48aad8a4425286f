"""Records: figures as lines that name the machine, and nothing that names a person or a place."""

import json
import platform
from itertools import islice
from pathlib import Path

import pytest

from tests.bench.schema import SCHEMA, wrong
from toolkit.bench.data import endless, noise_store, plan_of
from toolkit.bench.machine import context, last_level_cache, parsed, peak_mib, peak_reset
from toolkit.bench.record import append, default_path, figure, line
from toolkit.loading.augment import preset
from toolkit.loading.fused import FusedLoader


def test_a_figure_is_middle_and_spread() -> None:
    found = figure("x", [5.0, 1.0, 2.0, 3.0, 4.0], "s", "why")
    assert (found.p20, found.value, found.p50, found.p80, found.n) == (1.8, 3.0, 3.0, 4.2, 5)
    assert found.samples == (5.0, 1.0, 2.0, 3.0, 4.0)
    assert figure("x", [1.0] * 13, "s").samples == ()
    assert "3.000 s" in line(found)


def test_lines_are_as_the_schema_says(tmp_path: Path) -> None:
    path = tmp_path / "results" / "r.jsonl"
    append([figure("a", [1.0], "s"), figure("b", [2.0], "GB/s")], path)
    append([figure("a", [3.0], "s")], path)
    rows = [json.loads(text) for text in path.read_text().splitlines()]
    assert [row["name"] for row in rows] == ["a", "b", "a"]
    for row in rows:
        assert wrong(row, SCHEMA["$defs"]["line"]) == []


def test_the_context_names_neither_host_nor_path() -> None:
    text = json.dumps(context())
    assert platform.node() not in text or platform.node() in ("", "localhost")
    assert str(Path.home()) not in text
    assert "/" not in json.dumps(context()["versions"])


def test_the_file_is_named_by_device_date_and_commit(tmp_path: Path) -> None:
    about = context()
    name = default_path(tmp_path).name
    assert name.endswith(f"_{about['date']}_{about['commit']}.jsonl")
    assert name.startswith(f"{about['cores']}x-")


def test_what_the_driver_says_is_read() -> None:
    found = parsed("NVIDIA H200, 570.86.15, 700.00, 1980, 1980, 3201, 143771\n")
    assert found["name"] == "NVIDIA H200"
    assert found["driver"] == "570.86.15"
    assert (found["power_limit_w"], found["memory_mib"]) == (700.0, 143771.0)
    assert parsed("GPU, 1.0, [N/A], 1, 1, 1, 1")["power_limit_w"] is None


def test_the_peak_is_that_since_the_reset() -> None:
    block = bytearray(1 << 28)
    block[::4096] = b"x" * len(block[::4096])
    high = peak_mib()
    del block
    if not peak_reset():
        pytest.skip("the system cannot reset the peak")
    assert peak_mib() < high - 200


def test_the_cache_is_no_smaller_than_a_megabyte() -> None:
    assert last_level_cache() >= 1 << 20


def test_every_crop_is_read_once_an_epoch_for_ever(tmp_path: Path) -> None:
    store = noise_store(tmp_path / "store", 10, 16, 4)
    with FusedLoader(plan_of(store, preset("none"), 16, 8, "float32")) as loader:
        sizes = [len(batch.index) for batch in islice(endless(loader), 5)]
    assert sizes == [8, 2, 8, 2, 8]

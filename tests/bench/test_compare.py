"""Comparing records: a change of 20 % is found, noise is not, and what cannot be compared is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from toolkit.bench.compare import WITHIN_DEVIATIONS, compare, judge, sides
from toolkit.bench.record import Estimate, append, figure
from toolkit.errors import UsageError

NAMES = [f"train/step, batch={n}" for n in (8, 16, 32, 64)]


def record(path: Path, seed: int, times: float = 1.0, noise: float = 0.03, unit: str = "samples/s") -> Path:
    """Write a record whose figures scatter by `noise`; the first is `times` what it was."""
    rng = np.random.default_rng(seed)
    made = []
    for k, name in enumerate(NAMES):
        value = 100.0 * (k + 1) * (times if k == 0 else 1.0)
        made.append(figure(name, (value * rng.normal(1, noise, 20)).tolist(), unit))
    append(made, path)
    return path


@pytest.mark.parametrize("times", [0.8, 1.2])
@pytest.mark.parametrize("seed", range(5))
def test_twenty_per_cent_are_found(tmp_path: Path, seed: int, times: float) -> None:
    found = compare(record(tmp_path / "a", seed), record(tmp_path / "b", 100 + seed, times))
    assert [each.name for each in found.changes if each.verdict != "same"] == NAMES[:1]
    assert found.changed
    assert found.changes[0].verdict == ("better" if times > 1 else "worse")


def test_equal_records_have_no_change(tmp_path: Path) -> None:
    """Of 200 pairs of runs of one program; two deviations of both sides are generous for a median of 20."""
    changed = 0
    for seed in range(50):
        for side in "ab":
            (tmp_path / side).unlink(missing_ok=True)
        a, b = (record(tmp_path / side, 2 * seed + k) for k, side in enumerate("ab"))
        changed += sum(each.verdict != "same" for each in compare(a, b).changes)
    assert changed == 0


def test_a_record_equals_itself(tmp_path: Path) -> None:
    path = record(tmp_path / "a", 0)
    found = compare(path, path)
    assert not found.changed
    assert all(each.ratio == 1 for each in found.changes)
    assert (found.only_a, found.only_b, found.contexts) == ((), (), ())


def test_more_seconds_are_worse(tmp_path: Path) -> None:
    found = compare(record(tmp_path / "a", 0, unit="s"), record(tmp_path / "b", 1, 1.2, unit="s"))
    assert found.changes[0].verdict == "worse"


def test_noise_widens_the_band(tmp_path: Path) -> None:
    a, b = record(tmp_path / "a", 0, noise=0.15), record(tmp_path / "b", 1, 1.2, noise=0.15)
    found = compare(a, b)
    assert not found.changed
    assert found.changes[0].band > 0.2


def test_the_band_is_as_documented() -> None:
    assert pytest.approx(2 * stats.norm.ppf(0.8), abs=1e-4) == WITHIN_DEVIATIONS
    rows = [{"name": "x", "unit": "s", "p20": 97.0, "p50": 100.0, "p80": 103.0}]
    side = sides(rows)["x"]
    deviation = 0.06 / (2 * stats.norm.ppf(0.8))
    assert judge("x", side, side).band == pytest.approx(2 * np.sqrt(2) * deviation, rel=1e-4)
    still = sides([{**rows[0], "p20": 100.0, "p80": 100.0}])["x"]
    assert judge("x", still, still).band == 0.05
    assert judge("x", still, still, 0.2).band == 0.2


def test_lines_of_one_name_are_one_figure() -> None:
    rows = [{"name": "x", "unit": "s", "p20": v - 1, "p50": v, "p80": v + 1} for v in (10.0, 14.0, 11.0)]
    side = sides(rows)["x"]
    assert (side.p20, side.p50, side.p80) == (9.0, 11.0, 15.0)


def test_what_only_one_has_and_other_machines_are_told(tmp_path: Path) -> None:
    a, b = record(tmp_path / "a", 0), tmp_path / "b"
    rows = [json.loads(text) for text in a.read_text().splitlines()[1:]]
    b.write_text("\n".join(json.dumps(row | {"cores": 64}) for row in rows))
    append([Estimate("auroc", 0.8, 0.7, 0.9, 93)], a)  # has no spread
    found = compare(a, b)
    assert found.only_a == (NAMES[0],)
    assert [text.partition(":")[0] for text in found.contexts] == ["cores"]


@pytest.mark.parametrize(
    "text", ["not json", "[1]", '{"p50": 1}', '{"name":"a","unit":"s","p50":1,"p20":"x","p80":1}']
)
def test_what_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad").write_text(text)
    with pytest.raises(UsageError, match="E-BENCH-00"):
        compare(record(tmp_path / "a", 0), tmp_path / "bad")
    with pytest.raises(UsageError, match="E-BENCH-002"):
        compare(tmp_path / "absent", tmp_path / "a")

"""The soak at toy size: every series has its fate, a kill costs nothing, and what is wrong is seen."""

from dataclasses import replace

import pytest

from benchmarks.soak import account, memory, soak
from benchmarks.soak_archive import write_soak
from benchmarks.soak_watch import Watch, growth

SERIES, SPOILED = 24, 0.25


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    work = tmp_path_factory.mktemp("soak")
    fates = write_soak(work / "archive", SERIES, SPOILED, 0, 1)
    return work, fates, soak(work, fates, 2)


def test_all_is_accounted_for_and_a_kill_costs_nothing(run) -> None:
    _, fates, (figures, wrong) = run
    assert wrong == []
    by_name = {each.name: each.value for each in figures}
    assert by_name["soak/cases accounted for"] == sum(fate.is_case for fate in fates)
    assert by_name["soak/spoiled as expected"] == SERIES * SPOILED
    assert by_name["soak/committed when killed"] > 0
    assert {fate.outcome for fate in fates} == {"done", "refused"}


def test_a_wrong_fate_is_seen(run) -> None:
    work, fates, _ = run
    told = {"files": [], "refused": {}, "cases": 0, "done": 0, "empty": 0, "exit_code": 8}
    sound = next(fate for fate in fates if fate.outcome == "done" and not fate.code)
    refused = next(fate for fate in fates if fate.outcome == "refused" and fate.is_case)
    for wrong, words in (
        (replace(sound, outcome="empty"), f"{sound.kind}: [('done', '')], not empty"),
        (replace(refused, code="E-XXX-000"), f"{refused.kind}: {refused.code}, not E-XXX-000"),
        (replace(sound, code="W-XXX-000"), f"{sound.kind}: no note W-XXX-000"),
        (replace(sound, name="lost"), f"{sound.kind}: [], not done"),
    ):
        others = [fate for fate in fates if fate not in (sound, refused)]
        kept = sound if wrong.kind == refused.kind else refused
        assert words in account([*others, wrong, kept], work / "whole", told, work / "archive")


@pytest.mark.parametrize(("leak_mib", "seen"), [(0.0, False), (0.03, True)])
def test_a_leak_is_seen(leak_mib: float, seen: bool) -> None:
    watch, cases = Watch(), 1000
    for k in range(0, cases, 20):
        watch.done.append(k)
        watch.seconds.append(k / 20)
        watch.cpu.append(k / 10)
        watch.parent.append(100 + (37 * k) % 11)  # up and down by 10 MiB
        watch.workers.setdefault(1, []).append((k // 20, 200 + (53 * k) % 17 + leak_mib * k))
    _, wrong = memory(watch, cases, {})
    assert bool(wrong) == seen


def test_growth_is_a_median_of_slopes() -> None:
    assert growth([0, 500, 1000, 1500], [1, 2, 900, 4]) == pytest.approx(2.0)
    assert growth([5], [1]) == 0

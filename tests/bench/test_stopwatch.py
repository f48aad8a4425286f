"""The stopwatch: turns, warm-up, and patience; its unit is the second."""

import time

import pytest

from toolkit.bench.stopwatch import Effort, first_call, in_turns, rates


def test_works_take_turns_after_the_warm_up() -> None:
    calls: list[tuple[str, int]] = []
    works = {name: lambda turn, name=name: calls.append((name, turn)) for name in "ab"}
    taken = in_turns(works, Effort(3, 0.0, warm=2))
    assert calls == [
        ("a", 0), ("a", 1), ("b", 0), ("b", 1),
        ("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2),
    ]  # fmt: skip
    assert {name: len(each) for name, each in taken.items()} == {"a": 3, "b": 3}


def test_seconds_are_seconds() -> None:
    taken = in_turns({"slow": lambda turn: time.sleep(0.02), "none": lambda turn: None}, Effort(5, 0.0))
    assert 0.02 <= min(taken["slow"]) < 0.2
    assert min(taken["none"]) < 0.01
    assert rates([0.5, 0.25], 10) == [20.0, 40.0]
    assert first_call(lambda turn: time.sleep(0.02)) >= 0.02


def test_it_measures_until_time_is_up() -> None:
    taken = in_turns({"a": lambda turn: time.sleep(0.005)}, Effort(2, 0.1))
    assert len(taken["a"]) > 2
    assert sum(taken["a"]) == pytest.approx(0.1, abs=0.08)

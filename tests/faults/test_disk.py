"""The model of a disk keeps what was synced, and nothing else for certain."""

import random

import pytest

from tests.faults.disk import (
    CREATE,
    EXCHANGE,
    FSYNC,
    MKDIR,
    MODES,
    RENAME,
    TRUNCATE,
    UNLINK,
    WRITE,
    Disk,
    Operation,
    broken_promises,
)

LOST, NAMES_KEPT, BYTES_KEPT, CHANCE, _ = MODES


def disk(*operations: tuple, start: dict[str, bytes] | None = None, folders: tuple[str, ...] = ()) -> Disk:
    """A disk after operations, each a kind, a path, and what it needs besides."""
    made = Disk(start or {}, list(folders))
    for number, (kind, path, *more) in enumerate(operations, 1):
        value = more[0] if more else ""
        error = more[0] if kind == FSYNC and more else 0
        other, data = (value, b"") if kind in (RENAME, EXCHANGE) else ("", value or b"")
        at = more[1] if len(more) > 1 else 0
        made.play(Operation(kind, error, path, other, at, data if isinstance(data, bytes) else b"", number))
    return made


def after(made: Disk, mode: str = LOST, seed: int = 0) -> dict[str, bytes]:
    return made.after_power_loss(random.Random(seed), mode)[0]


PUBLISHED = (
    (CREATE, "a.tmp"),
    (WRITE, "a.tmp", b"whole"),
    (FSYNC, "a.tmp"),
    (RENAME, "a.tmp", "a"),
    (FSYNC, ""),
)


def test_what_was_published_is_there_whatever_happens() -> None:
    made = disk(*PUBLISHED)
    for mode in MODES:
        for seed in range(20):
            assert after(made, mode, seed) == {"a": b"whole"}


@pytest.mark.parametrize(
    ("left_out", "mode", "wrong"),
    [(2, NAMES_KEPT, "a: a part, 0 bytes"), (4, BYTES_KEPT, None), (3, LOST, None)],
)
def test_each_step_of_publishing_is_needed(left_out: int, mode: str, wrong: str | None) -> None:
    made = disk(*(each for k, each in enumerate(PUBLISHED) if k != left_out))
    found = after(made, mode)
    assert found != {"a": b"whole"}
    assert broken_promises(made, found, ()) == ([wrong] if wrong else [])


def test_a_promised_name_must_stay_and_an_older_content_is_a_loss() -> None:
    made = disk(*PUBLISHED, start={"a": b"old"})
    assert broken_promises(made, {"a": b"whole"}, ()) == []
    assert broken_promises(made, {"a": b"old"}, ()) == ["a: an older one"]
    assert broken_promises(made, {}, ()) == ["a: gone"]
    assert broken_promises(made, {"a": b"whole", "log/b": b"", "c.tmp": b""}, ("log",)) == []
    assert broken_promises(made, {"a": b"whole", "b": b"x"}, ()) == ["b: a part, 1 bytes"]


def test_a_file_is_no_safer_than_the_name_of_its_folder() -> None:
    steps = [(MKDIR, "d"), (CREATE, "d/a"), (WRITE, "d/a", b"x"), (FSYNC, "d/a"), (FSYNC, "d")]
    assert after(disk(*steps)) == {}
    assert after(disk(*steps, (FSYNC, ""))) == {"d/a": b"x"}


def test_unsynced_writes_are_lost_in_any_order_and_in_pieces() -> None:
    start = {"a": b"0" * 2048}
    made = disk((WRITE, "a", b"1" * 2048), (WRITE, "a", b"2" * 1024, 512), start=start)
    assert made.now()["a"] == b"1" * 512 + b"2" * 1024 + b"1" * 512
    found = [after(made, CHANCE, seed)["a"] for seed in range(200)]
    later_alone = b"0" * 512 + b"2" * 1024 + b"0" * 512
    assert {b"0" * 2048, b"1" * 2048, later_alone, made.now()["a"]} <= {*found}
    assert any(b"0" in each and b"1" in each for each in found)
    assert any({*each} - {*b"012"} for each in found), "no garbage"


def test_nothing_is_certain_after_a_sync_that_failed() -> None:
    steps = [(WRITE, "a", b"new"), (FSYNC, "a", 5), (FSYNC, "a")]
    assert after(disk(*steps, start={"a": b"old"})) == {"a": b"old"}
    assert after(disk(steps[0], steps[2], start={"a": b"old"})) == {"a": b"new"}


def test_an_exchange_is_one_step_and_what_it_replaced_goes_only_once_it_is_synced() -> None:
    start = {"m/w": b"1", "m.tmp/w": b"2"}
    swap, clear = (EXCHANGE, "m.tmp", "m"), (UNLINK, "m.tmp/w")

    def found(*steps: tuple) -> set[bytes | None]:
        made = disk(*steps, start=start, folders=("m", "m.tmp"))
        assert made.now()["m/w"] == b"2"
        return {after(made, CHANCE, seed).get("m/w") for seed in range(50)}

    assert found(swap) == {b"1", b"2"}
    assert found(swap, (FSYNC, ""), clear) == {b"2"}
    assert found(swap, clear) == {b"1", b"2", None}


def test_a_file_that_is_cut_has_its_length_only_when_synced() -> None:
    steps = [(TRUNCATE, "a"), (WRITE, "a", b"n")]
    assert after(disk(*steps, start={"a": b"old"})) == {"a": b"old"}
    assert after(disk(*steps, (FSYNC, "a"), start={"a": b"old"})) == {"a": b"n"}

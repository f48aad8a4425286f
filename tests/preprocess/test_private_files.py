"""The user's own key and the crosswalk: private, whole or not there at all, and never quietly wrong."""

import stat
from pathlib import Path

import pytest
from platformdirs import user_config_path

from tests.preprocess.archives import KEY
from toolkit.archive.case import Case
from toolkit.errors import UsageError
from toolkit.preprocess import identity
from toolkit.preprocess.crosswalk import crosswalk_path, read_crosswalk, write_crosswalk
from toolkit.preprocess.identity import load_key


def key_file() -> Path:
    return user_config_path("toolkit") / "id.key"


def test_the_own_key_is_made_once_and_is_private() -> None:
    key = load_key(None)
    assert len(key.secret) == 64
    assert load_key(None) == key
    assert [each.name for each in key_file().parent.iterdir()] == ["id.key"]
    assert stat.S_IMODE(key_file().stat().st_mode) == 0o600


def test_a_key_that_another_process_made_first_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_key(None)
    monkeypatch.setattr(Path, "exists", lambda self: False)  # it comes between the look and the write
    assert load_key(None) == first
    monkeypatch.undo()


def test_a_home_without_hard_links_has_a_key_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    assert len(load_key(None).secret) == 64
    assert [each.name for each in key_file().parent.iterdir()] == ["id.key"]


def test_a_run_killed_while_it_makes_the_key_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(identity.os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        load_key(None)
    assert not key_file().exists()
    monkeypatch.undo()
    assert len(load_key(None).secret) == 64


def test_an_empty_key_is_refused_not_used() -> None:
    key_file().parent.mkdir(parents=True, exist_ok=True)
    key_file().write_text("\n")
    with pytest.raises(UsageError, match=r"E-KEY-001.*empty"):
        load_key(None)


def case(number: int) -> Case:
    return Case(f"case-{number}", f"patient-{number}", f"scan-{number}.nii", None)


def test_a_damaged_line_of_the_crosswalk_is_left_out_and_the_others_stay(tmp_path: Path) -> None:
    store = tmp_path / "store"
    write_crosswalk(store, [case(1), case(2)], KEY)
    whole = crosswalk_path(store).read_bytes()
    assert stat.S_IMODE(crosswalk_path(store).stat().st_mode) == 0o600
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        crosswalk_path(store).write_bytes(damaged)
        write_crosswalk(store, [case(1), case(2)], KEY)
        assert crosswalk_path(store).read_bytes() == whole
    crosswalk_path(store).write_bytes(whole.replace(b"case-1", b"case-8"))
    write_crosswalk(store, [case(3)], KEY)
    known = {identifier for identifier, _ in read_crosswalk(store).values()}
    assert known == {"case-2", "case-3", "patient-1", "patient-2", "patient-3"}
    assert [each.name for each in tmp_path.iterdir()] == ["store.crosswalk.csv"]

"""The kernel kills a worker that took too much memory: its case is named, the others are done."""

import os
import signal
from pathlib import Path

import pytest

from tests.preprocess.archives import identity, run
from toolkit.preprocess import extract
from toolkit.preprocess.extract import Extracted, Task
from toolkit.store.verify import verify

VICTIM = "PHANTOM-0003"


def extract_or_die(task: Task) -> Extracted:
    """What a worker does, but for one case, which ends as the kernel's killer ends it."""
    if task.case.case_id == VICTIM:
        os.kill(os.getpid(), signal.SIGKILL)
    return extract.extract_case(task)


def test_a_worker_killed_for_memory_costs_its_own_case_alone(
    phantom_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"manifest": phantom_archive / "cases.csv", "workers": 2}
    whole = run(phantom_archive, tmp_path / "whole" / "store", **more)
    monkeypatch.setattr("toolkit.preprocess.local.extract_case", extract_or_die)
    store = tmp_path / "killed" / "store"
    told = run(phantom_archive, store, **more)
    assert (told.cases, told.done, told.refused, told.exit_code) == (6, 5, {"E-CASE-002": 1}, 8)
    ((name, problem),) = told.failures
    assert name == VICTIM
    assert problem.measured == "worker ended by SIGKILL"
    assert "fewer --workers if memory ran out" in problem.action
    monkeypatch.undo()
    again = run(phantom_archive, store, **more)
    assert (again.done, again.exit_code) == (whole.done, 0)
    assert identity(store) == identity(tmp_path / "whole" / "store")
    assert list(verify(store)) == []

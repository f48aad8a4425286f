"""One shard on a worker of a cluster: its crops under a name of their own, and what to say of its cases.

A worker publishes nothing and names nobody: it gets no id key, leaves its crops under a temporary name
that no other process has, and returns what the ledger will say but for keyed hashes. The client publishes
the crops of the one result that it takes; so a task may run twice, or on two workers at once.

Dask logs the arguments and the text of an error, so `do_shard` raises none and shows none.
"""

import multiprocessing
import os
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.archive.case import Case
from toolkit.archive.dicom_fields import SliceFile
from toolkit.archive.dicom_series import SeriesFiles
from toolkit.archive.packed import PackedSlices
from toolkit.device import resolve
from toolkit.errors import Problem, ToolkitError, UsageError
from toolkit.memory import cores
from toolkit.preprocess import cached_findings
from toolkit.preprocess.collect import Told, tell
from toolkit.preprocess.confine import share
from toolkit.preprocess.extract import Extracted, Task, extract_case, finish
from toolkit.preprocess.plan import Settings
from toolkit.preprocess.pool import Pool
from toolkit.preprocess.tasks import outcome_of
from toolkit.preprocess.versions import differences, versions
from toolkit.store.crops import CropFiles
from toolkit.store.format import digest
from toolkit.store.ledger import is_complete

IDLE_S = 60.0  # how long the decoding processes of a worker outlive its last shard
SIGHT_S = 65.0  # how long a shared file system may take to show a new file (NFS: 60 s)


@dataclass(frozen=True, repr=False)
class ShardTask:
    """A shard as it travels to a worker; its representation, which Dask logs, shows its number alone.

    Attributes
    ----------
    versions
        Of the client; a worker with others does nothing.
    store_digest
        Of ``store.json``, which tells whether the worker sees the same store.
    keys
        (hashed case id, key) of the shard's cases: where they are committed already, nothing is done.
    tasks
        One a case, in order, without case, patient or study id.
    memory
        Bytes that decoding a case may take; an equal share of the machine's by its processors when None.
    patience_s
        How long to wait for the store to come into sight.
    """

    shard: str
    versions: dict[str, str]
    archive: Path
    store: Path
    store_digest: str
    settings: Settings
    keys: tuple[tuple[str, str], ...]
    tasks: tuple[Task, ...]
    memory: int | None = None
    patience_s: float = SIGHT_S

    def __repr__(self) -> str:
        return f"<shard {self.shard}>"


@dataclass(frozen=True)
class CaseDone:
    """What became of a case; `found` is what its masks held, for the client's index."""

    told: Told
    found: dict[str, Any] | None
    bytes_read: int
    seconds: float


@dataclass(frozen=True, repr=False)
class ShardDone:
    """What became of a shard on a worker.

    Attributes
    ----------
    mark
        Of the temporary files that hold its crops; empty where it was committed already, or `problem`
        says why nothing was done.
    cases
        One a case, in order.
    """

    mark: str = ""
    cases: tuple[CaseDone, ...] = ()
    problem: Problem | None = None

    def __repr__(self) -> str:
        return f"<{len(self.cases)} cases>"


def veiled(task: Task) -> Task:
    """Return a task without the identifiers that extraction does not need; paths it does need."""
    case = task.case
    scan = case.unopened
    if isinstance(scan, SeriesFiles):
        scan = replace(scan, files=_veiled_files(scan.files))
    masks = tuple(replace(mask, slices=_veiled_files(mask.slices)) for mask in case.masks)
    return replace(task, case=replace(case, case_id="", patient_id="", unopened=scan, masks=masks))


def _veiled_files(files: Sequence[SliceFile]) -> PackedSlices:
    headers = (file.header._replace(patient_id="", study_uid="") for file in files)
    return PackedSlices([file._replace(header=bare) for file, bare in zip(files, headers, strict=True)])


def look(device: str) -> tuple[dict[str, str], str]:
    """Return a worker's versions and the device that it would take where `device` is asked for."""
    try:
        return versions(), resolve(device)  # type: ignore[arg-type]
    except ToolkitError as error:
        return versions(), error.problem.measured


def do_shard(task: ShardTask) -> ShardDone:
    """Make the crops of a shard, unless it is committed already; whatever goes wrong is in the result."""
    try:
        return _do_shard(task)
    except ToolkitError as error:
        return ShardDone(problem=error.problem)
    except Exception as error:
        return ShardDone(problem=not_done(type(error).__name__))


def not_done(measured: str) -> Problem:
    """Return the problem of every case of a shard that a cluster could not do."""
    action = "Shard left out, the others go on; run again, with any engine, to try it anew"
    return Problem("E-DASK-006", "the cluster could not do this shard", measured, "", action, transient=True)


def _do_shard(task: ShardTask) -> ShardDone:
    differs = differences(task.versions, versions())
    if differs:
        raise UsageError(other_code("; ".join(differs)))
    _check_sight(task)
    settings, side = task.settings, task.settings.side
    if is_complete(task.store, task.shard, task.keys, side):
        return ShardDone()
    mark = secrets.token_hex(8)
    cases: list[CaseDone] = []
    with _pool(task.memory) as pool, CropFiles(task.store, task.shard, side, mark) as crops:
        for _, result in pool.map(extract_case, task.tasks):  # one process: they come in order
            case = task.tasks[len(cases)].case
            done = finish(outcome_of(result), settings, on_device=task.tasks[len(cases)].on_device)
            if done.images is not None and done.masks is not None and done.problem is None:
                crops.append(np.asarray(done.images), np.asarray(done.masks))
            cases.append(CaseDone(tell(done, settings), _found(case, done), done.bytes_read, done.seconds))
        crops.leave()
    return ShardDone(mark, tuple(cases))


def _found(case: Case, done: Extracted) -> dict[str, Any] | None:
    return cached_findings.pack(done.findings, done.notes) if case.masks and done.problem is None else None


def other_code(measured: str, workers: tuple[str, ...] = ()) -> Problem:
    """Return the problem of workers that might make other bytes than the client."""
    action = "Nothing was done there; install the same versions everywhere (pip install -c constraints.txt)"
    return Problem("E-DASK-003", "workers run other versions than the client", measured, "", action, workers)


def _check_sight(task: ShardTask) -> None:
    """Refuse where this machine does not see the archive and the store; give a file share its time."""
    ends = time.monotonic() + task.patience_s
    while True:
        what = _unseen(task)
        if not what:
            return
        if time.monotonic() > ends:
            action = "Nothing was done there; archive and store must lie at the same paths on every worker"
            raise UsageError(Problem("E-DASK-004", f"a worker does not see the {what}", action=action))
        time.sleep(0.2)


def _unseen(task: ShardTask) -> str:
    try:
        with os.scandir(task.archive) as entries:
            if next(entries, None) is None:  # the folder of a share that is not mounted
                return "archive"
    except OSError:
        return "archive"
    try:
        same = digest((task.store / "store.json").read_bytes()) == task.store_digest
    except OSError:
        same = False
    return "" if same else "store"


_idle: list[tuple[float, int | None, Pool[Any, Any]]] = []
_lock = threading.Lock()


@contextmanager
def _pool(memory: int | None) -> Iterator[Pool[Any, Any]]:
    """Lend a decoding process, kept for the next shard: what kills it costs a case, not the Dask worker."""
    # Dask starts its workers as daemons, which may have no children lest these outlive them; ours end
    # when their pipe does
    multiprocessing.current_process().daemon = False
    with _lock:
        fit = next((k for k, (_, granted, _) in enumerate(_idle) if granted == memory), None)
        pool = None if fit is None else _idle.pop(fit)[2]
    if pool is None:
        pool = Pool(1, share(cores()) if memory is None else memory)
    try:
        yield pool
    except BaseException:
        pool.close()
        raise
    with _lock:
        _idle.append((time.monotonic(), memory, pool))
    timer = threading.Timer(IDLE_S, _close_idle)
    timer.daemon = True
    timer.start()


def _close_idle() -> None:
    with _lock:
        old = [pool for since, _, pool in _idle if time.monotonic() - since >= IDLE_S]
        _idle[:] = [each for each in _idle if each[2] not in old]
    for pool in old:
        pool.close()

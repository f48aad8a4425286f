"""A call of ``toolkit preprocess``, the work that follows from it, and what became of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from toolkit.archive.case import Case
from toolkit.archive.outcomes import FileOutcome
from toolkit.device import Device
from toolkit.errors import Problem
from toolkit.preprocess.identity import IdKey
from toolkit.preprocess.plan import PlannedShard, Settings


@dataclass(frozen=True)
class Job:
    """One call of ``toolkit preprocess``; see its help for what each field means."""

    archive: Path
    store: Path
    id_key: IdKey
    manifest: Path | None = None
    labels: Path | None = None
    settings: Settings = field(default_factory=Settings)
    workers: int = 1
    worker_memory: int | None = None
    device: Device = "cpu"
    index_cache: Path | None = None
    part: tuple[int, int] = (0, 1)
    dry_run: bool = False
    max_failures: int | None = None
    series_uids: tuple[str, ...] = ()
    engine: Literal["local", "dask"] = "local"
    scheduler: str | None = None


@dataclass(frozen=True)
class Work:
    """What is to be made: shards in order, the cases there are and their keys, both by hashed id."""

    todo: Sequence[PlannedShard]
    cases: Mapping[str, Case]
    keys: Mapping[str, str]


@dataclass(frozen=True)
class Made:
    """What an engine did.

    Attributes
    ----------
    failures
        Problems of this run by hashed case id, files named.
    lost
        Shards that are not committed, because the workers on them died.
    bytes_read
        Bytes of voxels that were decoded.
    stopped
        True where --max-failures ended the run early.
    """

    failures: Mapping[str, Problem]
    lost: frozenset[str] = frozenset()
    bytes_read: int = 0
    stopped: bool = False


@dataclass(frozen=True)
class Summary:
    """What became of all cases of a job, in this and earlier runs.

    Attributes
    ----------
    cases
        Cases of this part.
    done, empty, refused
        Their outcomes; `refused` counts by code.
    resumed
        Cases that an earlier run had finished.
    nodules
        Nodules in the done cases.
    failures
        (case id, problem) of the refused cases, for the terminal; files are named by the run that
        refused them.
    files
        Files that belong to no case, each with its problem.
    ignored
        Files that are something else, by what they are.
    outcomes
        What became of every file that is no part of a usable case.
    empties
        Case ids of the readable scans in which nothing is marked.
    stopped
        True where --max-failures ended the run early.
    device
        Where the kernels ran.
    """

    cases: int
    done: int = 0
    empty: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    resumed: int = 0
    nodules: int = 0
    failures: Sequence[tuple[str, Problem]] = ()
    files: Sequence[Problem] = ()
    ignored: Mapping[str, Sequence[str]] = field(default_factory=dict)
    outcomes: Iterable[FileOutcome] = ()
    empties: Sequence[str] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    bytes_read: int = 0
    stopped: bool = False
    device: str = "cpu"

    @property
    def exit_code(self) -> int:
        """0 all well (or nothing to do), 4 all input bad or without nodules, 8 partly done."""
        bad = sum(self.refused.values()) + len(self.files)
        if not bad and not self.stopped:
            return 0
        return 8 if self.done else 4

"""A real Dask cluster of processes, the toolkit as a process, and a small archive whose names are planted."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.preprocess.archives import identity
from toolkit.archive.catalog import catalog
from toolkit.archive.dicom_series import SeriesRules
from toolkit.archive.index_cache import IndexCache
from toolkit.phantom.archive import write_archive
from toolkit.preprocess.identity import IdKey
from toolkit.preprocess.job import Job, Work
from toolkit.preprocess.plan import PlannedShard, Settings, case_key, write_plan
from toolkit.preprocess.run import preprocess
from toolkit.store.format import shard_name
from toolkit.store.writer import write_settings

ROOT = Path(__file__).parents[2]
KEY = IdKey(b"ten digits and a word: 0123456789 heron")
SETTINGS = Settings(spacing_mm=2.0, size=24, margin=2)
OPTIONS = ("--spacing", "2", "--size", "24", "--margin", "2", "--id-key", KEY.secret.decode())
PLANTED = ("DOE^JANE", "PHANTOM-")  # the archive's folder; its cases and patients
PATIENTS = 10


@dataclass(frozen=True)
class Made:
    """An archive, its index, and the store that the local engine makes of it, a case a shard."""

    archive: Path
    whole: Path

    @property
    def options(self) -> tuple[str, ...]:
        """What every run of the command line has in common."""
        return (*OPTIONS, "--cases", str(self.cases), "--index-cache", str(self.index))

    @property
    def cases(self) -> Path:
        return self.archive / "cases.csv"

    @property
    def index(self) -> Path:
        return self.archive.parent / "index"

    def planned(self, store: Path) -> Path:
        """Begin a store whose shards hold one case each, so that there are many of them."""
        write_settings(store, {**SETTINGS.resolved(), "ids": KEY.fingerprint})
        write_plan(store, self.work().todo)
        return store

    def work(self) -> Work:
        """Return all that is to be made of the archive."""
        cache = IndexCache(self.index)
        found = catalog(self.archive, self.cases, SeriesRules(), cache, open_cases=False)
        cache.close()
        cases = {KEY.hash("case", case.case_id): case for case in found.cases}
        keys = {name: case_key(case, SETTINGS, KEY) for name, case in cases.items()}
        return Work([PlannedShard(shard_name(k), (name,)) for k, name in enumerate(cases)], cases, keys)

    def job(self, store: Path) -> Job:
        """Return the call that makes a store with the local engine."""
        return Job(self.archive, store, KEY, self.cases, settings=SETTINGS, index_cache=self.index)

    def finish(self, store: Path) -> None:
        """Finish a store with the local engine; it must be the one that was never interrupted."""
        assert preprocess(self.job(store)).exit_code == 0
        assert identity(store) == identity(self.whole)


def made(folder: Path) -> Made:
    """Make the archive and its store."""
    one = Made(folder / PLANTED[0] / "archive", folder / "whole")
    write_archive(one.archive, patients=PATIENTS, seed=11, formats=("dicom", "nifti"))
    assert preprocess(one.job(one.planned(one.whole))).exit_code == 0
    return one


def start(*args: object, **more: Any) -> "subprocess.Popen[str]":
    """Start ``python -m toolkit preprocess``."""
    command = [sys.executable, "-m", "toolkit", "preprocess", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def until(true: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Wait for something."""
    ends = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.005)
    return value


def end(process: "subprocess.Popen[Any]") -> None:
    """Kill a process and its children, stopped ones too."""
    try:
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    except psutil.NoSuchProcess:
        return
    for one in family:
        try:
            one.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    process.wait()


class Cluster:
    """A scheduler and workers, each a process as on machines of their own; nannies restart the workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "scheduler.json"
        where = ("--host", "127.0.0.1", "--no-dashboard")
        self.scheduler = self.dask("scheduler", *where, "--port", "0", "--scheduler-file", str(self.file))
        self.nannies = [self.worker(f"w{k}") for k in range(2)]

    def dask(self, what: str, *args: str, code: Path = ROOT) -> "subprocess.Popen[Any]":
        """Start a command of Dask; the first folder of its path holds the toolkit."""
        path = os.pathsep.join([str(code), *filter(None, [os.environ.get("PYTHONPATH")])])
        with (self.folder / "log").open("a") as log:
            command = [sys.executable, "-m", "dask", what, *args]
            return subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, env={**os.environ, "PYTHONPATH": path}
            )

    def worker(self, name: str, code: Path = ROOT) -> "subprocess.Popen[Any]":
        """Start a worker with one thread."""
        where = ("--scheduler-file", str(self.file), "--host", "127.0.0.1", "--no-dashboard")
        here = ("--local-directory", str(self.folder), "--name", name, "--nthreads", "1", "--nworkers", "1")
        return self.dask("worker", *where, *here, code=code)

    def ready(self) -> None:
        """Wait until both workers are there."""
        until(lambda: (self.folder / "log").read_text().count("Register worker") >= 2)

    def worker_of(self, nanny: "subprocess.Popen[Any]") -> psutil.Process:
        """Return the process that does a nanny's work, once it is there."""

        def found() -> list[psutil.Process]:
            children = psutil.Process(nanny.pid).children()
            return [child for child in children if "spawn_main" in " ".join(child.cmdline())]

        return until(found)[0]

    def close(self) -> None:
        """Kill all processes."""
        for process in (*self.nannies, self.scheduler):
            end(process)

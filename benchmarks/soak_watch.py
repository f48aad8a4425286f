"""Looking at a command from outside, time and again: memory of each process, how far it is. Linux only."""

import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

EVERY_S = 0.2


@dataclass
class Watch:
    """What was seen of one run.

    Attributes
    ----------
    seconds, done
        When each look was, since the start, and how many cases were committed.
    parent, workers
        Resident memory in MiB at each look; of a worker by process id, with the number of the look.
    cpu
        Seconds of processor time of all processes until then.
    """

    seconds: list[float] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    parent: list[float] = field(default_factory=list)
    workers: dict[int, list[tuple[int, float]]] = field(default_factory=dict)
    cpu: list[float] = field(default_factory=list)

    def look(self, pid: int, started: float, done: int) -> None:
        """Add one look; a process that is ending is left out."""
        number = len(self.seconds)
        try:
            own, cpu = resident(pid), processor_seconds(pid)
        except (OSError, ValueError):
            return
        for child in children(pid):
            try:
                seen, used = resident(child), processor_seconds(child)
            except (OSError, ValueError):
                continue
            self.workers.setdefault(child, []).append((number, seen))
            cpu += used
        self.seconds.append(time.perf_counter() - started)
        self.done.append(done)
        self.parent.append(own)
        self.cpu.append(cpu)


def run(command: Sequence[str], done: Callable[[], int], until: int | None = None) -> tuple[Watch, int, str]:
    """Run a command, looking at it every `EVERY_S`; return what was seen, its exit code and its output.

    With `until`, it is killed (SIGKILL, no other process told) once so many cases are committed.
    """
    watch, started = Watch(), time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    step = EVERY_S if until is None else 0.1
    output = None
    while output is None:
        try:
            output, _ = process.communicate(timeout=step)
        except subprocess.TimeoutExpired:
            there = done()
            watch.look(process.pid, started, there)
            if until is not None and there >= until:
                left = children(process.pid)
                process.kill()
                output, _ = process.communicate()
                _wait_for(left)
    return watch, process.returncode, output


def _wait_for(processes: Sequence[int]) -> None:
    """Wait until orphans have noticed; raises `TimeoutError` where one goes on."""
    for _ in range(600):
        if not any(Path(f"/proc/{pid}").exists() for pid in processes):
            return
        time.sleep(0.05)
    raise TimeoutError("workers live on after their parent was killed")


def children(pid: int) -> list[int]:
    """Return the processes that any thread of a process started."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(word) for word in task.read_text().split()]
        except OSError:
            continue
    return found


def resident(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    match = re.search(r"VmRSS:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    if match is None:
        raise ValueError(pid)
    return int(match[1]) / 1024


def processor_seconds(pid: int) -> float:
    """Return user and system time of a process (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def growth(done: Sequence[float], values: Sequence[float]) -> float:
    """Return the median slope of all pairs of looks (Theil and Sen), per 1,000 cases; 0 for too few."""
    x, y = np.asarray(done, float), np.asarray(values, float)
    first, second = np.triu_indices(len(x), 1)
    apart = x[second] - x[first]
    slopes = (y[second] - y[first])[apart > 0] / apart[apart > 0]
    return 1000 * float(np.median(slopes)) if len(slopes) else 0.0

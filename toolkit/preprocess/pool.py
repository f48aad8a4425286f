"""Worker processes that can die without taking the run with them.

Unlike `concurrent.futures`, the parent knows which task each process holds: a process that is killed
(out of memory, a crash in a decoder) costs that task alone, which is named, and is replaced.
"""

import gc
import mmap
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import recv_handle, send_handle
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from toolkit.errors import Problem

T = TypeVar("T")
R = TypeVar("R")

_SHARED_BYTES = 1 << 16  # arrays from this size on do not go through the socket
_ALIGN = 64


@dataclass(frozen=True)
class Died:
    """Stands for the result of a task whose process ended; `exit_code` is negative for a signal."""

    exit_code: int | None


@dataclass(frozen=True)
class Failed:
    """Stands for the result of a task that raised what it should not have."""

    error: str


@dataclass
class _Worker:
    process: SpawnProcess
    connection: "Connection[Any, Any]"


class Pool(Generic[T, R]):
    """A fixed number of spawned processes; start it early, they import while the parent works.

    Processes are spawned, never forked: a fork after a threading layer has started can hang.
    """

    def __init__(self, workers: int) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._idle = [self._start() for _ in range(max(1, workers))]
        self._busy: dict[int, _Worker] = {}

    def map(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[tuple[int, R | Died | Failed]]:
        """Yield (number of the task, result) as results come; tasks are taken as processes get free."""
        numbered = iter(enumerate(tasks))
        holding: dict[int, int] = {}
        exhausted = False
        while True:
            while self._idle and not exhausted:
                try:
                    number, task = next(numbered)
                except StopIteration:
                    exhausted = True
                    break
                worker = self._send(function, task)
                holding[id(worker)] = number
            if not self._busy:
                return
            for worker in self._ready():
                number = holding.pop(id(worker))
                del self._busy[id(worker)]
                yield number, self._receive(worker)

    def _send(self, function: Callable[[T], R], task: T) -> _Worker:
        while True:
            worker = self._idle.pop()
            try:
                worker.connection.send((function, task))
            except (BrokenPipeError, ConnectionResetError):  # died while idle
                self._idle.append(self._start())
                continue
            self._busy[id(worker)] = worker
            return worker

    def _ready(self) -> list[_Worker]:
        by_connection = {worker.connection: worker for worker in self._busy.values()}
        return [by_connection[connection] for connection in wait(list(by_connection))]  # type: ignore[index]

    def _receive(self, worker: _Worker) -> R | Died | Failed:
        try:
            result: R | Failed = receive_result(worker.connection)
        except (EOFError, ConnectionResetError):
            worker.process.join()
            self._idle.append(self._start())
            return Died(worker.process.exitcode)
        self._idle.append(worker)
        return result

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def close(self) -> None:
        """End all processes; whatever they were doing is lost."""
        for worker in (*self._idle, *self._busy.values()):
            worker.connection.close()
            worker.process.terminate()
        for worker in (*self._idle, *self._busy.values()):
            worker.process.join()
        self._idle, self._busy = [], {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def why(result: Died | Failed) -> str:
    """Say what happened to a task in a few safe words."""
    if isinstance(result, Failed):
        return result.error.split(":")[0]
    return f"worker ended with code {result.exit_code}"


def death(result: Died | Failed) -> Problem:
    """Return the problem of a case whose worker died or met an unforeseen error."""
    if isinstance(result, Died):
        action = "Case skipped; run again with fewer --workers if memory ran out"
        return Problem("E-CASE-002", "worker died on this case", why(result), "", action, transient=True)
    action = "Case skipped; please report it"
    return Problem("E-CASE-003", "unexpected error", why(result), "", action, transient=True)


def default_workers() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _serve(connection: "Connection[Any, Any]") -> None:
    """Do tasks until the parent is gone; a worker's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    import toolkit.preprocess.warm  # noqa: F401  # while the parent reads the archive

    gc.freeze()  # what was imported stays: no collection need walk through it again
    while True:
        try:
            function, task = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        try:
            result = function(task)
        except Exception as error:  # a bug or a hostile file: the case fails, the run goes on
            result = Failed(f"{type(error).__name__}: {error}")
        try:
            send_result(connection, result)
        except (BrokenPipeError, ConnectionResetError):
            return


def send_result(connection: "Connection[Any, Any]", result: Any) -> None:
    """Send a result; its large arrays lie in memory that the receiver maps, where the system has that."""
    large: list[memoryview] = []

    def stays_in(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < _SHARED_BYTES or not hasattr(os, "memfd_create"):
            return True
        large.append(raw)
        return False

    data = pickle.dumps(result, protocol=5, buffer_callback=stays_in)
    connection.send((data, [raw.nbytes for raw in large]))
    if large:
        descriptor = os.memfd_create("result")
        try:
            at = 0
            for raw in large:
                done = 0
                while done < raw.nbytes:
                    done += os.pwrite(descriptor, raw[done:], at + done)
                at = _following(at, raw.nbytes)
            os.ftruncate(descriptor, at)
            send_handle(connection, descriptor, os.getppid())
        finally:
            os.close(descriptor)


def receive_result(connection: "Connection[Any, Any]") -> Any:
    """Receive what `send_result` sent; its large arrays are read-only maps, freed with the last of them."""
    data, sizes = connection.recv()
    if not sizes:
        return pickle.loads(data)  # noqa: S301  # from a process of our own
    descriptor = recv_handle(connection)
    try:
        whole = memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
    finally:
        os.close(descriptor)
    parts, at = [], 0
    for size in sizes:
        parts.append(whole[at : at + size])
        at = _following(at, size)
    return pickle.loads(data, buffers=parts)  # noqa: S301


def _following(at: int, size: int) -> int:
    """Return where the array behind one of `size` bytes at `at` begins."""
    return -(-(at + size) // _ALIGN) * _ALIGN

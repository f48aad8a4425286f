"""Worker processes that can die without taking the run with them.

Unlike `concurrent.futures`, the parent knows which task each process holds: a process that is killed
(out of memory, a crash in a decoder) costs that task alone, which is named, and is replaced. So does a task
that asks for more memory than a process is granted (`toolkit.preprocess.confine`).
"""

import gc
import mmap
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import recv_handle, send_handle
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from toolkit.errors import Problem
from toolkit.preprocess.confine import confine, share

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


@dataclass(frozen=True)
class Exhausted:
    """Stands for the result of a task that asked for more memory than its process was granted."""

    granted: int | None


Lost = Died | Failed | Exhausted


@dataclass
class _Worker:
    process: SpawnProcess
    connection: "Connection[Any, Any]"


class Pool(Generic[T, R]):
    """A fixed number of spawned processes; start it early, they import while the parent works.

    Processes are spawned, never forked: a fork after a threading layer has started can hang. Each may take
    `memory` bytes beyond what it has when it is ready: an equal share of the machine's when None, any amount
    when 0.
    """

    def __init__(self, workers: int, memory: int | None = None) -> None:
        self._memory = share(workers) if memory is None else memory
        self._context = multiprocessing.get_context("spawn")
        self._idle = [self._start() for _ in range(max(1, workers))]
        self._busy: dict[int, _Worker] = {}

    def map(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[tuple[int, R | Lost]]:
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

    def _receive(self, worker: _Worker) -> R | Lost:
        try:
            result: R | Failed | Exhausted = receive_result(worker.connection)
        except (EOFError, ConnectionResetError):
            worker.process.join()
            self._idle.append(self._start())
            return Died(worker.process.exitcode)
        if isinstance(result, Exhausted):  # what a library still holds must not fail the next task
            _end([worker])
            self._idle.append(self._start())
        else:
            self._idle.append(worker)
        return result

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._memory), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def close(self) -> None:
        """End all processes; whatever they were doing is lost."""
        _end([*self._idle, *self._busy.values()])
        self._idle, self._busy = [], {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _end(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.connection.close()
        worker.process.terminate()
    for worker in workers:
        worker.process.join()


def why(result: Lost) -> str:
    """Say what happened to a task in a few safe words."""
    if isinstance(result, Failed):
        return result.error.split(":")[0]
    if isinstance(result, Exhausted):
        return "more memory asked for" if result.granted is None else f"more than {_gib(result.granted)}"
    code = result.exit_code
    named = signal.Signals(-code).name if code is not None and -code in {*signal.Signals} else f"code {code}"
    return f"worker ended by {named}"


def death(result: Lost) -> Problem:
    """Return the problem of a case whose worker died, ran out of memory or met an unforeseen error."""
    if isinstance(result, Exhausted):
        what, granted = "case needs more memory than a worker may take", result.granted
        expected = "" if granted is None else f"at most {_gib(granted)}"
        action = "Case skipped; --worker-memory GiB grants more, fewer --workers leave more for each"
        return Problem("E-CASE-006", what, why(result), expected, action, transient=True)
    if isinstance(result, Died):
        action = "Case skipped; run again with fewer --workers if memory ran out"
        return Problem("E-CASE-002", "worker died on this case", why(result), "", action, transient=True)
    action = "Case skipped; please report it"
    return Problem("E-CASE-003", "unexpected error", why(result), "", action, transient=True)


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"


def _serve(connection: "Connection[Any, Any]", memory: int | None) -> None:
    """Do tasks until the parent is gone; a worker's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    import toolkit.preprocess.warm  # noqa: F401  # while the parent reads the archive

    gc.freeze()  # what was imported stays: no collection need walk through it again
    if memory:
        confine(memory)
    while True:
        try:
            function, task = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        try:
            send_result(connection, _result(function, task, memory))
        except MemoryError:  # it was too large to be packed: nothing of it was sent
            send_result(connection, Exhausted(memory))
        except (BrokenPipeError, ConnectionResetError):
            return


def _result(function: Callable[[Any], Any], task: Any, memory: int | None) -> Any:
    try:
        return function(task)
    except MemoryError:
        return Exhausted(memory)
    except Exception as error:  # a bug or a hostile file: the case fails, the run goes on
        return Failed(f"{type(error).__name__}: {error}")


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

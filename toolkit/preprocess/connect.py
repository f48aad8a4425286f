"""The door to a Dask cluster, and whether its workers would make the bytes that this process would.

Dask sends tasks pickled: whoever can reach a scheduler or a worker can run code there. Nothing of an
archive is unpickled anywhere; the pickles are those of this client and its cluster.
"""

import json
import logging
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, Literal

from toolkit.device import Device
from toolkit.errors import Problem, UsageError
from toolkit.preprocess.shards import look, other_code
from toolkit.preprocess.versions import differences, versions

CONNECT_S = 30.0
LOOP = ("asyncio", "tornado.application")
TALKERS = ("distributed", *LOOP)
NO_PAGES: dict[str, Any] = {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}


@contextmanager
def connect(scheduler: str | None, workers: int) -> Iterator[Any]:
    """Lend a client of a cluster, or of one of this machine where there is no address.

    `scheduler` is an address or the file that ``dask scheduler --scheduler-file`` writes. Raises
    `UsageError` E-DASK-001 without Dask and E-DASK-002 where no scheduler answers.
    """
    try:
        import cryptography  # noqa: F401  # for certificates of a cluster of this machine
        import dask
        import distributed
        from distributed.security import Security
    except ImportError as error:
        action = "Nothing done; pip install 'toolkit[dask]'"
        missing = f"{error.name or 'dask'} is not installed"
        raise UsageError(Problem("E-DASK-001", "no Dask", missing, "", action)) from error
    with ExitStack() as stack:
        stack.enter_context(_silent())
        if scheduler is None:
            stack.enter_context(dask.config.set(NO_PAGES))
            with _deaf_to_ctrl_c():
                made = distributed.LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",
                    scheduler_kwargs={"dashboard": False},
                    security=Security.temporary(),  # other users of this machine reach its ports, too
                    silence_logs=logging.CRITICAL,
                )
            scheduler = stack.enter_context(made)
        else:
            scheduler = _address(scheduler)
        try:
            client = distributed.Client(scheduler, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(_no_answer(str(scheduler))) from error
        try:
            yield client
        finally:
            with suppress(Exception):  # of a scheduler that is gone
                client.close(timeout=5)


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Start threads and processes that Ctrl-C does not reach: a terminal sends it to all, and one answers.

    They inherit which signals are held back, and so do the processes that Dask starts later.
    """
    resource_tracker.ensure_running()  # as it starts, it lets the signal through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _silent() -> Iterator[None]:
    """Keep the log of Dask and its loop from stderr: this process says itself what went wrong."""
    loggers = [
        logging.getLogger(n) for n in {*logging.root.manager.loggerDict, *LOOP} if n.startswith(TALKERS)
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _address(given: str) -> str:
    """Return the address that was given, or that stands in a scheduler file, which may be yet to come."""
    if not given.endswith(".json"):
        return given
    ends = time.monotonic() + CONNECT_S
    while True:
        try:
            return str(json.loads(Path(given).read_text())["address"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            if time.monotonic() > ends:
                raise UsageError(_no_answer(given)) from error
            time.sleep(0.2)


def _no_answer(where: str) -> Problem:
    action = "Nothing done; start one with `dask scheduler`, or name it with --scheduler ADDRESS or FILE.json"
    return Problem("E-DASK-002", "no scheduler answers", f"{CONNECT_S:.0f} s waited", "", action, (where,))


def check_workers(client: Any, device: Device) -> Literal["cpu", "cuda"]:
    """Return the device that all workers take.

    Raises `UsageError` E-DASK-003 where a worker runs other code, E-DEV-001 where one lacks the device, or
    where ``auto`` would mean two devices: their last bits differ. Workers that join later check their code
    themselves.
    """
    answers = client.run(look, device, on_error="return")
    failed = {where: type(a).__name__ for where, a in answers.items() if not isinstance(a, tuple)}
    if failed:
        errors = ", ".join(sorted({*failed.values()}))
        raise UsageError(other_code(f"toolkit does not answer ({errors})", tuple(sorted(failed))))
    other = {where: differences(versions(), theirs) for where, (theirs, _) in answers.items()}
    wrong = tuple(sorted(where for where, differs in other.items() if differs))
    if wrong:
        raise UsageError(other_code("; ".join(other[wrong[0]]), wrong))
    devices = Counter(kind for _, kind in answers.values())
    kinds = {*devices} or {"cpu" if device == "auto" else device}
    if kinds == {"cpu"} or kinds == {"cuda"}:
        return "cuda" if kinds == {"cuda"} else "cpu"
    measured = ", ".join(f"{kind} on {count}" for kind, count in sorted(devices.items()))
    action = "Nothing done; name the one that all workers have with --device"
    raise UsageError(Problem("E-DEV-001", "workers without a common device", measured, "", action))

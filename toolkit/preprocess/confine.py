"""The memory that a worker may take: a hostile or huge file costs its own case, not the machine.

What is limited is RLIMIT_DATA: private memory that can be written. Files that are mapped do not count, so a
large volume is still read through a map. Set when everything is imported, as room beyond what the worker has
then, because libraries reserve by the number of processors. Linux alone keeps such a limit.
"""

import sys

from toolkit.memory import machine_memory, text_of

LEAST_BYTES = 2 << 30  # a limit, no reservation: nine times the peak of a worker in our records, 217 MiB


def share(workers: int) -> int | None:
    """Return the bytes that each worker may take: an equal part of the memory, 2 GiB at least."""
    whole = machine_memory()
    return None if whole is None else max(whole // max(1, workers), LEAST_BYTES)


def confine(room: int) -> None:
    """Let this process take at most `room` bytes beyond what it has; does nothing but on Linux."""
    if not sys.platform.startswith("linux"):
        return
    import resource

    has = next(
        (
            int(line.split()[1]) << 10
            for line in text_of("/proc/self/status").splitlines()
            if line.startswith("VmData:")
        ),
        None,
    )
    if has is None:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = has + room if hard == resource.RLIM_INFINITY else min(has + room, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

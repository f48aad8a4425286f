"""SIGTERM and Ctrl-C while training: the step is finished and saved before the process ends.

A second Ctrl-C does not wait; the run goes on from its last checkpoint.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Request:
    """Whether somebody asked to stop."""

    def __init__(self) -> None:
        self.made = False


@contextmanager
def stop_requests() -> Iterator[Request]:
    """Yield a request that signals set; outside the main thread nobody can ask."""
    request = Request()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def asked(number: int, frame: Any) -> None:
        if number == signal.SIGINT and request.made:
            raise KeyboardInterrupt
        request.made = True

    before = {each: signal.signal(each, asked) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)

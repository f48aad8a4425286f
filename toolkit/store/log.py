"""Times and hosts of a run, in ``log/``: for people, no part of the store's identity."""

import json
import os
import platform
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from toolkit.store.files import disk_errors


class RunLog:
    """Appends a line of JSON for each case to a file of this run's own."""

    def __init__(self, store: Path) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        with disk_errors():
            (store / "log").mkdir(parents=True, exist_ok=True)
            self._file = (store / "log" / f"{stamp}-{platform.node()}-{os.getpid()}.jsonl").open("a")
        self._start = time.perf_counter()

    def case(self, case_id: str, seconds: float, bytes_read: int) -> None:
        """Note how long a worker took for a case."""
        self._write({"case_id": case_id, "seconds": round(seconds, 4), "bytes_read": bytes_read})

    def finish(self, cases: int, bytes_read: int) -> None:
        """Note the totals."""
        seconds = round(time.perf_counter() - self._start, 3)
        self._write({"cases": cases, "seconds": seconds, "bytes_read": bytes_read})

    def _write(self, value: dict[str, object]) -> None:
        with disk_errors():
            self._file.write(json.dumps(value) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with disk_errors():  # closing writes what was waiting
            self._file.close()

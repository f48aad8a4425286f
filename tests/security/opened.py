"""What Python opens while something runs, links followed; what C opens by itself is not seen."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_opened: list[str] | None = None


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _opened is not None and event in ("open", "os.listdir", "os.scandir") and arguments:
        path = arguments[0]
        if isinstance(path, str | bytes | os.PathLike):
            _opened.append(os.path.realpath(os.fsdecode(path)))


@contextmanager
def opened() -> Iterator[list[str]]:
    """Tell every file and folder that Python opens, links followed."""
    global _opened
    if not hasattr(sys, "_toolkit_hooked"):
        sys.addaudithook(_hook)  # stays: it cannot be taken away again
        sys._toolkit_hooked = True  # type: ignore[attr-defined]
    _opened = []
    try:
        yield _opened
    finally:
        _opened = None

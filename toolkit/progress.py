"""A progress bar with rates on a terminal; nothing anywhere else."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)


class Advance(Protocol):
    """Tells the bar that `count` more items and `bytes_read` more bytes are done."""

    def __call__(self, count: int = 1, bytes_read: int = 0) -> None:
        """Move the bar."""


@contextmanager
def bar(what: str, total: int | None, unit: str) -> Iterator[Advance]:
    """Show items/s, MB/s and the time left on stderr, if it is a terminal."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total, rate="")
        start, read = time.monotonic(), 0

        def advance(count: int = 1, bytes_read: int = 0) -> None:
            nonlocal read
            read += bytes_read
            progress.advance(task, count)
            seconds = max(time.monotonic() - start, 1e-9)
            done = progress.tasks[0].completed if progress.tasks else 0
            progress.update(task, rate=f"{done / seconds:.1f} {unit}/s {read / seconds / 1e6:.0f} MB/s")

        yield advance

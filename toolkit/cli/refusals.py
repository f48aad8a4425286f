"""What a run could not use, by name, on stderr."""

from typing import TYPE_CHECKING

from toolkit.cli.plain import plain

if TYPE_CHECKING:
    from toolkit.preprocess.job import Summary

SHOWN = 20


def tell_refusals(summary: "Summary", shown: int = SHOWN) -> None:
    """Name the cases and files that were refused, the empty scans, and what was ignored; `shown` of each."""
    from rich.console import Console

    talk = Console(stderr=True, soft_wrap=True, highlight=False)
    for name, problem in summary.failures[:shown]:
        talk.print(plain(f"refused {name}: {problem}"))
    for problem in summary.files[:shown]:
        talk.print(plain(f"refused file: {problem}"))
    for name in summary.empties[:shown]:
        talk.print(plain(f"empty {name}: nothing is marked in it"))
    for what, paths in sorted(summary.ignored.items()) if summary.exit_code else ():
        more = f" and {len(paths) - shown} more" if len(paths) > shown else ""
        talk.print(plain(f"ignored: {len(paths)} {what} [{', '.join(paths[:shown])}{more}]"))
    hidden = sum(max(0, len(told) - shown) for told in (summary.failures, summary.files, summary.empties))
    if hidden:
        talk.print(f"... and {hidden} more; --json lists all")

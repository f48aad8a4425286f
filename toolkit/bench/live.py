"""Two commits beside each other, measured in turns on this machine: A B A B, each in a process of its own.

The files of a commit are taken out of the repository into a temporary folder; nothing in it is touched, and
nothing is left behind. Compilers of a commit run once and are in no figure.
"""

import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from toolkit.bench.compare import LEAST, Comparison, compare
from toolkit.errors import Problem, UsageError

TURNS = 2


def bench_words(stages: Sequence[str]) -> list[str]:
    """Return the arguments of Python that measure stages in short."""
    return ["-m", "toolkit", "bench", *stages, "--quick"]


def live(
    repository: Path,
    commits: tuple[str, str],
    words: Sequence[str],
    least: float = LEAST,
    say: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Measure two commits in turns and compare them.

    Parameters
    ----------
    repository
        A folder inside it.
    words
        Arguments of Python, run in a commit's folder; ``--out FILE`` is added.

    Raises
    ------
    UsageError
        E-BENCH-005 where a commit is not there, or its measurement fails.
    """
    with tempfile.TemporaryDirectory(prefix="toolkit-live-") as name:
        folder = Path(name)
        places = [
            _taken_out(repository, commit, folder / side) for commit, side in zip(commits, "AB", strict=True)
        ]
        records = [folder / "A.jsonl", folder / "B.jsonl"]
        for turn in range(TURNS):
            for commit, place, record in zip(commits, places, records, strict=True):
                say(f"turn {turn + 1} of {TURNS}: {commit}")
                _measure(commit, place, record, words)
        return compare(records[0], records[1], least)


def _taken_out(repository: Path, commit: str, place: Path) -> Path:
    """Write the files of a commit into a new folder."""
    words = ["git", "archive", "--format=tar", "--end-of-options", commit]
    done = subprocess.run(words, cwd=_top(repository), capture_output=True, check=False)  # noqa: S603  # no shell
    if done.returncode:
        raise _failed(commit, "is no commit of this repository", done.stderr.decode(errors="replace"))
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(place, filter="data")
    return place


def _top(repository: Path) -> Path:
    words = ["git", "rev-parse", "--show-toplevel"]
    try:
        done = subprocess.run(words, cwd=repository, capture_output=True, text=True, check=True)  # noqa: S603  # no shell
    except (OSError, subprocess.CalledProcessError):
        return repository
    return Path(done.stdout.strip())


def _measure(commit: str, place: Path, record: Path, words: Sequence[str]) -> None:
    run = [sys.executable, *words, "--out", str(record)]
    environment = {**os.environ, "PYTHONPATH": str(place)}
    done = subprocess.run(run, cwd=place, env=environment, capture_output=True, text=True, check=False)  # noqa: S603  # no shell
    if done.returncode:
        raise _failed(commit, f"ends its measurement with exit code {done.returncode}", done.stderr)


def _failed(commit: str, what: str, told: str) -> UsageError:
    last = (told.strip().splitlines() or [""])[-1]
    action = "Nothing compared; both commits must have toolkit bench"
    return UsageError(Problem("E-BENCH-005", f"{commit} {what}", f"{last:.200}", "", action))

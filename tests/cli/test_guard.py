"""How a command ends, whenever a signal comes."""

import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.cli.guard import INTERRUPTED

TERMINATE = "os.kill(os.getpid(), signal.SIGTERM)"


def ended(before: str, *arguments: object) -> int:
    code = f"import os, signal; {before}\nfrom toolkit.cli import main\nmain()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False).returncode


def test_sigterm_while_a_command_runs(tmp_path: Path) -> None:
    runs = f"import toolkit.phantom.archive as a; a.write_archive = lambda *_, **__: {TERMINATE}"
    assert ended(runs, "phantom", tmp_path / "archive") == INTERRUPTED


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["inspect", "missing"], 2)])
def test_sigterm_when_a_command_has_ended(arguments: list[str], code: int) -> None:
    late = f"import atexit; atexit.register(lambda: {TERMINATE})"
    assert ended(late, *arguments) == code

"""Two commits in turns: a deliberate slow-down is found, and the repository stays as it was."""

import subprocess
from pathlib import Path

import pytest

from toolkit.bench import live as room
from toolkit.bench.live import bench_words, live
from toolkit.errors import UsageError

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys, time
from pathlib import Path
from toolkit.bench.record import append, figure
from toolkit.bench.stopwatch import Effort, in_turns, rates
taken = in_turns({{"": lambda turn: time.sleep({sleep})}}, Effort(10, 0.0))[""]
append([figure("x/sleep", rates(taken, 1), "cases/s")], Path(sys.argv[2]))
"""


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    return subprocess.run(
        ["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Commits `fast`, `slow` (by a fifth) and `broken`, each a script that uses this checkout."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    scripts = {
        "fast": SCRIPT.format(sleep=0.05),
        "slow": SCRIPT.format(sleep=0.0625),
        "broken": "1/0",
    }
    for name, text in scripts.items():
        (folder / "measure.py").write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + text)
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "-m", name)
        git(folder, "tag", name)
    return folder


def test_a_slow_down_by_a_fifth_is_found(repository: Path) -> None:
    said: list[str] = []
    found = live(repository, ("fast", "slow"), ["measure.py"], say=said.append)
    (change,) = found.changes
    assert change.verdict == "worse"
    assert change.ratio == pytest.approx(0.8, abs=0.04)
    assert [text.rpartition(" ")[2] for text in said] == ["fast", "slow"] * room.TURNS
    assert git(repository, "status", "--porcelain") == ""
    assert git(repository, "worktree", "list").count("\n") == 1


def test_what_cannot_be_measured_is_refused(repository: Path) -> None:
    with pytest.raises(UsageError, match=r"broken ends its measurement .* ZeroDivisionError"):
        live(repository, ("broken", "fast"), ["measure.py"])
    for nothing in ("absent", "--output=x"):
        with pytest.raises(UsageError, match="E-BENCH-005"):
            live(repository, (nothing, "fast"), ["measure.py"])
    assert git(repository, "status", "--porcelain") == ""


def test_the_words_are_those_of_the_command() -> None:
    assert bench_words(["extract"]) == ["-m", "toolkit", "bench", "extract", "--quick"]

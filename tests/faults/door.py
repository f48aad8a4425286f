"""The shim between a process and its files: built with the C compiler at hand, armed in a forked child."""

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
FAULTS = (
    "none",
    "killed before",
    "killed after",
    "killed amid",
    "disk full once",
    "disk full",
    "input/output error once",
    "input/output error",
    "short write",
    "bit flipped",
    "delay",
)
PRELOADED = "TOOLKIT_FAULTS_SHIM"


@dataclass(frozen=True)
class Fault:
    """What happens at the n-th operation; `chance` decides which bit, and how short."""

    kind: str = "none"
    number: int = 0
    chance: int = 0

    @property
    def kills(self) -> bool:
        """Whether the process ends there."""
        return self.kind.startswith("killed")


def compiler() -> str | None:
    """Return a C compiler for Linux, or None: then there is no shim."""
    return (shutil.which("cc") or shutil.which("gcc")) if sys.platform == "linux" else None


def preloaded() -> bool:
    """Tell whether this process runs above the shim."""
    return PRELOADED in os.environ


def begin_again_above_the_shim() -> None:
    """Build the shim and run this very command above it."""
    found = compiler()
    assert found is not None, "no C compiler"
    place = Path(tempfile.mkdtemp(prefix="toolkit-faults-")) / "shim.so"
    subprocess.run([found, "-shared", "-fPIC", "-O2", "-o", place, SOURCE, "-ldl", "-lpthread"], check=True)
    more = {"LD_PRELOAD": str(place), PRELOADED: str(place)}
    command = [sys.executable, "-m", "tests.faults", *sys.argv[1:]]
    os.execve(sys.executable, command, {**os.environ, **more})


def arm(root: Path, journal: Path, fault: Fault) -> None:
    """Watch what this process does below `root` from now on; `journal` lies elsewhere."""
    shim = ctypes.CDLL(os.environ[PRELOADED])
    descriptor = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    number, chance = ctypes.c_uint64(fault.number), ctypes.c_uint64(fault.chance)
    shim.faults_arm(os.fsencode(root), descriptor, FAULTS.index(fault.kind), number, chance)


def disarm() -> None:
    """Watch no longer."""
    ctypes.CDLL(os.environ[PRELOADED]).faults_disarm()

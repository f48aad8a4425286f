"""Whether what is kept for the user can be written: the header index, compiled kernels, the id key."""

import os
import tempfile
from pathlib import Path

from platformdirs import user_cache_path, user_config_path

from toolkit.doctor.machine import existing
from toolkit.doctor.report import Finding


def judge_folders(cache: Path | None = None, config: Path | None = None) -> list[Finding]:
    """Return a finding for each folder (default: the user's); nothing is made, and no key is read."""
    kept = writable(cache or user_cache_path("toolkit"))
    folder = config or user_config_path("toolkit")
    own = folder / "id.key"
    key = os.access(own, os.R_OK) if os.access(own, os.F_OK) else writable(folder)
    return [
        _finding(
            "index cache",
            kept,
            "every run reads all headers, and kernels are compiled at every start (20 s)",
            "let XDG_CACHE_HOME name a folder that can be written, or give --index-cache",
        ),
        _finding(
            "id key",
            key,
            "preprocess refuses to start (E-KEY-001)",
            "give a key with --id-key FILE, or let XDG_CONFIG_HOME name a folder that can be written",
        ),
    ]


def writable(folder: Path) -> bool:
    """Tell whether a file can be written to a folder, or to where it would be made."""
    try:
        with tempfile.TemporaryFile(dir=existing(folder)) as file:
            file.write(b"\0")
            file.flush()
    except OSError:
        return False
    return True


def _finding(name: str, good: bool, consequence: str, fix: str) -> Finding:
    if good:
        return Finding("self-test", name, "ok", "can be written")
    return Finding("self-test", name, "trap", "cannot be written", consequence, fix)

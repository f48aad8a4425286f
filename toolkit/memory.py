"""How much memory, and how many cores, this machine grants."""

import os
import re
from pathlib import Path


def memory(meminfo: str, memory_max: str) -> int | None:
    """Return the machine's memory in bytes, or a control group's limit where that is lower."""
    found = re.search(r"^MemTotal:\s*(\d+) kB", meminfo, re.MULTILINE)
    sizes = [int(found[1]) * 1024] if found else []
    if memory_max.strip().isdigit():
        sizes.append(int(memory_max))
    return min(sizes, default=None)


def machine_memory() -> int | None:
    """Return what this process and its children may take together, in bytes; None where nobody says."""
    return memory(text_of("/proc/meminfo"), text_of("/sys/fs/cgroup/memory.max"))


def text_of(path: str) -> str:
    """Return what a file of the system says; nothing where it is not there."""
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

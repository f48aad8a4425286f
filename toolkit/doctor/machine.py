"""What the machine has: read from the system, where the system says it."""

import contextlib
import ctypes
import locale
import platform
import re
import shutil
import sys
from pathlib import Path

from platformdirs import user_cache_path

from toolkit.device import cpu_name
from toolkit.doctor.report import Driver, Machine
from toolkit.memory import cores, machine_memory, text_of

UNITS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX512-BF16",
    "amx_bf16": "AMX",
    "asimd": "NEON",
    "sve": "SVE",
}


def read_machine() -> Machine:
    """Return what this machine has."""
    info = text_of("/proc/cpuinfo")
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        cpu=cpu_name(info),
        cores=cores(),
        quota_cores=quota(text_of("/sys/fs/cgroup/cpu.max")),
        vector_units=vector_units(info),
        memory_bytes=machine_memory(),
        shared_memory_bytes=_disk(Path("/dev/shm"), free=False),  # noqa: S108  # its size is what is asked
        cache_free_bytes=_disk(user_cache_path("toolkit"), free=True),
        encoding=f"{locale.getpreferredencoding(False)}, {sys.getfilesystemencoding()}",
    )


def vector_units(cpuinfo: str) -> tuple[str, ...]:
    """Return the vector units that /proc/cpuinfo names, among those that matter here."""
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    flags = set(found[1].split()) if found else set()
    return tuple(name for flag, name in UNITS.items() if flag in flags)


def quota(cpu_max: str) -> float | None:
    """Return the cores that ``cpu.max`` of a control group grants; None for no limit."""
    parts = cpu_max.split()
    if len(parts) != 2 or parts[0] == "max":
        return None
    return int(parts[0]) / int(parts[1])


def read_driver() -> Driver | None:
    """Return the NVIDIA driver; None where there is none that answers."""
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        cuda, count = ctypes.c_int(), ctypes.c_int()
        if library.cuInit(0) or library.cuDriverGetVersion(ctypes.byref(cuda)):
            return None
        if library.cuDeviceGetCount(ctypes.byref(count)):
            return None
    except (OSError, AttributeError):
        return None
    major, rest = divmod(cuda.value, 1000)
    return Driver(driver_version(text_of("/proc/driver/nvidia/version")), (major, rest // 10), count.value)


def driver_version(text: str) -> str:
    """Return the version that /proc/driver/nvidia/version names, ``unknown`` where it names none."""
    found = re.search(r"Kernel Module.*?\s(\d+\.\d+[\d.]*)\s", text)
    return found[1] if found else "unknown"


def existing(folder: Path) -> Path:
    """Return a folder, or what is nearest above it and exists."""
    for each in (folder, *folder.parents):
        with contextlib.suppress(OSError):  # a folder that may not be looked into
            if each.exists():
                return each
    return Path.cwd()


def _disk(folder: Path, *, free: bool) -> int | None:
    try:
        usage = shutil.disk_usage(existing(folder) if free else folder)
    except OSError:
        return None
    return usage.free if free else usage.total

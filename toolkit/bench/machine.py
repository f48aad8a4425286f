"""The machine that figures belong to: processor, GPU, caches, versions. No host name, no path."""

import os
import platform
import re
import shutil
import subprocess
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from toolkit.device import cpu_name
from toolkit.memory import cores

Kind = Literal["cpu", "cuda"]
PACKAGES = (
    *("toolkit", "numpy", "numba", "numba-cuda", "scipy", "pydicom", "isal", "torch"),
    *("nvidia-dali-cuda120", "cupy-cuda12x", "cupy-cuda13x", "triton"),
    *("SimpleITK", "itk", "monai", "torchio", "kornia", "volresample", "batchaug"),
)
GPU_FIELDS = {
    "name": "name",
    "driver_version": "driver",
    "power.limit": "power_limit_w",
    "clocks.sm": "clock_sm_mhz",
    "clocks.max.sm": "clock_max_sm_mhz",
    "clocks.mem": "clock_memory_mhz",
    "memory.total": "memory_mib",
}
USUAL_CACHE = 32 << 20
"""Bytes of a last-level cache where the system does not say."""


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that a figure may depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Return the checked-out commit, ``-dirty`` where tracked files differ; ``unknown`` where installed."""
    if not _said("git", "ls-files", Path(__file__).name):
        return "unknown"  # an installed copy may lie inside somebody else's repository
    head = _said("git", "rev-parse", "--short=10", "HEAD") or "unknown"
    return f"{head}-dirty" if _said("git", "status", "--porcelain", "--untracked-files=no") else head


def gpu() -> dict[str, Any] | None:
    """Return what nvidia-smi says of the first visible GPU, with CUDA and cuDNN; None without one."""
    if shutil.which("nvidia-smi") is None:
        return None
    number = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
    ask = f"--query-gpu={','.join(GPU_FIELDS)}"
    told = _said("nvidia-smi", f"--id={number}", ask, "--format=csv,noheader,nounits")
    return parsed(told) | _cuda() if told else None


def parsed(line: str) -> dict[str, Any]:
    """Return the fields of a line of nvidia-smi by name; numbers as such, what it does not know as None."""
    found: dict[str, Any] = {}
    for name, text in zip(GPU_FIELDS.values(), line.strip().split(","), strict=False):
        value = text.strip()
        if value.startswith("[") or value in ("", "N/A"):
            found[name] = None
        elif name in ("name", "driver"):
            found[name] = value
        else:
            found[name] = float(value)
    return found


def _cuda() -> dict[str, Any]:
    import torch

    cudnn = torch.backends.cudnn.version() if torch.cuda.is_available() else None  # type: ignore[no-untyped-call]
    return {"cuda": torch.version.cuda, "cudnn": cudnn}


def context(device: Kind = "cpu") -> dict[str, Any]:
    """Return what every figure of a run has in common."""
    found = gpu()
    return {
        "device": _gpu_name() if device == "cuda" else f"{cores()}x {cpu_name()}",
        "cpu": cpu_name(),
        "cores": cores(),
        "gpu": found,
        "load_1min_at_end": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()}",
        "versions": versions(),
        "commit": commit(),
        "date": date.today().isoformat(),
    }


def _gpu_name() -> str:
    import torch

    return str(torch.cuda.get_device_name())


def last_level_cache(device: Kind = "cpu") -> int:
    """Return the bytes of the largest cache of a device."""
    if device == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(0).L2_cache_size)
    sizes = [
        _bytes(path.read_text()) for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    ]
    return max(sizes, default=USUAL_CACHE) or USUAL_CACHE


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+)([KMG]?)", text.strip())
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]] if match else 0


def _said(*words: str) -> str:
    """Return what a program printed; nothing where it is absent or fails."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(words, cwd=here, capture_output=True, text=True, check=True, timeout=30)  # noqa: S603  # fixed words
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def slug(device: str) -> str:
    """Return a device's name as it stands in a file name."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


def peak_reset() -> bool:
    """Forget the peak of this process' resident memory; False where the system cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_mib() -> float:
    """Return the peak of this process' resident memory in MiB, since `peak_reset` where that works."""
    status = Path("/proc/self/status")
    if status.exists():
        match = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        if match:
            return int(match[1]) / 1024
    import resource

    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20

"""Which device does the work: asked for by name, never switched silently."""

import platform
import re
from pathlib import Path
from typing import Literal

from toolkit.errors import Problem, UsageError

Device = Literal["auto", "cpu", "cuda"]


def resolve(device: Device) -> Literal["cpu", "cuda"]:
    """Return the device to use; ``auto`` takes the GPU where CuPy sees one.

    Raises `UsageError` E-DEV-001 where a GPU is asked for and there is none.
    """
    if device == "cpu":
        return "cpu"
    reason = _why_no_gpu()
    if not reason:
        return "cuda"
    if device == "auto":
        return "cpu"
    action = "Nothing done; install the extra cu12 or cu13 that fits the driver, or use --device cpu"
    raise UsageError(Problem("E-DEV-001", "no usable GPU", reason, "CuPy and a CUDA device", action))


def cpu_name(cpuinfo: str | None = None) -> str:
    """Return the processor's own name, as /proc/cpuinfo has it (or its text that is given)."""
    if cpuinfo is None:
        source = Path("/proc/cpuinfo")
        cpuinfo = source.read_text("utf-8", "replace") if source.exists() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def _why_no_gpu() -> str:
    try:
        import cupy
        from numba import cuda  # noqa: F401
    except ImportError as error:
        return f"{error.name or 'CuPy'} is not installed"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # CuPy raises its own types, and others where the driver is absent
        return f"the driver says {type(error).__name__}"
    return "" if count else "0 devices"

"""What a run was computed with, and whether a resumed run can equal the one that was interrupted."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from toolkit import __version__
from toolkit.device import cpu_name
from toolkit.training.precision import Decision

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "numpy", "numba", "scipy", "nvidia-dali-cuda120", "cupy-cuda12x", "cupy-cuda13x")


def describe(device: "torch.device", decision: Decision, loader: str, ranks: int) -> dict[str, Any]:
    """Return versions, device, threads and decisions as plain JSON; no host name, no path."""
    import torch

    told: dict[str, Any] = {
        "toolkit": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "ranks": ranks,
        "device": str(device.type),
        "amp": decision.amp,
        "compile": decision.compile,
        "impl": decision.impl,
        "impl_why": decision.impl_why,
        "decided": decision.why,
        "loader": loader,
    }
    if decision.graph:
        told["graph"] = True
    if device.type == "cuda":
        told["gpu"] = torch.cuda.get_device_name(device)
        told["cuda"] = torch.version.cuda
        told["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return told


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return what differs, in words: each may change the last bits of a sum."""
    names = sorted({*before, *now} - {"decided", "impl_why"})
    return [
        f"{name}: {before.get(name)} before, {now.get(name)} now"
        for name in names
        if before.get(name) != now.get(name)
    ]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

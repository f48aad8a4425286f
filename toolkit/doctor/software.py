"""What is installed, what torch was built with, and what ``auto`` makes of it. Nothing raises."""

import importlib
import os
import platform
import shutil
import sysconfig
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

from toolkit import __version__
from toolkit.device import resolve
from toolkit.doctor.facts import Facts, Software, Torch
from toolkit.doctor.flaws import FLAWS
from toolkit.doctor.machine import read_driver, read_machine
from toolkit.doctor.report import Chosen, Gpu
from toolkit.errors import UsageError

PACKAGES = ("numpy", "scipy", "numba", "numba-cuda", "triton", "dataclasses", *FLAWS)
FAMILIES = {"cupy": "cupy", "dali": "nvidia-dali"}
LAYERS = {"tbb": "tbbpool", "omp": "omppool", "workqueue": "workqueue"}
BFLOAT16_UNITS = {"AVX512-BF16", "AMX"}


def gather() -> Facts:
    """Return all facts of this machine; takes seconds, since torch is imported and probed."""
    machine = read_machine()
    torch, gpus = read_torch(probe=bool(BFLOAT16_UNITS & {*machine.vector_units}))
    return Facts(machine, read_driver(), gpus, torch, read_software(torch), choose(torch))


def read_torch(*, probe: bool) -> tuple[Torch, tuple[Gpu, ...]]:
    """Return what torch says of itself and of the GPUs; with `probe` it multiplies bfloat16, too."""
    try:
        return _read_torch(probe)
    except Exception as error:  # a broken install: a missing library is an OSError, others are anything
        return Torch(error=cause(error)), ()


def _read_torch(probe: bool) -> tuple[Torch, tuple[Gpu, ...]]:
    import torch

    from toolkit.training.precision import gradient_error

    sees, seen = torch.cuda.is_available(), []
    for number in range(torch.cuda.device_count() if sees else 0):
        properties = torch.cuda.get_device_properties(number)
        capability = (properties.major, properties.minor)
        seen.append(Gpu(properties.name, capability, properties.total_memory))
    told = Torch(
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        arches=tuple(torch.cuda.get_arch_list()),
        threads=torch.get_num_threads(),
        sees_gpu=sees,
        bfloat16_error=gradient_error("cpu") if probe else None,
    )
    return told, tuple(seen)


def read_software(torch: Torch) -> Software:
    """Return versions, builds, threading layers and compilers."""
    names = {each.metadata["Name"] or "" for each in distributions()}
    builds = sorted(name for name in names if name.startswith(tuple(FAMILIES.values())))
    versions: dict[str, str | None] = {"toolkit": __version__, "python": platform.python_version()}
    versions |= {name: _version(name) for name in PACKAGES}
    for family, start in FAMILIES.items():
        of_it = [_version(name) for name in builds if name.startswith(start)]
        versions[family] = of_it[0] if of_it else None
    versions |= {"cuda": torch.cuda, "cudnn": None if torch.cudnn is None else cudnn_version(torch.cudnn)}
    return Software(
        versions,
        tuple(builds),
        tuple(name for name, module in LAYERS.items() if _importable(f"numba.np.ufunc.{module}")),
        compiler=any(map(shutil.which, filter(None, (os.environ.get("CXX"), "g++", "clang++", "cl")))),
        headers=Path(sysconfig.get_path("include"), "Python.h").is_file(),
    )


def choose(torch: Torch) -> Chosen:
    """Return what ``auto`` takes."""
    why_no_gpu = ""
    try:
        device = resolve("cuda")
    except UsageError as error:
        device, why_no_gpu = "cpu", error.problem.measured
    except Exception as error:  # CuPy or Numba of a broken install raise anything when they are imported
        device, why_no_gpu = "cpu", cause(error)
    if torch.error:
        return Chosen(device, why_no_gpu, why=f"torch cannot be imported: {torch.error}")
    from toolkit.training.config import Compute
    from toolkit.training.precision import decide

    try:
        decision = decide(Compute(), "cuda" if device == "cuda" and torch.sees_gpu else "cpu")
    except Exception as error:  # a torch that imports, and computes nothing
        return Chosen(device, why_no_gpu, why=f"torch ended with {cause(error)}")
    return Chosen(device, why_no_gpu, decision.amp, decision.compile, decision.why)


def cudnn_version(number: int) -> str:
    """Return 91501 as 9.15.1, 8902 as 8.9.2."""
    major = 10000 if number >= 90000 else 1000
    return f"{number // major}.{number % major // 100}.{number % 100}"


def cause(error: Exception) -> str:
    """Return what a broken install says, without the paths of this machine."""
    name = getattr(error, "name", None)
    return f"{type(error).__name__} of {name}" if isinstance(name, str) else type(error).__name__


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _importable(module: str) -> bool:
    try:
        importlib.import_module(module)
    except Exception:  # a shared library that is not there, or Numba itself is broken
        return False
    return True

"""Known traps of torch, CUDA, cuDNN, CuPy and DALI: each a pure function from facts to one finding."""

import re
from collections.abc import Callable

from toolkit.doctor.facts import Facts
from toolkit.doctor.report import Finding, Status

CUDNN = 91500
CUPY_BUILD, DALI_BUILD = r"cupy-cuda(\d+)x", r"nvidia-dali-cuda(\d+)0"


def torch_29(facts: Facts) -> Finding:
    """Judge torch 2.9, whose half-precision conv3d is 4 to 20 times slower, in up to 17 times the memory.

    It leaves cuDNN out (pytorch 163539); 2.9.1 takes it from cuDNN 9.15 on, and pins an older one.
    """
    found = facts.software.versions.get("torch") or "not installed"
    if not re.match(r"2\.9(\D|$)", found):
        return _finding("half-precision conv3d of torch", "ok", f"torch {found}")
    why = "on a GPU 3-D convolutions in half precision are 4 to 20 times slower"
    return _finding("half-precision conv3d of torch", "trap", f"torch {found}", why, "torch 2.10 or newer")


def cudnn(facts: Facts) -> Finding:
    """Judge cuDNN: 9.8 to 9.14 give wrong half-precision conv3d, so torch leaves cuDNN out with them."""
    number, name = facts.torch.cudnn, "half-precision conv3d of cuDNN"
    if number is None:
        return _finding(name, "ok", "torch is built without cuDNN")
    told = f"cuDNN {facts.software.versions.get('cudnn')}"
    if number >= CUDNN:
        return _finding(name, "ok", told)
    why = "3-D convolutions in half precision are wrong or several times slower"
    return _finding(
        name, "trap", told, why, "torch 2.10 or newer with the cuDNN that it asks for, 9.15 at least"
    )


def torch_build(facts: Facts) -> Finding:
    """Judge torch's build: it must be for CUDA, and for none newer than the driver's."""
    name, driver, built = "torch and the GPU", facts.driver, facts.torch.cuda
    if facts.torch.error or driver is None or not driver.gpus:
        return _finding(name, "ok", "no GPU" if driver is None or not driver.gpus else "no torch")
    runs = f"the driver {driver.version} runs CUDA {_dotted(driver.cuda)}"
    if facts.torch.sees_gpu:
        return _finding(name, "ok", f"torch is built for CUDA {built}; {runs}")
    if built is None:
        told = "torch is a CPU build, and there is a GPU"
        return _finding(name, "trap", told, _UNUSED, "install a CUDA build of torch that fits the driver")
    told = f"torch, built for CUDA {built}, sees no GPU; {runs}"
    return _finding(name, "trap", told, _UNUSED, "a newer driver, or a torch for its CUDA")


def architecture(facts: Facts) -> Finding:
    """Tell whether torch holds kernels for every GPU.

    Binary code runs on a later minor of its major (CUDA, Binary Compatibility); ``compute_`` is compiled at
    the first use, for anything newer.
    """
    name, wrong = "kernels for the GPU", []
    for gpu in () if facts.torch.error else facts.gpus:
        if not any(_runs(arch, gpu.compute_capability) for arch in facts.torch.arches):
            wrong.append(f"{gpu.name} has {_dotted(gpu.compute_capability)}")
    if not wrong:
        return _finding(name, "ok", f"{len(facts.gpus)} GPUs" if facts.gpus else "no GPU")
    told = f"{', '.join(wrong)}; torch has {', '.join(facts.torch.arches) or 'none'}"
    return _finding(name, "trap", told, "torch fails there: no kernel image", "a torch that is built for it")


def build_of(name: str, pattern: str, facts: Facts) -> Finding:
    """Judge a build: one for a newer CUDA than the driver's does not run; two share one folder."""
    what = f"{name} and the driver"
    found = [m[0] for each in facts.software.builds if (m := re.fullmatch(pattern, each))]
    majors = [int(m[1]) for each in found if (m := re.fullmatch(pattern, each))]
    if len(found) > 1:
        told, fix = " and ".join(found), "uninstall all, then install the one for your CUDA"
        return _finding(what, "trap", told, "they share a folder and overwrite each other", fix)
    if not found:
        return _finding(what, "ok", "not installed")
    if facts.driver is None or majors[0] <= facts.driver.cuda[0]:
        runs = "no driver" if facts.driver is None else f"the driver runs CUDA {_dotted(facts.driver.cuda)}"
        return _finding(what, "ok", f"{found[0]}; {runs}")
    told = f"{found[0]}; the driver runs CUDA {_dotted(facts.driver.cuda)}"
    fix = f"a driver for CUDA {majors[0]}, or the extra cu{facts.driver.cuda[0]}"
    return _finding(what, "trap", told, f"{name} cannot use the GPU", fix)


def cupy_build(facts: Facts) -> Finding:
    """Judge CuPy's build."""
    return build_of("CuPy", CUPY_BUILD, facts)


def dali_build(facts: Facts) -> Finding:
    """Judge DALI's build; one for an older CUDA runs on newer drivers."""
    return build_of("DALI", DALI_BUILD, facts)


def cupy_alone(facts: Facts) -> Finding:
    """Compare CuPy, which extraction asks for the GPU, with torch, which training asks."""
    name, cupy = "CuPy and torch", facts.chosen.device == "cuda"
    if facts.torch.error or cupy == facts.torch.sees_gpu:
        return _finding(name, "ok", "both see a GPU" if cupy else "neither sees a GPU")
    if cupy:
        why = "train and predict fail unless --device cpu is given"
        return _finding(name, "trap", "CuPy sees a GPU, torch does not", why, "install a CUDA build of torch")
    told = f"torch sees a GPU, CuPy does not ({facts.chosen.why_no_gpu})"
    fix = "install the extra cu12 or cu13 that fits the driver"
    return _finding(name, "trap", told, _UNUSED, fix)


def compiler(facts: Facts) -> Finding:
    """`torch.compile` builds C++ on a CPU, and on a GPU a launcher that includes Python.h."""
    name, on = "compiler for torch.compile", facts.chosen.compile not in ("", "off")
    missing = [] if facts.software.compiler else ["no C++ compiler"]
    if facts.chosen.device == "cuda" and not facts.software.headers:
        missing.append("no Python.h")
    if not missing:
        return _finding(name, "ok", "there")
    why = "training stops at its first step" if on else "compute.compile other than off would stop training"
    fix = "install g++ and python3-dev, or set compute.compile to off"
    return _finding(name, "trap" if on else "note", ", ".join(missing), why, fix)


def _runs(arch: str, capability: tuple[int, int]) -> bool:
    """Tell whether code for ``sm_86`` or ``compute_90`` runs on a capability; ``sm_90a`` on its own only."""
    found = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", arch)
    if not found:
        return False
    built = int(found[2]), int(found[3])
    if found[4] == "a":
        return built == capability
    if found[1] == "compute" and not found[4]:
        return built <= capability
    return built[0] == capability[0] and built[1] <= capability[1]


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _finding(name: str, status: Status, found: str, consequence: str = "", fix: str = "") -> Finding:
    return Finding("traps", name, status, found, consequence, fix)


_UNUSED = "the GPU is not used"
GPU_TRAPS: tuple[Callable[[Facts], Finding], ...] = (
    torch_29,
    cudnn,
    torch_build,
    architecture,
    cupy_alone,
    cupy_build,
    dali_build,
    compiler,
)

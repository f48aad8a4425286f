"""Known traps of machine and software: each a pure function from facts to one finding."""

import re
from collections.abc import Callable

from toolkit.doctor.facts import Facts
from toolkit.doctor.flaws import FLAWS
from toolkit.doctor.report import Finding, Status
from toolkit.doctor.traps_gpu import GPU_TRAPS

LEAST_DISK = 2 << 30
LEAST_SHARED = 1 << 30
"""NCCL and PyTorch's workers pass tensors through /dev/shm; containers give 64 MiB unless told otherwise."""


def traps(facts: Facts) -> list[Finding]:
    """Return one finding for each known trap, sprung or not."""
    flaws = [flaw(facts, name) for name in FLAWS]
    return [each(facts) for each in (*GPU_TRAPS, *_TRAPS)] + flaws


def vector_units(facts: Facts) -> Finding:
    """Without units for bfloat16, oneDNN is not used for it: one convolution took 1.6 s instead of 18 ms."""
    units = facts.machine.vector_units
    told = ", ".join(units) or "none that matter"
    if {"AVX512-BF16", "AMX"} & {*units}:
        return _finding("bfloat16 units of the CPU", "ok", told)
    why = "bfloat16 on this CPU is many times slower than float32"
    return _finding("bfloat16 units of the CPU", "note", told, why, "leave compute.amp at auto")


def bfloat16_gradients(facts: Facts) -> Finding:
    """Judge bfloat16 gradients of small 3-D convolutions on the CPU (`toolkit.training.precision`)."""
    from toolkit.training.precision import WRONG

    name, error = "bfloat16 gradients on the CPU", facts.torch.bfloat16_error
    if error is None:
        return _finding(name, "ok", "not used")
    measured = f"relative error {error:.2g}, {WRONG:g} allowed"
    if error <= WRONG:
        return _finding(name, "ok", measured)
    why = "training on the CPU takes float32, and refuses bfloat16 (E-DEV-002)"
    fix = "another torch; 2.13 is wrong with AVX512-BF16, on 2^3 voxels and fewer"
    return _finding(name, "trap", measured, why, fix)


def threading_layer(facts: Facts) -> Finding:
    """Numba's own layer, workqueue, ends the process when two threads enter parallel functions."""
    layers = facts.software.numba_layers
    told = f"{', '.join(layers) or 'none'} there; our kernels use none: serial, without the GIL"
    if not layers or layers[0] != "workqueue":
        return _finding("Numba's threading layer", "ok", told)
    why = "parallel=True functions of your own, called from two threads, would end the process"
    return _finding("Numba's threading layer", "note", told, why, "for such functions: pip install tbb")


def shared_memory(facts: Facts) -> Finding:
    """Judge /dev/shm, which several GPUs and worker processes of PyTorch need."""
    size, name = facts.machine.shared_memory_bytes, "shared memory"
    if size is None or size >= LEAST_SHARED:
        told = "no /dev/shm" if size is None else f"{size / 2**30:.1f} GiB in /dev/shm"
        return _finding(name, "ok", told)
    told = f"{size / 2**20:.0f} MiB in /dev/shm"
    fix = "start the container with --shm-size=1g or more, or --ipc=host"
    if len(facts.gpus) > 1:
        return _finding(name, "trap", told, "NCCL needs more for several GPUs, and torchrun fails", fix)
    why = "our loaders are threads and need none; worker processes of PyTorch or DALI would end with SIGBUS"
    return _finding(name, "note", told, why, fix)


def threads(facts: Facts) -> Finding:
    """More threads than cores wait for each other at every barrier; fewer leave cores idle."""
    name, used, cores = "threads of torch", facts.torch.threads, facts.machine.cores
    told = f"{used} for {cores} cores"
    fix = "unset OMP_NUM_THREADS, or set compute.threads"
    if used > cores and not facts.torch.error:
        return _finding(name, "trap", told, "steps on the CPU are several times slower", fix)
    if facts.torch.error or 2 * used >= cores:  # one of the two threads of a core is enough
        return _finding(name, "ok", told)
    return _finding(name, "note", told, "training on the CPU leaves cores idle", fix)


def quota(facts: Facts) -> Finding:
    """Judge the container's quota: who counts cores does not see it, and starts too many threads."""
    granted, cores = facts.machine.quota_cores, facts.machine.cores
    if granted is None or granted >= cores:
        return _finding("CPU quota", "ok", f"{cores} cores, no lower quota")
    told = f"{granted:g} cores granted, {cores} to be seen"
    few = max(1, int(granted))
    fix = f"--workers {few}, --set compute.threads={few}, or pin the container to its cores"
    return _finding(
        "CPU quota", "trap", told, "more workers and threads start than may run, and are halted", fix
    )


def disk(facts: Facts) -> Finding:
    """Compiled kernels and the header index need room."""
    free = facts.machine.cache_free_bytes
    if free is None or free >= LEAST_DISK:
        told = "not known" if free is None else f"{free / 1e9:.0f} GB free at the cache folder"
        return _finding("disk", "ok", told)
    why = "kernels compile at every start and headers are read at every run"
    fix = "make room, or let XDG_CACHE_HOME name another folder"
    return _finding("disk", "trap", f"{free / 1e6:.0f} MB free at the cache folder", why, fix)


def encoding(facts: Facts) -> Finding:
    """File names and text of other alphabets need UTF-8."""
    told = facts.machine.encoding
    if all(part.strip().lower().replace("-", "") == "utf8" for part in told.split(",")):
        return _finding("encoding", "ok", told)
    why = "names and tables in other alphabets cannot be read or shown"
    return _finding("encoding", "trap", told, why, "set PYTHONUTF8=1, or LC_ALL=C.UTF-8")


def backport(facts: Facts) -> Finding:
    """rt-utils asks for a backport of `dataclasses` (0.8, for Python 3.6) that hides Python's own."""
    found = facts.software.versions.get("dataclasses")
    if found is None:
        return _finding("dataclasses backport", "ok", "not installed")
    why = "packages that need a newer one, CUDA's among them, fail when they are imported"
    fix = "pip uninstall dataclasses; install rt-utils with --no-deps"
    return _finding("dataclasses backport", "trap", f"dataclasses {found}", why, fix)


def flaw(facts: Facts, package: str) -> Finding:
    """Tell whether a package has a known security flaw."""
    first, mended, ids, what = FLAWS[package]
    found, name = facts.software.versions.get(package), f"flaws of {package}"
    if found is None:
        return _finding(name, "ok", "not installed")
    same_line = [each for each in mended if release(each)[:2] == release(found)[:2]]
    if release(found) >= release(same_line[0] if same_line else first):
        return _finding(name, "ok", found)
    return _finding(name, "trap", found, f"{ids[0]}: {what}", f"{package} {first} or newer")


def release(version: str) -> tuple[int, ...]:
    """Return 2.13.0+cpu as (2, 13, 0); what follows the numbers does not count."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def _finding(name: str, status: Status, found: str, consequence: str = "", fix: str = "") -> Finding:
    return Finding("traps", name, status, found, consequence, fix)


_TRAPS: tuple[Callable[[Facts], Finding], ...] = (
    vector_units,
    bfloat16_gradients,
    threading_layer,
    threads,
    quota,
    shared_memory,
    disk,
    encoding,
    backport,
)

"""The self-test: every back end computes something small, which is compared with exact mathematics."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from toolkit.doctor.facts import Facts
from toolkit.doctor.report import Finding, Status
from toolkit.doctor.software import cause
from toolkit.doctor.try_folders import judge_folders
from toolkit.doctor.try_kernels import WrongError, try_augmentation, try_extraction


@dataclass(frozen=True)
class Trial:
    """One thing to try.

    Attributes
    ----------
    run
        Returns what was measured; raises `WrongError` on wrong numbers.
    skip
        Why it is not tried; empty where it is.
    used
        Whether ``auto`` takes this back end: its failure is the machine's, another's is a trap.
    """

    name: str
    run: Callable[[], str]
    skip: str = ""
    used: bool = True
    fix: str = ""


def self_test(facts: Facts, *, compiled: bool) -> list[Finding]:
    """Return a finding for each back end; `compiled` tries torch.compile, too, which takes long."""
    found = [attempt(trial) for trial in trials(facts, compiled=compiled)]
    return found + judge_folders()


def attempt(trial: Trial) -> Finding:
    """Run a trial; whatever it raises becomes a finding."""
    if trial.skip:
        return Finding("self-test", trial.name, "ok", f"not tried: {trial.skip}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of so small a grid, and whatever else is not a result
            return Finding("self-test", trial.name, "ok", trial.run())
    except WrongError as error:
        told, consequence = str(error), "its numbers are wrong"
    except Exception as error:  # a broken install raises anything
        told, consequence = f"ended with {cause(error)}", "it does not run"
    if not trial.used:
        consequence += "; nothing uses it unless it is asked for"
    status: Status = "failed" if trial.used else "trap"
    return Finding("self-test", trial.name, status, told, consequence, trial.fix)


def trials(facts: Facts, *, compiled: bool) -> Iterator[Trial]:
    """Yield what there is to try on this machine."""
    gpu = facts.chosen.device == "cuda"
    no_gpu = "" if gpu else f"no GPU ({facts.chosen.why_no_gpu})"
    anew = "install numba and llvmlite in the versions of constraints.txt"
    yield Trial("CPU extraction kernel", extract_on_cpu, fix=anew)
    yield Trial("CPU augmentation kernel", augment_on_cpu, fix=anew)
    cuda = "--device cpu until then; install CuPy and numba-cuda that fit the driver"
    yield Trial("CUDA extraction kernel", extract_on_gpu, no_gpu, fix=cuda)
    yield Trial("CUDA augmentation kernel", augment_on_gpu, no_gpu, fix=cuda)
    no_dali = "" if facts.software.versions.get("dali") else "DALI is not installed"
    yield Trial("DALI pipeline", _augment_by_dali(gpu), no_dali, used=False, fix="--loader fused")
    no_torch = f"torch cannot be imported: {facts.torch.error}" if facts.torch.error else ""
    other = "another torch; --set compute.amp=float32 may help"
    yield Trial("training step", _train(facts), no_torch, fix=other)
    why = no_torch or ("" if compiled else "--compile asks for it; on a CPU it takes half a minute")
    taken = facts.chosen.compile not in ("", "off")
    yield Trial("torch.compile", _train(facts, compiled=True), why, used=taken, fix="compute.compile = off")


def extract_on_cpu() -> str:
    """Try the CPU kernels of extraction."""
    from kernels import extract

    return try_extraction(extract)


def augment_on_cpu() -> str:
    """Try the CPU kernel of augmentation."""
    from kernels.augment import augment

    return try_augmentation(augment)


def extract_on_gpu() -> str:
    """Try the CUDA kernel of extraction."""
    import cupy

    from kernels import extract
    from kernels.bricks import to_device

    def run(packed: Any, size: int) -> tuple[Any, Any]:
        image, occupancy = extract(to_device(packed), size)
        return cupy.asnumpy(image), cupy.asnumpy(occupancy)

    return try_extraction(run)


def augment_on_gpu() -> str:
    """Try the CUDA kernel of augmentation."""
    import cupy

    from kernels.augment import augment

    def run(images: Any, masks: Any, table: Any) -> Any:
        return cupy.asnumpy(augment(cupy.asarray(images), cupy.asarray(masks), table))

    return try_augmentation(run)


def _augment_by_dali(gpu: bool) -> Callable[[], str]:
    def run() -> str:
        from toolkit.loading.dali_graph import build, chain_of, inputs

        def made(images: Any, masks: Any, table: Any) -> Any:
            chain = chain_of(table)
            fed = inputs(chain, table, [*images], [*masks])
            where = 0 if gpu else None
            pipeline = build(chain, lambda: fed, batch=len(table), threads=1, device_id=where, depth=1)
            return pipeline.run()[0].as_cpu().as_array()

        return try_augmentation(made, elastic=False)

    return run


def _train(facts: Facts, *, compiled: bool = False) -> Callable[[], str]:
    def run() -> str:
        from toolkit.doctor.try_training import try_step

        gpu = facts.chosen.device == "cuda" and facts.torch.sees_gpu
        return try_step("cuda" if gpu else "cpu", compiled=compiled)

    return run

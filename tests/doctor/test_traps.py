"""Every known trap, sprung by facts alone; a sound machine springs none."""

from dataclasses import replace

import pytest

from kernels import _compiled, _compiled_augment
from tests.doctor.machines import H100, SOUND, changed, with_version
from toolkit.doctor.backends import backends
from toolkit.doctor.facts import Facts, Torch
from toolkit.doctor.report import Driver, worst
from toolkit.doctor.traps import release, traps

NO_GPU = replace(
    changed("chosen", device="cpu", why_no_gpu="0 devices", compile="off"),
    torch=replace(SOUND.torch, sees_gpu=False),
    driver=None,
    gpus=(),
)
SPRUNG: dict[str, tuple[Facts, str, str, str]] = {
    "torch 2.9": (with_version(torch="2.9.1+cu128"), "half-precision conv3d of torch", "trap", "2.9.1"),
    "old cuDNN": (changed("torch", cudnn=91002), "half-precision conv3d of cuDNN", "trap", "cuDNN"),
    "CPU build of torch": (
        changed("torch", cuda=None, sees_gpu=False),
        "torch and the GPU",
        "trap",
        "CPU build",
    ),
    "torch for a newer driver": (
        replace(changed("torch", cuda="13.0", sees_gpu=False), driver=Driver("550.1", (12, 4), 1)),
        "torch and the GPU",
        "trap",
        "driver 550.1 runs CUDA 12.4",
    ),
    "a GPU too new": (
        replace(changed("torch", arches=("sm_90",)), gpus=(replace(H100, compute_capability=(12, 0)),)),
        "kernels for the GPU",
        "trap",
        "12.0",
    ),
    "a GPU too old": (
        replace(SOUND, gpus=(H100, replace(H100, name="old", compute_capability=(7, 0)))),
        "kernels for the GPU",
        "trap",
        "old has 7.0",
    ),
    "no CuPy": (
        changed("chosen", device="cpu", why_no_gpu="cupy is not installed"),
        "CuPy and torch",
        "trap",
        "cupy is not installed",
    ),
    "CuPy alone": (
        replace(changed("torch", sees_gpu=False), driver=None),
        "CuPy and torch",
        "trap",
        "torch does not",
    ),
    "CuPy of a newer CUDA": (
        replace(
            changed("software", builds=("cupy-cuda13x", "nvidia-dali-cuda120")),
            driver=Driver("550.1", (12, 4), 1),
        ),
        "CuPy and the driver",
        "trap",
        "cupy-cuda13x; the driver runs CUDA 12.4",
    ),
    "DALI of a newer CUDA": (
        replace(
            changed("software", builds=("cupy-cuda12x", "nvidia-dali-cuda130")),
            driver=Driver("550.1", (12, 4), 1),
        ),
        "DALI and the driver",
        "trap",
        "nvidia-dali-cuda130",
    ),
    "two DALIs": (
        changed("software", builds=("nvidia-dali-cuda110", "nvidia-dali-cuda120")),
        "DALI and the driver",
        "trap",
        "nvidia-dali-cuda110 and nvidia-dali-cuda120",
    ),
    "no compiler": (changed("software", compiler=False), "compiler for torch.compile", "trap", "no C++"),
    "no headers": (changed("software", headers=False), "compiler for torch.compile", "trap", "Python.h"),
    "no bfloat16 units": (
        replace(changed("machine", vector_units=("AVX2",)), torch=replace(SOUND.torch, bfloat16_error=None)),
        "bfloat16 units of the CPU",
        "note",
        "AVX2",
    ),
    "wrong bfloat16": (changed("torch", bfloat16_error=0.3), "bfloat16 gradients on the CPU", "trap", "0.3"),
    "infinite bfloat16": (
        changed("torch", bfloat16_error=float("inf")),
        "bfloat16 gradients on the CPU",
        "trap",
        "inf",
    ),
    "workqueue": (
        changed("software", numba_layers=("workqueue",)),
        "Numba's threading layer",
        "note",
        "none",
    ),
    "too many threads": (changed("torch", threads=64), "threads of torch", "trap", "64 for 16"),
    "too few threads": (changed("torch", threads=1), "threads of torch", "note", "1 for 16"),
    "a quota": (changed("machine", quota_cores=2.0), "CPU quota", "trap", "2 cores granted, 16"),
    "little shared memory": (
        changed("machine", shared_memory_bytes=64 << 20),
        "shared memory",
        "note",
        "64 MiB",
    ),
    "little shared memory for two GPUs": (
        replace(changed("machine", shared_memory_bytes=64 << 20), gpus=(H100, H100)),
        "shared memory",
        "trap",
        "64 MiB",
    ),
    "a full disk": (changed("machine", cache_free_bytes=5 << 20), "disk", "trap", "5 MB"),
    "latin-1": (changed("machine", encoding="ISO-8859-1, utf-8"), "encoding", "trap", "ISO-8859-1"),
    "latin-1 names": (changed("machine", encoding="UTF-8, latin-1"), "encoding", "trap", "latin-1"),
    "dataclasses": (with_version(dataclasses="0.8"), "dataclasses backport", "trap", "0.8"),
    "pydicom": (with_version(pydicom="3.0.1"), "flaws of pydicom", "trap", "3.0.1"),
    "an old pydicom": (with_version(pydicom="2.4.4"), "flaws of pydicom", "trap", "2.4.4"),
    "gdcm": (with_version(python_gdcm="3.2.2"), "flaws of python-gdcm", "trap", "3.2.2"),
    "torch": (with_version(torch="2.8.0"), "flaws of torch", "trap", "2.8.0"),
    "pillow": (with_version(pillow="12.2.0"), "flaws of pillow", "trap", "12.2.0"),
    "monai": (with_version(monai="1.5.2"), "flaws of monai", "trap", "1.5.2"),
    "wandb": (with_version(wandb="0.23.0"), "flaws of wandb", "trap", "0.23.0"),
}


def test_a_sound_machine_springs_none() -> None:
    found = traps(SOUND)
    assert {each.status for each in found} == {"ok"}
    assert not any(each.consequence or each.fix for each in found)
    assert len({each.name for each in found}) == len(found)
    assert {each.status for each in traps(NO_GPU)} == {"ok"}


@pytest.mark.parametrize("case", SPRUNG)
def test_each_trap_springs_alone_and_says_what_to_do(case: str) -> None:
    facts, name, status, measured = SPRUNG[case]
    sprung = [each for each in traps(facts) if each.status != "ok"]
    wanted = [each for each in sprung if each.name == name]
    assert [each.status for each in wanted] == [status], sprung
    assert measured in wanted[0].found
    assert wanted[0].consequence
    assert wanted[0].fix
    also = {"torch 2.9": {"flaws of torch"}, "CPU build of torch": {"CuPy and torch"}}
    also["torch for a newer driver"] = {"CuPy and torch"}
    assert {each.name for each in sprung} - {name} == also.get(case, set())


def test_every_trap_has_been_sprung() -> None:
    assert {name for _, name, _, _ in SPRUNG.values()} == {each.name for each in traps(SOUND)}


def test_what_is_no_trap() -> None:
    """A mended older line, a build for an older CUDA, code for an older minor or compiled at first use."""
    assert worst(traps(with_version(pydicom="2.4.5"))) == "ok"
    assert worst(traps(replace(SOUND, driver=Driver("999", (14, 1), 1)))) == "ok"
    for arches in (("sm_86",), ("compute_80",), ("sm_89a",)):
        there = replace(SOUND, gpus=(replace(H100, compute_capability=(8, 9)),))
        assert worst(traps(replace(there, torch=replace(SOUND.torch, arches=arches)))) == "ok"
    hyper = changed("torch", threads=8)  # torch counts cores, the system counts two threads for each
    assert worst(traps(hyper)) == "ok"
    off = replace(NO_GPU, software=replace(SOUND.software, headers=False))
    assert not [e for e in traps(off) if e.name.startswith("compiler") and e.status != "ok"]


def test_code_for_one_capability_runs_on_no_other() -> None:
    """CUDA: ``sm_90a`` is not forward compatible; binary code does not run on an earlier minor."""
    gpu = replace(SOUND, gpus=(replace(H100, compute_capability=(8, 0)),))
    for arches in (("sm_90a", "sm_86"), ("compute_86",), ()):
        assert worst(traps(replace(gpu, torch=replace(SOUND.torch, arches=arches)))) == "trap"


def test_without_torch_nothing_is_said_of_it_but_that() -> None:
    nothing = replace(SOUND.chosen, amp="", compile="", why="torch cannot be imported: OSError")
    facts = replace(SOUND, torch=Torch(error="OSError"), chosen=nothing)
    assert worst(traps(facts)) == "ok"
    failed = [each for each in backends(facts) if each.status == "failed"]
    assert [each.found for each in failed] == ["torch cannot be imported: OSError"]


def test_what_each_back_end_will_use() -> None:
    on_gpu = {each.name: each.found for each in backends(SOUND)}
    assert on_gpu["extraction"] == "CUDA kernel on the GPU"
    assert on_gpu["training"].startswith("GPU, bfloat16 (compute capability 9.0)")
    assert on_gpu["compile"] == "default"
    on_cpu = {each.name: each.found for each in backends(NO_GPU)}
    assert on_cpu["extraction"] == "CPU kernels (0 devices)"
    assert on_cpu["loader"] == "fused on the CPU, 16 threads"
    assert on_cpu["compile"].startswith("off")
    bare = {each.name: each for each in backends(with_version(dali=None))}
    assert bare["loader dali"].status == "note"


def test_no_kernel_of_ours_needs_a_threading_layer() -> None:
    """What the finding on Numba's layers says."""
    kernels = [getattr(_compiled, name) for name in ("extract_aligned", "extract_direct", "extract_rows")]
    kernels += [getattr(_compiled_augment, name) for name in _compiled_augment.__all__]
    for kernel in kernels:
        assert not kernel.targetoptions.get("parallel")
        assert kernel.targetoptions["nogil"]


def test_releases_are_compared_as_numbers() -> None:
    assert release("2.13.0+cpu") == (2, 13, 0)
    assert release("2.10") > release("2.9.1")
    assert release("nonsense") == ()

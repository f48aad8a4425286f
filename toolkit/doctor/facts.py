"""Everything that findings are judged from, as plain values: a test can hand over any machine."""

from dataclasses import dataclass

from toolkit.doctor.report import Chosen, Driver, Gpu, Machine


@dataclass(frozen=True)
class Torch:
    """What torch says of itself.

    Attributes
    ----------
    error
        Why it cannot be imported; the other fields are empty then.
    cuda, cudnn
        What it was built with: ``12.8``, and 91501 for 9.15.1. None for a build without.
    arches
        Compute capabilities that it holds kernels for, as ``sm_90``.
    sees_gpu
        Whether it can use a GPU.
    bfloat16_error
        Relative error of bfloat16 gradients on the CPU; None where it has no units for them.
    """

    error: str = ""
    cuda: str | None = None
    cudnn: int | None = None
    arches: tuple[str, ...] = ()
    threads: int = 1
    sees_gpu: bool = False
    bfloat16_error: float | None = None


@dataclass(frozen=True)
class Software:
    """What is installed around it.

    Attributes
    ----------
    versions
        By short name; None where it is not installed.
    builds
        Distributions of CuPy and DALI, which come one for each CUDA: ``cupy-cuda12x``.
    numba_layers
        Threading layers that Numba could start, best first.
    compiler, headers
        Whether there is a C++ compiler, and Python's headers: `torch.compile` needs both on a GPU, the
        first on a CPU.
    """

    versions: dict[str, str | None]
    builds: tuple[str, ...] = ()
    numba_layers: tuple[str, ...] = ()
    compiler: bool = True
    headers: bool = True


@dataclass(frozen=True)
class Facts:
    """A machine, its software, and what is made of both."""

    machine: Machine
    driver: Driver | None
    gpus: tuple[Gpu, ...]
    torch: Torch
    software: Software
    chosen: Chosen

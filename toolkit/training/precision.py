"""Which number type and which compiler this device gets, decided by what it can do, never by a race.

A decision that depended on a timing could differ between two runs of one seed, so capabilities decide.
"""

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from toolkit.errors import Problem, UsageError
from toolkit.training.config import Compute

if TYPE_CHECKING:
    import torch

Amp = Literal["bfloat16", "float16", "float32"]
WRONG = 0.02
"""Relative error of a gradient; five times what bfloat16 rounds."""
Mode = Literal["off", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
Impl = Literal["plain", "fast"]


@dataclass(frozen=True)
class Decision:
    """What was taken, and why, in words.

    `impl` and its reason are `toolkit.training.implementation`'s, `graph` is `toolkit.training.graph`'s.
    """

    amp: Amp
    compile: Mode
    why: str
    impl: Impl = "plain"
    impl_why: str = ""
    graph: bool = False

    @property
    def dtype(self) -> "torch.dtype":
        """The type of autocast."""
        import torch

        kind: torch.dtype = getattr(torch, self.amp)
        return kind


def decide(compute: Compute, device: Literal["cpu", "cuda"]) -> Decision:
    """Return the decision for a device.

    ``auto``: bfloat16 where the hardware multiplies it (CUDA from compute capability 8.0; CPUs with
    AVX512-BF16 or AMX) and gradients come out right, else float16 with a scaler on a GPU and float32 on a
    CPU. Compiled on a GPU; a CPU would compile longer than most runs last.

    Raises `UsageError` E-DEV-002 where bfloat16 is asked for and its gradients are wrong here.
    """
    able, why = _bfloat16(device)
    amp: Amp
    if compute.amp == "auto":
        fallback: Amp = "float16" if device == "cuda" else "float32"
        amp = "bfloat16" if able else fallback
    else:
        amp, why = compute.amp, f"{compute.amp} was asked for"
        error = gradient_error(device) if amp == "bfloat16" else 0.0
        if error > WRONG:
            action = "Nothing trained; set compute.amp to float32, or use another torch"
            what = "bfloat16 convolutions have wrong gradients here"
            measured = f"relative error {error:.2g} against float32"
            raise UsageError(Problem("E-DEV-002", what, measured, f"below {WRONG:g}", action))
    if compute.compile != "auto":
        mode: Mode = compute.compile
        told = f"compile {mode} was asked for"
    else:
        mode = "default" if device == "cuda" else "off"
        told = "compiled" if device == "cuda" else "not compiled: on a CPU that takes minutes"
    return Decision(amp, mode, f"{amp} ({why}), {told}")


def _bfloat16(device: Literal["cpu", "cuda"]) -> tuple[bool, str]:
    """Return whether the device multiplies bfloat16 and gets gradients right, and why not or why."""
    import torch

    if device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        return major >= 8, f"compute capability {major}.{minor}"
    for name, probe in (("AMX", "_is_amx_tile_supported"), ("AVX512-BF16", "_is_avx512_bf16_supported")):
        if getattr(torch.cpu, probe, bool)():
            if gradient_error(device) > WRONG:
                return (
                    False,
                    f"the CPU has {name}, but torch {torch.__version__} gets gradients wrong with it",
                )
            return True, f"the CPU has {name}"
    return False, "the CPU has neither AMX nor AVX512-BF16"


@functools.cache
def gradient_error(device: str) -> float:
    """Return the largest relative error of bfloat16 weight gradients of small 3-D convolutions.

    torch 2.13 on a CPU with AVX512-BF16 reads memory that was never written where a 3^3 kernel meets 2^3
    voxels, which the last block of a DenseNet does. So memory is filled with large numbers first. Rounding
    alone is below 0.004 (2^-8).
    """
    import torch
    from torch.nn import functional

    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for extent in (1, 2, 3, 4):
        image = torch.randn(4, 32, extent, extent, extent, generator=generator).to(device)
        weight = 0.1 * torch.randn(16, 32, 3, 3, 3, generator=generator).to(device)
        back = torch.randn(4, 16, extent, extent, extent, generator=generator).to(device)
        found = []
        for dtype in (torch.float32, *[torch.bfloat16] * 3):
            poison = [torch.full((1 << bits,), 1e30, device=device) for bits in (12, 16, 18, 20)]
            del poison
            kernel = weight.to(dtype, copy=True).requires_grad_()
            out = functional.conv3d(image.to(dtype), kernel, padding=1)
            found.append(torch.autograd.grad(out, kernel, back.to(dtype))[0].float())
        errors = [float((each - found[0]).norm() / found[0].norm()) for each in found[1:]]
        worst = max([worst, *(each if each == each else math.inf for each in errors)])
    return worst

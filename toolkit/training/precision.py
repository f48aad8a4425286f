"""Which number type and which compiler this device gets, decided by what it can do, never by a race.

A decision that depended on a timing could differ between two runs of one seed, so capabilities decide.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from toolkit.training.config import Compute

if TYPE_CHECKING:
    import torch

Amp = Literal["bfloat16", "float16", "float32"]
Mode = Literal["off", "default", "reduce-overhead", "max-autotune"]


@dataclass(frozen=True)
class Decision:
    """What was taken, and why, in words."""

    amp: Amp
    compile: Mode
    why: str

    @property
    def dtype(self) -> "torch.dtype":
        """The type of autocast."""
        import torch

        kind: torch.dtype = getattr(torch, self.amp)
        return kind


def decide(compute: Compute, device: Literal["cpu", "cuda"]) -> Decision:
    """Return the decision for a device.

    ``auto``: bfloat16 where the hardware multiplies it (CUDA from compute capability 8.0; CPUs with
    AVX512-BF16 or AMX), else float16 with a scaler on a GPU and float32 on a CPU. Compiled on a GPU; a CPU
    would compile longer than most runs last.
    """
    able, why = _bfloat16(device)
    amp: Amp
    if compute.amp != "auto":
        amp, why = compute.amp, f"{compute.amp} was asked for"
    elif able:
        amp = "bfloat16"
    else:
        amp = "float16" if device == "cuda" else "float32"
    if compute.compile != "auto":
        mode: Mode = compute.compile
        told = f"compile {mode} was asked for"
    else:
        mode = "default" if device == "cuda" else "off"
        told = "compiled" if device == "cuda" else "not compiled: on a CPU that takes minutes"
    return Decision(amp, mode, f"{amp} ({why}), {told}")


def _bfloat16(device: Literal["cpu", "cuda"]) -> tuple[bool, str]:
    import torch

    if device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        return major >= 8, f"compute capability {major}.{minor}"
    for name, probe in (("AMX", "_is_amx_tile_supported"), ("AVX512-BF16", "_is_avx512_bf16_supported")):
        if getattr(torch.cpu, probe, bool)():
            return True, f"the CPU has {name}"
    return False, "the CPU has neither AMX nor AVX512-BF16"

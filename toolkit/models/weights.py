"""Weights as bytes of safetensors, and the network that they fit."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from toolkit.models.densenet import SIZES
from toolkit.models.folder import ModelFile
from toolkit.models.registry import build
from toolkit.models.trust import refuse


def to_bytes(state: Mapping[str, Tensor]) -> bytes:
    """Return weights as bytes, in the memory order of their axes; tensors that share memory are copied."""
    return safetensors.torch.save(
        {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, value in state.items()
        }
    )


def from_bytes(data: bytes, path: Path) -> dict[str, Tensor]:
    """Return weights of bytes; raises `UsageError` E-MODEL-002 where they are none, E-MODEL-003 on NaN."""
    try:
        state = safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        refuse(path, "weights that cannot be read", type(error).__name__, "safetensors", cause=error)
    for name, value in state.items():
        try:
            finite = not value.is_floating_point() or bool(torch.isfinite(value).all())
        except RuntimeError as error:  # of floats of 8 and 4 bits torch cannot tell
            refuse(path, "weights of a type that cannot be checked", f"{value.dtype}"[:40], cause=error)
        if not finite:
            refuse(path, "weights that are no numbers", name[:100], code="E-MODEL-003")
    return state


def built(file: ModelFile, state: Mapping[str, Tensor], path: Path) -> nn.Module:
    """Return the network of a model file with these weights, in eval mode.

    Raises `UsageError` E-MODEL-001 where it cannot be built, E-MODEL-003 with the first key that misfits.
    """
    name, architecture = str(file.architecture.get("name", "")), file.architecture
    make = partial(
        build,
        name,
        file.input.channels,
        architecture.get("options"),
        dropout=architecture.get("dropout", 0.0),
        stem_stride=architecture.get("stem_stride", 2),
        measured=file.input.measured,
    )
    with torch.random.fork_rng(devices=[]):
        try:  # no memory before weights are known to fit, whatever sizes the file names
            with torch.device("meta"):
                network = make()
        except (NotImplementedError, RuntimeError):  # not every network can be built without memory
            if name in SIZES:
                raise
        else:
            _check_fit(network, state, path)
        if name not in SIZES:  # others may hold what their state does not say
            network = make()
            _check_fit(network, state, path)
    network.load_state_dict(dict(state), assign=True)
    return network.eval()


def _check_fit(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    misfit = first_misfit(network.state_dict(), state)
    if misfit:
        refuse(path, "weights do not fit the model", *misfit, code="E-MODEL-003")


def first_misfit(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> tuple[str, str] | None:
    """Return what the first key that does not fit is and should be, None where all fit."""
    for name, value in wanted.items():
        if name not in given:
            return f"no {name}", _told(value)
        if given[name].shape != value.shape or given[name].dtype != value.dtype:
            return f"{name} {_told(given[name])}", _told(value)
    unknown = sorted({*given} - {*wanted})
    return (f"{unknown[0][:100]} {_told(given[unknown[0]])}", "no such key") if unknown else None


def _told(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"

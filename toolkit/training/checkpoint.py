"""Checkpoints: one file of tensors with its state as JSON in the header, seen whole or not at all.

Data only (safetensors), with a digest of every byte, so that a damaged file is refused and never trained on.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import Problem, StoreError
from toolkit.store.files import write_atomic

if TYPE_CHECKING:
    import torch

FORMAT_VERSION = 1
ACTION = "Nothing trained; --no-resume begins the run anew"


def save(path: Path, tensors: "Mapping[str, torch.Tensor]", state: Mapping[str, Any]) -> None:
    """Write a checkpoint in one step; `state` is plain JSON. Raises `ResourceError` E-DISK-001."""
    from safetensors.torch import save as serialize

    flat = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
    text = json.dumps(dict(state), sort_keys=True)
    header = {"format": str(FORMAT_VERSION), "state": text, "digest": _digest(flat, text)}
    write_atomic(path, serialize(flat, header))


def load(path: Path) -> "tuple[dict[str, torch.Tensor], dict[str, Any]]":
    """Read a checkpoint; raises `StoreError` E-CKPT-001 where it is damaged or of another format."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if header.get("format") != str(FORMAT_VERSION):
            raise _unreadable(path, f"format {header.get('format')}, {FORMAT_VERSION} expected")
        text = header["state"]
        if header["digest"] != _digest(tensors, text):
            raise _unreadable(path, "its digest does not match its content")
        return tensors, dict(json.loads(text))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error


def _digest(tensors: "Mapping[str, torch.Tensor]", text: str) -> str:
    """Return half of the SHA-256 of names, types, shapes, values and state."""
    import torch

    total = sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        if value.numel():
            total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()[:32]


def _unreadable(path: Path, measured: str) -> StoreError:
    return StoreError(
        Problem("E-CKPT-001", "the checkpoint cannot be read", measured, "", ACTION, (str(path),))
    )

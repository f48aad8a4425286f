"""From a name and its options to a network that takes patches and gives one logit each."""

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from toolkit.errors import Problem, UsageError
from toolkit.models.densenet import SIZES, DenseNet

GROUP = "toolkit.models"
IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def build(
    name: str,
    in_channels: int,
    options: Mapping[str, Any] | None = None,
    *,
    dropout: float = 0.0,
    stem_stride: int = 2,
    measured: Sequence[str] = (),
    fast: bool = False,
) -> nn.Module:
    """Return a network ``(image (b, c, d, h, w), measured (b, k) or None) -> logits (b,)``, at least float32.

    Its state dict is the network's own; with measured features it is that of `LateFusion`. Weights are
    drawn from torch's global generator: seed it before.

    Parameters
    ----------
    name
        One of `SIZES`, an entry point of the group ``toolkit.models``, or an import path
        ``package.module:Name``. The last two must name a subclass of ``torch.nn.Module``; nothing else is
        called. Its output may be (b, 1) or (b,), or stand first in a tuple or list.
    in_channels
        Of the patch. Our networks and entry points take it as ``in_channels``; for an import path it is
        left to `options`, since every class calls it otherwise.
    options
        Keyword arguments. Ours take ``blocks``, ``growth``, ``init_features`` and ``bn_size``.
    dropout, stem_stride
        Of our networks. Others do not see them; what they have of the kind goes into `options`.
    measured
        Names of the features that are fused at the last layer, in order.
    fast
        Let our networks compute the same with less traffic to memory (`toolkit.models.fast`).

    Raises
    ------
    UsageError
        E-MODEL-001 on an unknown name, on what is no network, and where a network refuses its options.
    """
    given = dict(options or {})
    if name in SIZES:
        given = {**SIZES[name], **given, "dropout": dropout, "stem_stride": stem_stride}
        network = _make(_ours(fast=fast), name, {"in_channels": in_channels, **given})
    elif ":" in name:
        network = _make(_imported(name), name, given)
    else:
        network = _make(_registered(name), name, {"in_channels": in_channels, **given})
    if measured:
        return LateFusion(network, len(measured))
    network.register_forward_pre_hook(_image_only)
    network.register_forward_hook(_logits_only)
    return network


def _ours(*, fast: bool) -> type[DenseNet]:
    if not fast:
        return DenseNet
    from toolkit.models.fast import FastDenseNet  # registers its operations with torch

    return FastDenseNet


class LateFusion(nn.Module):
    """A network and k measured features, fused at the last layer.

    logit = network(image) + weight . measured. A linear last layer on pooled features f with m behind them
    is w . [f, m] + b = (w_f . f + b) + w_m . m, so this is that concatenation for any network that ends in a
    linear layer, and none has to be opened for it. The weight starts at zero: training begins with the
    network alone. State dict: ``backbone.*`` and ``measured.weight`` (1, k).
    """

    def __init__(self, backbone: nn.Module, features: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.measured = nn.Linear(features, 1, bias=False)
        nn.init.zeros_(self.measured.weight)

    def forward(self, image: Tensor, measured: Tensor) -> Tensor:
        """Return logits (b,) of patches (b, c, d, h, w) and scaled features (b, k)."""
        if measured is None or measured.shape != (len(image), self.measured.in_features):
            came = "none" if measured is None else tuple(measured.shape)
            expected = f"({len(image)}, {self.measured.in_features})"
            _refuse("measured features do not fit the network", str(came), expected)
        # a sum of products, not a matrix product: autocast leaves it in float32
        return one_logit(self.backbone(image)) + (measured * self.measured.weight[0]).sum(1)


def one_logit(output: Any) -> Tensor:
    """Return logits (b,), at least float32, of a network's output; raises `UsageError` E-MODEL-001."""
    first = output[0] if isinstance(output, tuple | list) and output else output
    if not isinstance(first, Tensor):
        _refuse("the network gives no tensor", type(output).__name__, "logits (b, 1)")
    if first.ndim == 2 and first.shape[1] == 1:
        first = first[:, 0]
    if first.ndim != 1 or not first.is_floating_point():
        _refuse("the network does not give one logit a patch", f"shape {tuple(first.shape)}", "(b, 1)")
    return first.float() if first.dtype in (torch.bfloat16, torch.float16) else first


def _image_only(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(inputs) > 1 and inputs[1] is not None:
        _refuse("measured features do not fit the network", "some", "none: it was built without")
    return inputs[:1]


def _logits_only(module: nn.Module, inputs: Any, output: Any) -> Tensor:
    return one_logit(output)


def _make(kind: Callable[..., nn.Module], name: str, arguments: Mapping[str, Any]) -> nn.Module:
    try:
        return kind(**arguments)
    except Exception as error:  # any network's own complaint about its arguments
        _refuse(f"the network {name} cannot be made", _told(error), "", error)


def _imported(path: str) -> type[nn.Module]:
    if not IMPORT_PATH.fullmatch(path):
        _refuse("a model's name is no import path", f"{path!r:.100}", "package.module:Name")
    package, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(package), name)
    except Exception as error:  # importing runs the module's code, which may raise anything
        _refuse(f"the network {path} cannot be imported", _told(error), "", error)
    return _network_class(path, found)


def _registered(name: str) -> type[nn.Module]:
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name not in found:
        known = ", ".join([*SIZES, *sorted(found)])
        _refuse("the model is unknown", f"{name!r:.100}", f"{known}, or package.module:Name")
    try:
        loaded = found[name].load()
    except Exception as error:  # as above
        _refuse(f"the network {name} cannot be imported", _told(error), "", error)
    return _network_class(name, loaded)


def _network_class(name: str, found: Any) -> type[nn.Module]:
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        _refuse(f"{name} is no network", type(found).__name__, "a subclass of torch.nn.Module")
    return found


def _told(error: Exception) -> str:
    first, *_ = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {first[:200]}"


def _refuse(what: str, measured: str, expected: str, cause: Exception | None = None) -> NoReturn:
    problem = Problem("E-MODEL-001", what, measured, expected, "Nothing done; correct the model's settings")
    raise UsageError(problem) from cause

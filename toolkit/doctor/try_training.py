"""One training step of a tiny 3-D DenseNet against the same step in float64 on the CPU."""

import copy
from typing import TYPE_CHECKING, Any, Literal

from toolkit.doctor.try_kernels import WrongError
from toolkit.training.balance import Balancing
from toolkit.training.config import Compute, from_table
from toolkit.training.precision import Decision, decide

if TYPE_CHECKING:
    import torch

BATCH, SIZE = 8, 24
NETWORK = {"blocks": (2,), "growth": 8, "init_features": 8}
MOST_OFF = {"float32": 0.01, "float16": 0.2, "bfloat16": 0.4}
"""Relative error of all gradients together. White noise is hard on batch norm and ReLU: of six seeds, the
worst were 4e-5, 0.06 and 0.14 off. Gradients that have nothing to do with the right ones are off by 1 and
more.
"""
NEVER_CLIPPED = 1e9  # so that a float16 scale is taken off the gradients


def try_step(device: Literal["cpu", "cuda"], *, compiled: bool = False) -> str:
    """Take one step as training would; raise `WrongError` where its gradients are not those of float64."""
    decision = decide(Compute(), device)
    mode = (decision.compile if decision.compile != "off" else "default") if compiled else "off"
    network = _network()
    learner = _learner(network, device, Decision(decision.amp, mode, decision.why))
    image, target = _batch()
    learner.step(0, 0, image.to(learner.device), target.to(learner.device))
    found = [p.grad.detach().double().cpu() for p in learner.parameters if p.grad is not None]
    off = difference(found, exact_gradients())
    told = f"{decision.amp}: gradients {off:.1e} off, {MOST_OFF[decision.amp]:g} allowed"
    if not off <= MOST_OFF[decision.amp]:
        raise WrongError(told)
    return told


def exact_gradients() -> "list[torch.Tensor]":
    """Return the gradients of the step in float64, by torch alone: no autocast, no learner."""
    import torch

    network = _network().double().train()
    image, target = _batch()
    logit = network(image.double(), None)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logit, target.double())
    return list(torch.autograd.grad(loss, [p for p in network.parameters() if p.requires_grad]))


def difference(found: "list[torch.Tensor]", exact: "list[torch.Tensor]") -> float:
    """Return the norm of the difference of all gradients over that of the exact ones."""
    import torch

    a, b = (torch.cat([each.flatten() for each in side]) for side in (found, exact))
    return float((a - b).norm() / b.norm())


def _network() -> "torch.nn.Module":
    import torch

    from toolkit.models.registry import build

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build("densenet-small", 1, NETWORK)


def _batch() -> "tuple[torch.Tensor, torch.Tensor]":
    import torch

    image = torch.rand((BATCH, 1, SIZE, SIZE, SIZE), generator=torch.Generator().manual_seed(1))
    return image, (torch.arange(BATCH) % 2).float()


def _learner(network: "torch.nn.Module", device: str, decision: Decision) -> Any:
    import torch

    from toolkit.training.learner import Learner

    config = from_table({"balance": "none", "optimizer": {"clip_norm": NEVER_CLIPPED}})
    balance = Balancing("none", plain_prior=0.5, prior=0.5)
    return Learner(copy.deepcopy(network), config, balance, decision, torch.device(device), steps=1)

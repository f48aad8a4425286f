"""Averaged weights: an exponential moving average of parameters and of batch-norm statistics."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Average:
    """A copy of a network whose floating tensors follow it slowly; in evaluation mode.

    Early on the decay is min(decay, (1 + t) / (10 + t)) after t updates, so that the random start is
    forgotten.
    """

    def __init__(self, model: "torch.nn.Module", decay: float) -> None:
        from copy import deepcopy

        self.module = deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        here, there = model.state_dict(keep_vars=True), self.module.state_dict(keep_vars=True)
        pairs = [(here[name].detach(), there[name].detach()) for name in here]
        self._pairs = [(a, b) for a, b in pairs if a.is_floating_point()]
        self._counts = [(a, b) for a, b in pairs if not a.is_floating_point()]

    def update(self, updates: int) -> None:
        """Move towards the network; `updates` is how many there were before."""
        import torch

        decay = min(self.decay, (1 + updates) / (10 + updates))
        torch._foreach_lerp_([b for _, b in self._pairs], [a for a, _ in self._pairs], 1 - decay)
        if self._counts:
            torch._foreach_copy_([b for _, b in self._counts], [a for a, _ in self._counts])

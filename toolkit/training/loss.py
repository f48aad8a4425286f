"""The objective: binary cross-entropy on soft targets, with the one thing that the balance changes in it."""

from typing import TYPE_CHECKING

from toolkit.training.balance import Balancing

if TYPE_CHECKING:
    import torch


def objective(
    logit: "torch.Tensor", target: "torch.Tensor", balance: Balancing, smoothing: float
) -> "torch.Tensor":
    """Return the mean loss of a batch, a float32 scalar (float64 for float64 logits).

    Parameters
    ----------
    logit, target
        (b,); targets in [0, 1].
    balance
        Positive weight, logit offset or gamma.
    smoothing
        Targets become ``target (1 - smoothing) + smoothing / 2`` (Szegedy et al., CVPR 2016).

    The sum is divided by b and not by the sum of weights, so that the mean over ranks of equal size is the
    loss of the whole batch.
    """
    import torch
    from torch.nn import functional

    if logit.dtype != torch.float64:
        logit = logit.float()
    if smoothing:
        target = target * (1 - smoothing) + smoothing / 2
    if balance.logit_offset:
        logit = logit + balance.logit_offset
    if balance.gamma:
        return _focal(logit, target.to(logit.dtype), balance.gamma)
    weight = None
    if balance.pos_weight != 1:
        weight = torch.full((), balance.pos_weight, dtype=logit.dtype, device=logit.device)
    return functional.binary_cross_entropy_with_logits(logit, target.to(logit.dtype), pos_weight=weight)


def _focal(logit: "torch.Tensor", target: "torch.Tensor", gamma: float) -> "torch.Tensor":
    """Focal loss; for soft targets the distance |target - p| takes the place of 1 - p_t (Li et al. 2020)."""
    import torch
    from torch.nn import functional

    plain = functional.binary_cross_entropy_with_logits(logit, target, reduction="none")
    far = (target - torch.sigmoid(logit)).abs()
    return (far**gamma * plain).mean()

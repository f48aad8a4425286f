"""Several processes as one: who am I, and what the others found. One process needs none of it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Ranks:
    """Which of ``torchrun``'s processes this is; only rank 0 writes and shows."""

    rank: int = 0
    ranks: int = 1
    local: int = 0
    on_this_machine: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0


@contextmanager
def joined(device: Literal["cpu", "cuda"]) -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` started (gloo on CPUs, nccl on GPUs); alone without it."""
    total = int(os.environ.get("WORLD_SIZE", "1"))
    if total == 1:
        yield Ranks()
        return
    import torch
    from torch import distributed

    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "cuda":
        torch.cuda.set_device(local)
    distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        yield Ranks(distributed.get_rank(), total, local, here)
    finally:
        distributed.destroy_process_group()


def gather(index: NDArray[np.int64], logit: NDArray[np.float64], ranks: Ranks) -> dict[int, float]:
    """Return the logit of every nodule that any rank saw, each once."""
    parts = [(index, logit)]
    if ranks.ranks > 1:
        from torch import distributed

        parts = [parts[0]] * ranks.ranks
        distributed.all_gather_object(parts, (index, logit))
    return {int(i): float(z) for some, logits in parts for i, z in zip(some, logits, strict=True)}


def mean(losses: "torch.Tensor", ranks: Ranks) -> float:
    """Return the mean over ranks and steps; steps that were not seen are NaN and left out.

    This is the one place of an epoch where the host waits for the device.
    """
    import torch

    seen = ~torch.isnan(losses)
    pair = torch.stack([torch.where(seen, losses, 0.0).sum(), seen.sum()]).double()
    if ranks.ranks > 1:
        from torch import distributed

        distributed.all_reduce(pair)
    total, count = pair.tolist()
    return total / count if count else float("nan")


def same_buffers(module: "torch.nn.Module", ranks: Ranks) -> None:
    """Give every rank the batch-norm statistics of rank 0."""
    if ranks.ranks > 1:
        from torch import distributed

        for buffer in module.buffers():
            distributed.broadcast(buffer, 0)


def barrier(ranks: Ranks) -> None:
    """Wait until every rank is here."""
    if ranks.ranks > 1:
        from torch import distributed

        distributed.barrier()

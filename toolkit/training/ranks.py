"""Several processes as one: who am I, what the others found, and what all do next. One needs none of it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

AGREE_EVERY = 4  # steps between two looks at what the other ranks wish


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
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "cuda":
        torch.cuda.set_device(local)
    store, rank, _ = next(rendezvous("env://"))
    # torchrun keeps its store when it starts ranks again, with the addresses of those that died
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    distributed.init_process_group(
        # what ranks agree on lies in the host's memory: reading it must not wait for the device
        "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo",
        store=PrefixStore(f"{again} of {total}", store),
        rank=rank,
        world_size=total,
    )
    try:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        yield Ranks(distributed.get_rank(), total, local, here)
    finally:
        distributed.destroy_process_group()


class Next(IntEnum):
    """What comes after a step; of several wishes the last named counts."""

    GO_ON = 0
    SAVE = 1
    STOP = 2


class Agreement:
    """What all ranks do after the same step.

    A rank that stopped by itself would leave the others waiting for its gradients, and a checkpoint of steps
    whose losses other ranks have not looked at could hold bad weights. So the wishes of all are put together
    every few steps, and read a few steps later, when they are there: nobody waits.

    Parameters
    ----------
    wish
        What this rank wishes for; asked after a step. It lasts until it is granted.
    """

    def __init__(self, ranks: Ranks, wish: Callable[[], Next]) -> None:
        self._ranks, self._wish = ranks, wish
        self._asked: tuple[torch.Tensor, Any] | None = None

    def after_step(self, done: int) -> Next:
        """Return what all ranks do now that they have done so many steps of the epoch."""
        if self._ranks.ranks == 1:
            return self._wish()
        if done % AGREE_EVERY:
            return Next.GO_ON
        found = self._answer()
        if found is Next.GO_ON:
            self._ask()
        return found

    def after_epoch(self) -> Next:
        """Return what all ranks do at the end of an epoch, where they wait for each other anyway."""
        if self._ranks.ranks == 1:
            return self._wish()
        before = self._answer()
        self._ask()
        return max(before, self._answer())

    def _ask(self) -> None:
        import torch
        from torch import distributed

        wish = torch.tensor(int(self._wish()))
        self._asked = wish, distributed.all_reduce(wish, distributed.ReduceOp.MAX, async_op=True)

    def _answer(self) -> Next:
        if self._asked is None:
            return Next.GO_ON
        wish, work = self._asked
        self._asked = None
        work.wait()
        return Next(int(wish))


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


def lowest(value: int | None, ranks: Ranks) -> int | None:
    """Return the lowest value that any rank has; None where none has one."""
    if ranks.ranks > 1:
        import torch
        from torch import distributed

        none = torch.iinfo(torch.int64).max
        found = torch.tensor(none if value is None else value)
        distributed.all_reduce(found, distributed.ReduceOp.MIN)
        value = None if int(found) == none else int(found)
    return value


def of_all(row: "torch.Tensor", ranks: Ranks) -> "torch.Tensor":
    """Return every rank's row: (n,) to (ranks, n)."""
    import torch

    rows = [row]
    if ranks.ranks > 1:
        from torch import distributed

        rows = [torch.empty_like(row) for _ in range(ranks.ranks)]
        distributed.all_gather(rows, row)
    return torch.stack(rows)


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

"""A job: one partition to train on, with everything that stays as it is while it trains."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import Problem, ToolkitError, UsageError
from toolkit.loading.open import open_loader
from toolkit.loading.plan import Plan
from toolkit.loading.sampler import BalancedSampler, ShuffledSampler
from toolkit.memory import cores
from toolkit.store import Store
from toolkit.training.balance import Balancing
from toolkit.training.config import TrainConfig
from toolkit.training.learner import Learner
from toolkit.training.precision import Decision
from toolkit.training.ranks import Ranks
from toolkit.training.run_folder import RunFolder
from toolkit.training.sides import Sides
from toolkit.training.view import View

if TYPE_CHECKING:
    import torch

    from toolkit.loading.batch import Loader
    from toolkit.models.measured import Scaling


@dataclass(frozen=True)
class Machine:
    """Where it is computed.

    Attributes
    ----------
    kind
        ``cpu`` or ``cuda``.
    decision
        Number type and compiler.
    loader
        As asked for.
    ranks
        This process among its like.
    """

    kind: Literal["cpu", "cuda"]
    decision: Decision
    loader: Literal["auto", "fused", "dali"] = "auto"
    ranks: Ranks = field(default_factory=Ranks)

    @property
    def device(self) -> "torch.device":
        """The device of this process."""
        import torch

        return torch.device("cuda", self.ranks.local) if self.kind == "cuda" else torch.device("cpu")

    @property
    def threads(self) -> int:
        """Threads of this process' loaders."""
        return max(1, cores() // self.ranks.on_this_machine)


@dataclass(frozen=True, eq=False)
class Job:
    """One partition to train on.

    Attributes
    ----------
    measured, scaling
        Scaled features of all nodules of the store, float32 (n, k), and how they were scaled; None without.
    """

    store: Store
    config: TrainConfig
    sides: Sides
    balance: Balancing
    folder: RunFolder
    machine: Machine
    measured: NDArray[np.float32] | None = None
    scaling: "Scaling | None" = None

    @property
    def size(self) -> int:
        """Voxels along each side of the patch."""
        return self.config.input.size or self.store.size

    @property
    def channels(self) -> int:
        """Of the input tensor."""
        return 2 if self.config.augmentation.mask_mode == "channel" else 1

    @cached_property
    def sampler(self) -> BalancedSampler | ShuffledSampler:
        """Who is in which batch of this rank."""
        config, ranks = self.config, self.machine.ranks
        settings: dict[str, Any] = {
            "batch": config.batch,
            "seed": config.seed,
            "rank": ranks.rank,
            "ranks": ranks.ranks,
            "positive_from": config.labels.malignant_from,
        }
        of = self.sides.members(self.sides.teaching, self.store)
        if self.balance.positives:
            return BalancedSampler(of, positives=self.balance.positives, **settings)
        return ShuffledSampler(of, **settings)

    @cached_property
    def plan(self) -> Plan:
        """What is read and what happens to it; raises `UsageError` of `Plan`."""
        config, amp = self.config, self.machine.decision.amp
        return Plan(self.store, self.sampler, config.augmentation, self.size, config.seed, amp)

    def open_loader(self) -> "Loader":
        """Return the loader of augmented batches."""
        machine = self.machine
        return open_loader(self.plan, machine.loader, machine.kind, machine.threads)

    def check(self) -> None:
        """Refuse what would end the first step: sampler, plan, and a network that such patches do not fit.

        Raises `UsageError` of each, E-MODEL-001 of the network.
        """
        import torch

        _ = self.plan
        patch = torch.zeros(1, self.channels, self.size, self.size, self.size)
        features = None if self.measured is None else torch.zeros(1, self.measured.shape[1])
        network = self.network().eval()
        try:
            with torch.no_grad():
                network(patch, features)
        except ToolkitError:
            raise
        except Exception as error:  # any network's own complaint about its input
            told = f"{type(error).__name__}: {error}"[:300]
            what, where = "the network does not take these patches", f"patches of {tuple(patch.shape[1:])}"
            action = "Nothing trained; correct input.size or model.options"
            raise UsageError(Problem("E-MODEL-001", what, told, where, action)) from error

    def view(self, index: NDArray[np.int64]) -> View:
        """Return a view of nodules as they are."""
        return View(
            self.store,
            index,
            self.config,
            self.machine.decision,
            measured=self.measured,
            loader=self.machine.loader,
            device=self.machine.kind,
            threads=self.machine.threads,
            ranks=self.machine.ranks,
        )

    def network(self, *, fast: bool = False) -> "torch.nn.Module":
        """Return the network with its first weights, which the seed decides; `fast` as in `build`."""
        import torch

        from toolkit.models.registry import build

        model = self.config.model
        torch.manual_seed(self.config.seed)
        return build(
            model.name,
            self.channels,
            model.options,
            dropout=model.dropout,
            stem_stride=model.stem_stride,
            measured=model.measured,
            fast=fast,
        )

    def learner(self) -> Learner:
        """Return what learns."""
        steps = self.sampler.steps(0)
        machine, decision = self.machine, self.machine.decision
        network = self.network(fast=decision.impl == "fast")
        return Learner(network, self.config, self.balance, decision, machine.device, steps, machine.ranks)

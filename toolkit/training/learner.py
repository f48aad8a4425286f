"""One training step, and everything that a step changes. The host waits for nothing in it."""

import math
from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from toolkit.training.averaging import Average
from toolkit.training.balance import Balancing
from toolkit.training.config import TrainConfig
from toolkit.training.graph import Recorded
from toolkit.training.loss import objective
from toolkit.training.precision import Decision
from toolkit.training.ranks import Ranks
from toolkit.training.schedule import Schedule

if TYPE_CHECKING:
    import torch


class Learner:
    """Network, averaged network, optimiser and scaler; `step` moves them by one batch.

    Chance (dropout) is keyed by seed, rank and step, so that (weights, optimiser, step) is all of the state.

    Attributes
    ----------
    model, average
        The network and its averaged copy.
    calls
        Steps that this process made.
    losses
        float32 (steps of an epoch,) on the device; NaN where a step was not made in this epoch.
    """

    def __init__(
        self,
        model: "torch.nn.Module",
        config: TrainConfig,
        balance: Balancing,
        decision: Decision,
        device: "torch.device",
        steps: int,
        ranks: Ranks | None = None,
    ) -> None:
        import torch

        self._config, self._balance, self._decision = config, balance, decision
        self._ranks = ranks or Ranks()
        self.device, self.steps = device, steps
        layout = torch.channels_last_3d if config.compute.channels_last else torch.contiguous_format
        self.model = model.to(device).to(memory_format=layout)  # type: ignore[call-overload]
        self.average = Average(self.model, config.optimizer.ema_decay)
        self._forward = self._wrapped()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        # on the device, so that a recorded step reads it anew
        self._lr = torch.tensor(config.optimizer.lr, device=device)
        self.optimizer = self._make_optimizer()
        self._recorded: Recorded | None = None
        self._scaler = torch.amp.GradScaler(device.type, enabled=decision.amp == "float16")
        settings = config.optimizer
        warmup = round(settings.warmup_epochs * steps)
        self._schedule = Schedule(
            settings.lr, settings.final_share * settings.lr, warmup, config.epochs * steps
        )
        self.losses = torch.full((steps,), math.nan, device=device)
        self.calls = 0

    def _wrapped(self) -> Any:
        import torch

        forward: Any = self.model
        if self._ranks.ranks > 1:
            where = [self.device.index] if self.device.type == "cuda" else None
            forward = torch.nn.parallel.DistributedDataParallel(forward, device_ids=where)
        if self._decision.compile != "off":
            mode = None if self._decision.compile == "default" else self._decision.compile
            forward = torch.compile(forward, mode=mode, dynamic=False)
        return forward

    def _make_optimizer(self) -> "torch.optim.Optimizer":
        """AdamW (Loshchilov 2019), fused; what has one axis (biases, batch norm) does not decay."""
        import torch

        settings = self._config.optimizer
        groups = [
            {"params": [p for p in self.parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [p for p in self.parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            [g for g in groups if g["params"]],
            lr=self._lr,
            fused=True,
            capturable=self.device.type == "cuda",
        )

    def lr(self, number: int) -> float:
        """Return the learning rate of a step, counted over all epochs."""
        return self._schedule.at(number)

    def begin_epoch(self) -> None:
        """Forget the losses of the last epoch."""
        self.losses.fill_(math.nan)

    def step(
        self,
        epoch: int,
        step: int,
        image: "torch.Tensor",
        target: "torch.Tensor",
        measured: "torch.Tensor | None" = None,
    ) -> None:
        """Move by one batch: `image` (b, c, d, h, w), `target` (b,), `measured` (b, k) on the device."""
        import torch

        number = epoch * self.steps + step
        batch = (image, target) if measured is None else (image, target, measured)
        if self._decision.graph and self._recorded is None:
            self._recorded = Recorded(self._move, self.optimizer, [*self.model.state_dict().values()], batch)
        torch.manual_seed(_mix(self._config.seed, self._ranks.rank, number))
        for group in self.optimizer.param_groups:
            group["lr"].fill_(self.lr(number))
        self.losses[step] = (self._recorded or self._move)(*batch)
        self.average.update(number)
        self.calls += 1

    def _move(
        self, image: "torch.Tensor", target: "torch.Tensor", measured: "torch.Tensor | None" = None
    ) -> "torch.Tensor":
        """Change network and optimiser by a batch; return its loss."""
        import torch

        self.model.train()
        dtype = self._decision.dtype
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            logit = self._forward(image, measured)
        loss = objective(logit, target, self._balance, self._config.loss.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if self._config.optimizer.clip_norm:
            self._scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.parameters, self._config.optimizer.clip_norm, foreach=True)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        return loss.detach()

    def first_bad_step(self, steps: int) -> int | None:
        """Return the first of this epoch's first steps whose loss is not a number; the host waits."""
        import torch

        bad = torch.isnan(self.losses[:steps]) | torch.isinf(self.losses[:steps])
        where = bad.nonzero().flatten()
        return int(where[0]) if len(where) else None

    def tensors(self) -> "dict[str, torch.Tensor]":
        """Return all of the state, by name."""
        found = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        found |= {f"average.{k}": v for k, v in self.average.module.state_dict().items()}
        for k, parameter in enumerate(self.parameters):
            for name, value in self.optimizer.state[parameter].items():
                found[f"optimizer.{k}.{name}"] = value
        return found | {"losses": self.losses[None]}

    def scale(self) -> dict[str, Any]:
        """Return the state of the float16 scaler; empty for other types."""
        return dict(self._scaler.state_dict())

    def restore(self, tensors: "Mapping[str, torch.Tensor]", scale: Mapping[str, Any]) -> None:
        """Take the state that `tensors` and `scale` gave; `KeyError` or `RuntimeError` on another's.

        Of the losses (ranks, steps) every rank takes its row, and the mean where there are other ranks now.
        """
        import torch

        def of(prefix: str) -> dict[str, torch.Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self._recorded = None  # the optimiser's state gets other memory
        self.model.load_state_dict(of("model."))
        self.average.module.load_state_dict(of("average."))
        for k, parameter in enumerate(self.parameters):
            state = self.optimizer.state[parameter]
            for name, value in of(f"optimizer.{k}.").items():
                same = value.shape == parameter.shape
                like = torch.empty_like(parameter) if same else torch.empty_like(value, device=self.device)
                state[name] = like.copy_(value)
        losses, ranks = tensors["losses"], self._ranks
        self.losses.copy_(losses[ranks.rank] if len(losses) == ranks.ranks else losses.mean(0))
        if scale:
            self._scaler.load_state_dict(dict(scale))


def _mix(seed: int, rank: int, number: int) -> int:
    """Return 63 bits that seed, rank and step decide."""
    return int.from_bytes(sha256(f"{seed} {rank} {number}".encode()).digest()[:8], "little") >> 1

"""What a recorded step is made of, on a CPU: refusals, a state left as it was, a rate that is a tensor."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.runs import config
from toolkit.errors import UsageError
from toolkit.models.registry import build
from toolkit.training.balance import Balancing
from toolkit.training.graph import unchanged, with_graph
from toolkit.training.learner import Learner
from toolkit.training.loss import objective
from toolkit.training.precision import Decision

ASKED = config(compute={"graph": True}).compute
DECIDED = Decision("bfloat16", "default", "why")
BALANCE, STEPS, LR = Balancing("none", 0.5, 0.5), 6, 2e-3


def learner(dropout: float = 0.0) -> Learner:
    torch.manual_seed(0)
    network = build("densenet-small", 1, {"blocks": [1, 1]}, dropout=dropout).double()
    settings = config(epochs=2, optimizer={"lr": LR, "warmup_epochs": 0.5})
    return Learner(network, settings, BALANCE, Decision("float32", "off", ""), torch.device("cpu"), STEPS)


def batch(step: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(step)
    return torch.rand(4, 1, 14, 14, 14, generator=draw, dtype=torch.float64), (torch.arange(4) % 2).float()


def test_it_is_taken_where_it_is_asked_for() -> None:
    found = with_graph(ASKED, "cuda", DECIDED, 1)
    assert (found.graph, found.why) == (True, "why; steps are recorded")
    assert with_graph(config().compute, "cpu", DECIDED, 2) == DECIDED


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("cpu", DECIDED, 1), "there is no GPU"),
        (("cuda", DECIDED, 2), "2 ranks"),
        (("cuda", Decision("float16", "off", ""), 1), "float16 skips steps"),
        (("cuda", Decision("float32", "reduce-overhead", ""), 1), "reduce-overhead records"),
    ],
)
def test_what_cannot_be_recorded_is_refused(given: Any, told: str) -> None:
    with pytest.raises(UsageError, match=rf"E-CONF-002.*{told}"):
        with_graph(ASKED, *given)


@pytest.mark.parametrize("before", [0, 2])
def test_recording_leaves_no_trace(before: int) -> None:
    """Steps within, then steps as if there had been none, in the same memory."""
    ours, theirs = learner(0.3), learner(0.3)
    for step in range(before):
        ours.step(0, step, *batch(step)), theirs.step(0, step, *batch(step))
    state = [*ours.model.state_dict().values()]
    with unchanged(ours.optimizer, state):
        for step in (4, 5):
            ours.step(0, step, *batch(step))
        assert not torch.equal(ours.parameters[0], theirs.parameters[0])
    ours.average.module.load_state_dict(theirs.average.module.state_dict())  # not of what is recorded
    assert all(a is b for a, b in zip(ours.model.parameters(), ours.parameters, strict=True))
    for step in range(before, 4):
        ours.step(0, step, *batch(step)), theirs.step(0, step, *batch(step))
    for (name, one), other in zip(ours.tensors().items(), theirs.tensors().values(), strict=True):
        assert name == "losses" or torch.equal(one, other), name


def test_the_learning_rate_is_that_of_the_schedule() -> None:
    """Against AdamW with plain numbers, step by step."""
    ours = learner()
    network, begun = copy.deepcopy(ours.model), copy.deepcopy(ours.model)
    decays = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decays, "weight_decay": 1e-2}, {"params": others, "weight_decay": 0.0}]
    optimizer, rates = torch.optim.AdamW(groups, lr=1.0), []
    for step in range(STEPS):
        image, target = batch(step)
        ours.step(0, step, image, target)
        optimizer.zero_grad()
        objective(network(image, None), target, BALANCE, 0.0).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        rates.append(ours.lr(step))
        for group in optimizer.param_groups:
            group["lr"] = rates[-1]
        optimizer.step()
    assert len({*rates}) > STEPS // 2
    # the tensor is float32, Adam moves by 3.2 rates at most, and a hundredfold for what later gradients make
    # of it; a rate of another step would be off by 1e-4
    allowed = 100 * 3.2 * 2.0**-24 * sum(rates)
    moved = 0.0
    for one, other, first in zip(ours.parameters, network.parameters(), begun.parameters(), strict=True):
        assert float((one - other).detach().abs().max()) <= allowed
        moved = max(moved, float((one - first).detach().abs().max()))
    assert moved > LR

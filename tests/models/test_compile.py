"""torch.compile takes the network whole, and a compiled training step is the eager one."""

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from tests.models.test_densenet import unlike
from toolkit.models.registry import build

IMAGE = (4, 1, 32, 32, 32)
SHORT = {"blocks": [1, 1, 1]}  # every kind of layer once: the compiler takes its time for each


def step(model: nn.Module, call: nn.Module, image: Tensor, target: Tensor) -> tuple[float, Tensor]:
    """Return the loss and all gradients as one vector."""
    model.zero_grad()
    loss = F.binary_cross_entropy_with_logits(call(image, None), target)
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler itself
def test_a_compiled_step_is_the_eager_one() -> None:
    """As near to float64 as the eager step is, times the 4 that another order of summation may cost."""
    model = build("densenet-small", 1, SHORT).train()
    unlike(model)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    exact = build("densenet-small", 1, SHORT).double().train()
    exact.load_state_dict(state)
    image, target = torch.rand(IMAGE), torch.tensor([0.0, 1.0, 1.0, 0.0])
    true = step(exact, exact, image.double(), target.double())
    eager = step(model, model, image, target)
    after = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    compiled = step(model, torch.compile(model, fullgraph=True), image, target)
    floor = 8 * 2**-24
    assert abs(compiled[0] - true[0]) <= 4 * abs(eager[0] - true[0]) + floor * abs(true[0])
    scale = true[1].norm()
    assert (compiled[1] - true[1]).norm() <= 4 * (eager[1] - true[1]).norm() + floor * scale
    for name, value in model.state_dict().items():  # statistics of the norms too
        assert torch.allclose(value, after[name], rtol=1e-4, atol=1e-6), name


def test_the_graph_is_whole_for_every_kind_of_network() -> None:
    """Captured without a break, by the compiler's front end alone."""
    image = torch.rand(2, 1, 32, 32, 32)
    for options in (
        {"stem_stride": 1},
        {"dropout": 0.2},
        {"measured": ("volume", "diameter")},
    ):
        torch._dynamo.reset()
        model = build("densenet-small", 1, **options).train()  # type: ignore[arg-type]
        measured = torch.rand(2, 2) if "measured" in options else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            whole = torch.compile(model, backend="eager", fullgraph=True)
            torch.manual_seed(1)
            found = whole(image, measured)
        torch.manual_seed(1)
        assert torch.allclose(found, model(image, measured), rtol=1e-3)

"""The fast twin on a GPU: its kernels are plain torch in every number type, and repeat themselves."""

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.models.test_densenet import CHANNELS_LAST, unlike
from toolkit.models.registry import build

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


def passed(network: nn.Module, image: Tensor, amp: torch.dtype) -> list[Tensor]:
    """Return logits, gradients and statistics of one pass."""
    network.zero_grad()
    torch.manual_seed(3)
    with torch.autocast(image.device.type, amp, enabled=amp != torch.float32):
        logits = network(image, None)
    nn.functional.softplus(logits).sum().backward()
    grads = torch.cat([p.grad.double().flatten().cpu() for p in network.parameters() if p.grad is not None])
    return [logits.detach().double().cpu(), grads, *(b.double().cpu() for b in network.buffers())]


@pytest.mark.parametrize("amp", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(8, 1, 32, 32, 32), (3, 1, 37, 30, 41)], ids=str)
def test_fast_is_as_near_to_float64_as_plain(amp: torch.dtype, shape: tuple[int, ...]) -> None:
    plain = build("densenet121", 1).train()
    unlike(plain)
    image = torch.rand(shape)
    true = passed(copy.deepcopy(plain).double(), image.double(), torch.float32)
    errors = []
    for fast in (False, True):
        network = build("densenet121", 1, fast=fast)
        network.load_state_dict(plain.state_dict())
        network = network.train().to("cuda", memory_format=CHANNELS_LAST)
        found = passed(network, image.cuda(), amp)
        errors.append([float((a - b).norm() / b.norm()) for a, b in zip(found, true, strict=True)])
    for before, after in zip(*errors, strict=True):
        assert after <= 2 * before + 1e-5


def test_fast_repeats_itself_bit_for_bit() -> None:
    network = build("densenet121", 1, dropout=0.1, fast=True).train().to("cuda", memory_format=CHANNELS_LAST)
    image, state = torch.rand(8, 1, 48, 48, 48, device="cuda"), copy.deepcopy(network.state_dict())
    found = []
    torch.backends.cudnn.deterministic = True
    try:
        for _ in range(2):
            network.load_state_dict(state)
            found.append(passed(network, image, torch.bfloat16))
    finally:
        torch.backends.cudnn.deterministic = False
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.filterwarnings("ignore")  # of the compiler itself
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_and_recorded_it_is_the_same(mode: str) -> None:
    network = build("densenet121", 1, fast=True).train().to("cuda", memory_format=CHANNELS_LAST)
    image, state = torch.rand(8, 1, 32, 32, 32, device="cuda"), copy.deepcopy(network.state_dict())
    eager = passed(network, image, torch.float32)
    compiled = torch.compile(network, mode=mode, dynamic=False, fullgraph=True)
    for _ in range(4):  # recorded at the second call, replayed from then on
        network.load_state_dict(state)
        found = passed(compiled, image, torch.float32)
    for one, other in zip(found, eager, strict=True):
        assert (one - other).norm() <= 1e-2 * other.norm() + 1e-6

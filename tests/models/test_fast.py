"""The fast twin is the plain DenseNet: outputs, gradients, statistics, trajectories, draws of dropout."""

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from tests.models.test_densenet import CHANNELS_LAST, assert_close, monai, ours, run, unlike
from toolkit.models.densenet import SIZES, DenseNet
from toolkit.models.fast import FastDenseNet, stem_of_cells
from toolkit.models.registry import build

TINY: Mapping[str, Any] = {"blocks": (2, 1, 2), "growth": 6, "init_features": 10, "bn_size": 3}
# as in test_densenet: float64 through a few hundred operations and norms
CLOSE = 1e-9


def pair(dropout: float = 0.0, **more: Any) -> tuple[DenseNet, FastDenseNet]:
    """Return plain and fast in float64, with equal weights of which no two are alike."""
    options = {**TINY, "dropout": dropout, **more}
    plain, fast = DenseNet(1, **options).double(), FastDenseNet(1, **options).double()
    unlike(plain)
    fast.load_state_dict(plain.state_dict(), strict=True)
    return plain, fast


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the fast way with small networks and short types, too."""
    monkeypatch.setattr("toolkit.models.fast._pays", lambda *_: True)


def both(plain: nn.Module, fast: nn.Module, image: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return what `run` finds of either, from the same random state."""
    found = []
    for network in (fast, plain):
        torch.manual_seed(5)
        found.append(run(network, image))
    return found[0], found[1]


def image_of(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(1, 1, 16, 30, 16), (2, 1, 13, 18, 15), (3, 1, 17, 14, 16)])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_function_gradients_and_statistics(shape: tuple[int, ...], dropout: float, training: bool) -> None:
    plain, fast = pair(dropout)
    plain.train(training), fast.train(training)
    assert_close(*both(plain, fast, image_of(*shape)), CLOSE)


def test_densenet121_is_monais() -> None:
    theirs, fast = monai("densenet121").double(), FastDenseNet(1, **SIZES["densenet121"]).double()  # type: ignore[arg-type]
    unlike(theirs)
    fast.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(fast.state_dict(), strict=True)
    theirs.train(), fast.train()
    assert_close(*both(theirs, fast, image_of(8, 1, 29, 29, 29)), CLOSE)


def test_evaluation_uses_each_norms_own_statistics() -> None:
    """Norms of the same channels agree in a trained network, but need not in one that is loaded."""
    plain, fast = pair()
    unlike(plain, 7)
    fast.load_state_dict(plain.state_dict())
    assert_close(*both(plain.eval(), fast.eval(), image_of(2, 1, 16, 16, 16)), CLOSE)


def test_train_and_evaluation_in_turn_and_a_momentum_of_none() -> None:
    for momentum in (0.1, 0.7, None):
        plain, fast = pair()
        for network in (plain, fast):
            for module in network.modules():
                if isinstance(module, nn.BatchNorm3d):
                    module.momentum = momentum
        for turn, training in enumerate((True, False, True, True)):
            plain.train(training), fast.train(training)
            assert_close(*both(plain, fast, image_of(2, 1, 16, 16, 16 + turn)), CLOSE)


def test_fifty_steps_end_at_the_same_weights() -> None:
    """Rounding may grow from step to step; after 50 it is far below what any wrong term would leave."""
    plain, fast = pair(0.2)
    image, target = image_of(4, 1, 14, 14, 14), torch.tensor([0.0, 1.0, 1.0, 0.0]).double()
    for network in (plain.train(), fast.train()):
        optimizer = torch.optim.SGD(network.parameters(), 0.02, momentum=0.9)
        for step in range(50):
            torch.manual_seed(step)
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(network(image)[:, 0], target).backward()
            optimizer.step()
    before, there = pair()[0].state_dict(), fast.state_dict()
    for name, value in plain.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(there[name], value, rtol=1e-6, atol=1e-8), name
            assert not torch.equal(value, before[name]), name


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("amp", ["float32", "bfloat16"])
def test_short_types_are_as_near_to_float64_as_the_plain_network_is(amp: str) -> None:
    """Logits and all gradients as one vector, the mean of eight batches, at most twice as far off.

    No map has 2^3 voxels, where some CPUs read memory that was never written (`gradient_error`).
    """
    plain, fast = pair()
    plain.train(), fast.train()
    exact, short = copy.deepcopy(plain), [plain.float(), fast.float()]
    dtype, errors = getattr(torch, amp), torch.zeros(2, 2)
    for seed in range(8):
        image = torch.rand((4, 1, 24, 24, 24), generator=torch.Generator().manual_seed(seed))
        true = _vector(exact, image.double(), torch.float32)
        for k, network in enumerate(short):
            found = _vector(network, image, dtype)
            for part, (value, right) in enumerate(zip(found, true, strict=True)):
                errors[k, part] += float((value.double() - right).norm() / right.norm()) / 8
    assert (errors[1] <= 2 * errors[0]).all(), errors
    assert (errors > 0).all()


def _vector(network: nn.Module, image: Tensor, amp: torch.dtype) -> tuple[Tensor, Tensor]:
    network.zero_grad()
    with torch.autocast("cpu", amp, enabled=amp != torch.float32):
        output = network(image)
    F.softplus(output.double()).sum().backward()
    grads = [p.grad.double().flatten() for p in network.parameters() if p.grad is not None]
    return output.detach(), torch.cat(grads)


def test_on_a_cpu_threads_short_types_narrow_blocks_and_single_voxels_go_the_plain_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Outputs to the bit; where the fast way is taken, last bits differ."""
    wide: Mapping[str, Any] = {**TINY, "growth": 32, "bn_size": 4}
    equal = {}
    for name, options, amp, size, threads in (
        ("wide", wide, "float32", 16, 1),
        ("threads", wide, "float32", 16, 2),
        ("narrow", TINY, "float32", 16, 1),
        ("short", wide, "bfloat16", 16, 1),
        ("single", {**wide, "blocks": (2,)}, "float32", 4, 1),
    ):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        plain, fast = DenseNet(1, **options), FastDenseNet(1, **options)
        fast.load_state_dict(plain.state_dict())
        image = torch.rand(2, 1, size, size, size, generator=torch.Generator().manual_seed(1))
        one, other = (_vector(each.train(), image, getattr(torch, amp))[0] for each in (plain, fast))
        equal[name] = torch.equal(one, other)
    assert equal == {"wide": False, "threads": True, "narrow": True, "short": True, "single": True}


def test_one_voxel_of_one_sample_is_refused_in_training() -> None:
    plain, fast = pair()
    image = image_of(1, 1, 13, 13, 13)
    for network in (plain.train(), fast.train()):
        with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
            network(image)
    assert torch.allclose(fast.eval()(image), plain.eval()(image), rtol=CLOSE)


def test_frozen_weights_and_frozen_norms() -> None:
    plain, fast = pair(0.3)
    plain.train(), fast.train()
    image = image_of(2, 1, 16, 16, 16)
    for network in (plain, fast):
        for name, parameter in network.named_parameters():
            parameter.requires_grad_("denseblock1" not in name and "norm" not in name and "conv0" not in name)
    assert_close(*both(plain, fast, image), CLOSE)
    for network in (plain, fast):  # some norms of the second block, and dropout of one layer of the third
        network.features.denseblock2.denselayer1.layers.norm1.eval()
        network.features.denseblock3.denselayer1.layers.dropout.eval()
    assert_close(*both(plain, fast, image), CLOSE)
    for network in (plain, fast):  # all norms, dropout goes on
        for module in network.modules():
            module.train(isinstance(module, nn.Dropout3d))
    assert_close(*both(plain, fast, image), CLOSE)


def test_an_averaged_copy_is_a_network_of_its_own() -> None:
    _, fast = pair()
    copied = copy.deepcopy(fast).eval().requires_grad_(False)
    image = image_of(2, 1, 16, 16, 16)
    before = copied(image)
    fast.train()(image).sum().backward()
    assert torch.equal(copied(image), before)
    with torch.inference_mode():
        assert torch.equal(copied(image), before)
    state = {name: value.clone() for name, value in fast.state_dict().items()}
    fast.eval()(image)
    assert all(torch.equal(value, state[name]) for name, value in fast.state_dict().items())


@pytest.mark.parametrize("size", [(16, 16, 16), (15, 18, 13), (7, 8, 9)])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_stem_of_cells_is_the_convolution(size: tuple[int, ...], channels: int) -> None:
    image = torch.rand(2, channels, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(5, channels, 7, 7, 7, dtype=torch.float64, requires_grad=True)
    mine, theirs = stem_of_cells(image, weight), F.conv3d(image, weight, stride=2, padding=3)
    assert torch.allclose(mine, theirs, rtol=1e-13)
    back = torch.rand(theirs.shape, dtype=torch.float64)
    grads = [torch.autograd.grad((each * back).sum(), (image, weight)) for each in (mine, theirs)]
    for one, other in zip(*grads, strict=True):
        assert torch.allclose(one, other, rtol=1e-12)


@pytest.mark.usefixtures("always")
@pytest.mark.filterwarnings("ignore")  # of the compiler itself
def test_the_graph_is_whole() -> None:
    """Captured without a break, forward and back; what is captured gives what the network gives."""
    torch._dynamo.reset()
    options = {**TINY, "blocks": [1, 1]}
    fast = build("densenet-small", 1, options, dropout=0.2, measured=("volume",), fast=True).train()
    image, measured = torch.rand(2, 1, 16, 16, 16), torch.rand(2, 1)
    state, found = copy.deepcopy(fast.state_dict()), []
    for call in (fast, torch.compile(fast, backend="aot_eager", fullgraph=True)):
        fast.load_state_dict(state)
        fast.zero_grad()
        torch.manual_seed(3)
        logits = call(image, measured)
        logits.sum().backward()
        grads = [p.grad for p in fast.parameters() if p.grad is not None]
        found.append([logits.detach(), *grads, *(b.clone() for b in fast.buffers())])
    assert len(found[0]) > len([*fast.parameters()])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_names_build_either_and_their_state_dicts_fit() -> None:
    plain, fast = (build("densenet-small", 1, fast=which) for which in (False, True))
    assert isinstance(fast, FastDenseNet)
    assert not isinstance(plain, FastDenseNet)
    assert [*plain.state_dict()] == [*fast.state_dict()]
    torch.manual_seed(2)
    first = ours("densenet-small").state_dict()
    torch.manual_seed(2)
    second = build("densenet-small", 1, fast=True).state_dict()
    assert all(torch.equal(first[name], value) for name, value in second.items())


def test_channels_last_and_contiguous_give_the_same() -> None:
    _, fast = pair()
    image = image_of(2, 1, 16, 16, 16)
    one, other = run(fast.train(), image), run(pair()[1].to(memory_format=CHANNELS_LAST), image)
    assert_close(one, other, CLOSE)

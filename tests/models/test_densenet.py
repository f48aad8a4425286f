"""Our DenseNets are MONAI's: the same weights, the same function, the same gradients."""

from collections.abc import Mapping
from itertools import product

import pytest
import torch
from monai.networks.nets import DenseNet as MonaiDenseNet
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from toolkit.errors import UsageError
from toolkit.models.densenet import SIZES, DenseNet, max_of_neighbours, mean_of_cells

CHANNELS_LAST = torch.channels_last_3d


def monai(name: str, in_channels: int = 1, dropout: float = 0.0) -> nn.Module:
    size = SIZES[name]
    return MonaiDenseNet(
        3,
        in_channels,
        1,
        init_features=size["init_features"],
        growth_rate=size["growth"],
        block_config=size["blocks"],
        dropout_prob=dropout,
    )


def ours(name: str, in_channels: int = 1, **more: float) -> DenseNet:
    return DenseNet(in_channels, **SIZES[name], **more)  # type: ignore[arg-type]


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def unlike(network: nn.Module, seed: int = 0) -> None:
    """Give every weight and statistic a value of its own, so that none can be left out or swapped."""
    draw = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            random = torch.rand(value.shape, generator=draw, dtype=torch.float64)
            is_norm = value.ndim == 1
            value.copy_(0.5 + random if is_norm else (random - 0.5) / value[0].numel() ** 0.5 * 3)
        else:
            value.fill_(3)
        assert torch.isfinite(value).all(), name


def run(network: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Return output, gradients and statistics of one pass forward and back."""
    network.zero_grad()
    image = image.clone(memory_format=torch.preserve_format).requires_grad_()
    output = network(image)
    F.softplus(output).sum().backward()
    assert image.grad is not None
    found = {"output": output.detach(), "image": image.grad}
    found |= {f"grad {name}": p.grad for name, p in network.named_parameters() if p.grad is not None}
    return found | {f"state {name}": b.clone() for name, b in network.named_buffers()}


def assert_close(one: Mapping[str, Tensor], other: Mapping[str, Tensor], relative: float) -> None:
    """Compare with each tensor's own scale; what cancels out by rights, with that of the largest gradient."""
    assert one.keys() == other.keys()
    largest = max(value.abs().max().item() for name, value in other.items() if name.startswith("grad"))
    for name, value in other.items():
        error = (one[name] - value).abs().max().item()
        assert error <= relative * (value.abs().max().item() + 1e-3 * largest), name


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("in_channels", [1, 2])
def test_state_dicts_are_interchangeable(name: str, in_channels: int) -> None:
    with torch.device("meta"):  # keys and shapes alone
        mine, theirs = ours(name, in_channels), monai(name, in_channels)
    assert shapes(mine) == shapes(theirs)
    assert [*shapes(mine)] == [*shapes(theirs)]
    mine.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    theirs.load_state_dict(mine.state_dict(), strict=True, assign=True)


def test_weights_go_to_monai_and_back() -> None:
    mine, theirs, back = ours("densenet-small"), monai("densenet-small"), monai("densenet-small")
    unlike(theirs, 1)
    mine.load_state_dict(theirs.state_dict(), strict=True)
    back.load_state_dict(mine.state_dict(), strict=True)
    for key, value in theirs.state_dict().items():
        assert torch.equal(back.state_dict()[key], value), key


def test_one_seed_gives_the_weights_that_monai_draws() -> None:
    torch.manual_seed(5)
    theirs = monai("densenet-small").state_dict()
    torch.manual_seed(5)
    for key, value in ours("densenet-small").state_dict().items():
        assert torch.equal(value, theirs[key]), key


# float64: about 500 operations one after another, each with a relative error of 2^-53 of the largest value,
# and norms that divide by deviations of 0.01 to 0.1 of it
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("densenet-small", (2, 1, 32, 32, 32)),
        ("densenet-small", (2, 1, 23, 29, 41)),
        ("densenet-small", (3, 2, 13, 14, 15)),
        # a last map of one voxel: its norms see 8 values, with fewer the gradient is ill-conditioned
        pytest.param("densenet121", (8, 1, 29, 33, 37), marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_function_and_gradients_are_those_of_monai(name: str, shape: tuple[int, ...], training: bool) -> None:
    mine, theirs = ours(name, shape[1]).double(), monai(name, shape[1]).double()
    unlike(theirs)
    mine.load_state_dict(theirs.state_dict())
    image = torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mine.train(training), theirs.train(training)
    assert_close(run(mine, image), run(theirs, image), 1e-9)


def test_float32_is_as_near_to_float64_as_monai_is() -> None:
    mine, theirs = ours("densenet-small"), monai("densenet-small")
    unlike(theirs)
    mine.load_state_dict(theirs.state_dict())
    exact = monai("densenet-small").double()
    exact.load_state_dict(theirs.state_dict())
    image = torch.rand((4, 1, 32, 32, 32), generator=torch.Generator().manual_seed(2))
    true = run(exact.train(), image.double())
    for layout in (torch.contiguous_format, CHANNELS_LAST):
        mine_32 = run(mine.train().to(memory_format=layout), image.to(memory_format=layout))
        theirs_32 = run(theirs.train().to(memory_format=layout), image.to(memory_format=layout))
        mine.load_state_dict(exact.state_dict()), theirs.load_state_dict(exact.state_dict())
        for name, value in true.items():
            if value.is_floating_point():
                error = (mine_32[name] - value).norm() / value.norm()
                peer = (theirs_32[name] - value).norm() / value.norm()
                assert error <= 4 * peer + 8 * 2**-24, name


def test_dropout_is_that_of_monai() -> None:
    mine, theirs = ours("densenet-small", dropout=0.4).double(), monai("densenet-small", dropout=0.4).double()
    unlike(theirs)
    mine.load_state_dict(theirs.state_dict())
    image = torch.rand((2, 1, 32, 32, 32), dtype=torch.float64)
    outputs = []
    for network in (mine.train(), theirs.train()):
        torch.manual_seed(7)
        outputs.append(network(image))
    assert torch.allclose(*outputs, rtol=1e-9, atol=0)
    torch.manual_seed(8)
    assert not torch.allclose(mine(image), outputs[0], rtol=1e-3)


@pytest.mark.parametrize("shape", [*product((2, 5, 8), repeat=3)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, CHANNELS_LAST], ids=["ncdhw", "ndhwc"])
def test_means_of_cells_are_those_of_torch(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    x = torch.rand((2, 3, *shape), dtype=torch.float64).to(memory_format=layout).requires_grad_()
    weight = torch.rand((2, 3, *(size // 2 for size in shape)), dtype=torch.float64)
    mine, theirs = mean_of_cells(x), F.avg_pool3d(x, 2)
    assert torch.allclose(mine, theirs, rtol=2**-50, atol=0)
    grads = [torch.autograd.grad((each * weight).sum(), x)[0] for each in (mine, theirs)]
    assert torch.equal(*grads)
    assert mine.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("shape", [*product((1, 2, 5, 8), repeat=3)])
def test_largest_neighbours_are_those_of_torch(shape: tuple[int, ...]) -> None:
    """Few values, so that nearly every window holds ties."""
    x = torch.randint(0, 3, (2, 3, *shape)).double().requires_grad_()
    mine, theirs = max_of_neighbours(x), F.max_pool3d(x, 3, 2, 1)
    assert torch.equal(mine, theirs)
    weight = torch.randint(1, 100, mine.shape).double()
    grads = [torch.autograd.grad((each * weight).sum(), x)[0] for each in (mine, theirs)]
    positive = x > 0  # the ReLU before it passes nothing back from the others
    assert torch.equal(grads[0][positive], grads[1][positive])


def test_largest_neighbour_keeps_nan() -> None:
    x = torch.rand(1, 1, 9, 9, 9)
    x[0, 0, 4, 3, 5] = torch.nan
    assert torch.equal(max_of_neighbours(x).isnan(), F.max_pool3d(x, 3, 2, 1).isnan())
    assert max_of_neighbours(x).isnan().any()


def test_network_is_the_same_with_the_pooling_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    network = ours("densenet-small").double()
    unlike(network)
    image = torch.rand((2, 1, 27, 32, 32), dtype=torch.float64)
    on_cpu = run(network.eval(), image)
    monkeypatch.setattr("toolkit.models.densenet.MaxPool.forward", lambda _, x: max_of_neighbours(x))
    assert_close(run(network, image), on_cpu, 1e-12)


def test_channels_last_stays_channels_last() -> None:
    """Wherever a convolution leaves it so: for small batches on a CPU torch may choose otherwise."""
    network = ours("densenet-small").to(memory_format=CHANNELS_LAST)
    kept = {}

    def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if inputs[0].ndim == output.ndim == 5 and inputs[0].is_contiguous(memory_format=CHANNELS_LAST):
            kept[type(module).__name__] = output.is_contiguous(memory_format=CHANNELS_LAST)

    for module in network.modules():
        if not [*module.children()] and not isinstance(module, nn.Conv3d):
            module.register_forward_hook(look)
    network(torch.rand(8, 1, 32, 32, 32).to(memory_format=CHANNELS_LAST))
    assert kept == dict.fromkeys(("BatchNorm3d", "ReLU", "MaxPool"), True)


@pytest.mark.parametrize(
    ("name", "stem_stride", "least"),
    [("densenet121", 2, 29), ("densenet121", 1, 15), ("densenet-small", 2, 13), ("densenet-small", 1, 7)],
)
def test_a_patch_too_small_is_refused_by_name(name: str, stem_stride: int, least: int) -> None:
    network = ours(name, stem_stride=stem_stride).eval()
    assert network.least_size == least
    assert network(torch.zeros(1, 1, least, least + 3, least)).shape == (1, 1)
    with pytest.raises(
        UsageError, match=rf"E-MODEL-001.*{least + 9} x {least - 1}.*at least {least} "
    ) as told:
        network(torch.zeros(1, 1, least + 9, least - 1, least))
    assert told.value.problem.code == "E-MODEL-001"
    if stem_stride == 2:
        with pytest.raises(RuntimeError):  # nor is there a voxel left in MONAI's
            monai(name).eval()(torch.zeros(1, 1, least + 9, least - 1, least))


def test_a_stem_of_stride_1_doubles_every_map() -> None:
    sizes: dict[int, list[int]] = {1: [], 2: []}
    state = ours("densenet-small").state_dict()
    for stride, seen in sizes.items():
        network = ours("densenet-small", stem_stride=stride)
        network.load_state_dict(state, strict=True)
        for module in network.features:
            module.register_forward_hook(lambda m, i, out, seen=seen: seen.append(out.shape[-1]))
        network(torch.rand(2, 1, 32, 32, 32))
    assert sizes[1] == [2 * each for each in sizes[2]]
    assert sizes[2][0] == 16


@pytest.mark.parametrize(
    "wrong",
    [{"blocks": ()}, {"blocks": (0, 3)}, {"blocks": (10**9,)}, {"growth": 0}, {"stem_stride": 3}],
)
def test_impossible_sizes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="got"):
        DenseNet(1, **wrong)  # type: ignore[arg-type]

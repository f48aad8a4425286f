"""Names become networks that give one logit a patch; what is no network is refused and never called."""

import importlib
from pathlib import Path

import pytest
import torch
from monai.networks.nets import DenseNet as MonaiDenseNet
from monai.networks.nets import ResNet, ViT
from torch import Tensor, nn

from tests.models.test_densenet import ours
from toolkit.errors import UsageError
from toolkit.models.registry import LateFusion, build

RESNET = {
    "block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [4, 8, 8, 8], "spatial_dims": 3,
    "n_input_channels": 2, "num_classes": 1,
}  # fmt: skip
VIT = {
    "in_channels": 1, "img_size": [16, 16, 16], "patch_size": [8, 8, 8], "hidden_size": 24, "mlp_dim": 32,
    "num_layers": 2, "num_heads": 3, "classification": True, "num_classes": 1, "post_activation": "",
}  # fmt: skip


class Pair(nn.Module):
    def __init__(self, outputs: int = 2) -> None:
        super().__init__()
        self.layer = nn.Linear(1, outputs)

    def forward(self, image: Tensor) -> Tensor:
        return self.layer(image.mean((2, 3, 4)))


class Plugin(Pair):
    def __init__(self, in_channels: int, scale: float = 1.0) -> None:
        super().__init__(1)
        self.in_channels, self.scale = in_channels, scale


class Several(Pair):
    """Gives a tuple, as MONAI's ViT does."""

    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        return super().forward(image), [image]


CALLED = []


def not_a_class(**options: object) -> nn.Module:
    CALLED.append(options)
    return Pair(1)


def refusal(name: str, **more: object) -> str:
    with pytest.raises(UsageError) as told:
        build(name, 1, **more)  # type: ignore[arg-type]
    assert told.value.problem.code == "E-MODEL-001"
    return str(told.value)


def test_ours_is_what_monai_computes() -> None:
    network = build("densenet-small", 1).double().eval()
    theirs = MonaiDenseNet(3, 1, 1, init_features=16, growth_rate=16, block_config=(2, 4, 4)).double().eval()
    theirs.load_state_dict(network.state_dict(), strict=True)
    image = torch.rand(3, 1, 32, 32, 32).double()
    logits = network(image, None)
    assert logits.shape == (3,)
    assert torch.allclose(logits, theirs(image)[:, 0], rtol=1e-10)


def test_options_reach_ours() -> None:
    network = build("densenet-small", 1, {"growth": 8, "blocks": [1, 2]}, dropout=0.3, stem_stride=1)
    names = dict(network.named_modules())
    assert names["features.denseblock2.denselayer2.layers.conv2"].out_channels == 8
    assert names["features.denseblock2.denselayer2.layers.dropout"].p == 0.3
    assert names["features.conv0"].stride == (1, 1, 1)


@pytest.mark.parametrize(
    ("path", "options", "kind", "shape"),
    [
        ("monai.networks.nets:ResNet", RESNET, ResNet, (2, 2, 32, 32, 32)),
        ("monai.networks.nets:ViT", VIT, ViT, (2, 1, 16, 16, 16)),
    ],
)
def test_networks_by_import_path(
    path: str, options: dict[str, object], kind: type, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(3)
    network = build(path, shape[1], options).eval()
    torch.manual_seed(3)
    own = kind(**options).eval()
    assert [*network.state_dict()] == [*own.state_dict()]
    image = torch.rand(shape)
    output = own(image)
    output = output[0] if isinstance(output, tuple) else output
    assert torch.equal(network(image, None), output[:, 0])


def test_the_first_of_several_outputs_is_the_logit() -> None:
    image = torch.rand(4, 1, 8, 8, 8)
    network = build("tests.models.test_registry:Several", 1)
    assert torch.equal(network(image, None), Pair.forward(network, image)[:, 0])
    fused = build("tests.models.test_registry:Several", 1, measured=("volume",))
    assert fused(image, torch.zeros(4, 1)).shape == (4,)


def test_an_entry_point_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution as an installer leaves it."""
    info = tmp_path / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    here = "tests.models.test_registry"
    (info / "entry_points.txt").write_text(f"[toolkit.models]\nmine = {here}:Plugin\nbad = {here}:CALLED\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    network = build("mine", 3, {"scale": 2.0})
    assert isinstance(network, Plugin)
    assert (network.in_channels, network.scale) == (3, 2.0)
    assert "bad is no network: list" in refusal("bad")
    assert "mine" in refusal("nobody")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("densenet120", "densenet121"),
        ("no.such.package:Net", "ModuleNotFoundError"),
        ("monai.networks.nets:NoSuchNet", "AttributeError"),
        ("os:system", "is no network: builtin_function_or_method"),
        ("pathlib:Path", "is no network: type"),
        ("tests.models.test_registry:not_a_class", "is no network: function"),
        ("os:path.join", "no import path"),
        ("os; import sys:x", "no import path"),
        (":", "no import path"),
    ],
)
def test_what_is_no_network_is_refused(name: str, told: str) -> None:
    assert told in refusal(name)
    assert not CALLED


def test_a_network_that_refuses_its_options() -> None:
    assert "unexpected keyword argument 'depth'" in refusal("densenet-small", options={"depth": 3})
    assert "TypeError" in refusal("densenet-small", options={"blocks": "many"})
    assert "TypeError" in refusal("monai.networks.nets:ViT", options={})


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("tests.models.test_registry:Pair", {"outputs": 2}, r"shape \(4, 2\)"),
        ("torch.nn:Identity", {}, r"shape \(4, 1, 8, 8, 8\)"),
    ],
)
def test_an_output_that_is_not_one_logit_is_refused(name: str, options: dict[str, int], shape: str) -> None:
    with pytest.raises(UsageError, match=f"E-MODEL-001 .*{shape}"):
        build(name, 1, options)(torch.rand(4, 1, 8, 8, 8), None)


def test_late_fusion_is_concatenation_before_the_last_layer() -> None:
    """Against a DenseNet whose last layer really has two inputs more."""
    fused = build("densenet-small", 1, measured=("diameter", "mean_hu")).double().eval()
    assert isinstance(fused, LateFusion)
    image, features = torch.rand(3, 1, 32, 32, 32).double(), torch.randn(3, 2).double()
    alone = ours("densenet-small").double().eval()
    alone.load_state_dict(
        {k.removeprefix("backbone."): v for k, v in fused.state_dict().items() if k != "measured.weight"}
    )
    assert torch.equal(fused(image, features), alone(image)[:, 0])  # the weight starts at zero
    nn.init.normal_(fused.measured.weight)
    pooled = alone.class_layers[:-1](alone.features(image))
    last = alone.class_layers.out
    joined = torch.cat([last.weight, fused.measured.weight], 1)
    expected = torch.cat([pooled, features], 1) @ joined.T + last.bias
    assert torch.allclose(fused(image, features), expected[:, 0], rtol=1e-12)


def test_measured_features_that_do_not_fit_are_refused() -> None:
    fused, alone = build("densenet-small", 1, measured=("volume",)), build("densenet-small", 1)
    image = torch.rand(2, 1, 16, 16, 16)
    for wrong in (None, torch.zeros(2, 2), torch.zeros(1, 1)):
        with pytest.raises(UsageError, match=r"E-MODEL-001.*\(2, 1\) expected"):
            fused(image, wrong)
    with pytest.raises(UsageError, match=r"E-MODEL-001.*built without"):
        alone(image, torch.zeros(2, 1))


def test_logits_are_float32_under_autocast() -> None:
    image, features = torch.rand(2, 1, 16, 16, 16), torch.full((2, 1), 1 + 2**-12)
    fused = build("densenet-small", 1, measured=("volume",)).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        before = fused(image, features)
        fused.measured.weight.fill_(1.0)
        after = fused(image, features)
        assert build("densenet-small", 1).eval()(image, None).dtype == torch.float32
    assert before.dtype == torch.float32
    assert torch.allclose(after - before, features[:, 0], rtol=0, atol=2**-21)  # bfloat16 would lose 2**-12

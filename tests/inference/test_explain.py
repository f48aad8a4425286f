"""Grad-CAM against MONAI's, and on a network whose evidence lies where it was put."""

import numpy as np
import pytest
import torch
from monai.visualize import GradCAM
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from tests.models.test_densenet import monai, unlike
from toolkit.errors import UsageError
from toolkit.inference.explain import grad_cam
from toolkit.models.registry import build


class Corners(nn.Module):
    """Bright voxels speak for malignant, dark ones for benign."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Conv3d(1, 2, 3, padding=1, bias=True)
        self.relu = nn.ReLU(inplace=True)
        with torch.no_grad():
            self.map.weight[0], self.map.weight[1] = 1 / 27, -1 / 27
            self.map.bias[0], self.map.bias[1] = -0.6, 0.4

    def forward(self, image: Tensor) -> Tensor:
        bright, dark = self.relu(self.map(image)).mean((2, 3, 4)).unbind(1)
        return (bright - dark)[:, None]


@pytest.mark.parametrize("layer", ["class_layers.relu", "features.denseblock2", "features.conv0"])
@pytest.mark.parametrize("sign", [1, -1], ids=["malignant", "benign"])
def test_maps_are_those_of_monai(layer: str, sign: int) -> None:
    ours, theirs = build("densenet-small", 1).double(), monai("densenet-small").double()
    unlike(theirs)
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():  # the same network, for benign
        theirs.class_layers.out.weight.mul_(sign), theirs.class_layers.out.bias.mul_(sign)
    image = torch.rand(1, 1, 40, 36, 48).double()
    coarse = GradCAM(theirs.eval(), target_layers=layer).compute_map(
        image.clone().requires_grad_(), class_idx=0
    )
    fine = (
        F.interpolate(coarse, image.shape[2:], mode="trilinear", align_corners=False)[0, 0].detach().numpy()
    )
    found = grad_cam(ours, image, layer=layer, evidence="malignant" if sign > 0 else "benign")
    assert found.dtype == np.float32
    assert found.max() == (1 if fine.max() > 0 else 0)
    np.testing.assert_allclose(found, fine / max(fine.max(), 1e-300), atol=1e-5)


def test_one_of_both_maps_shows_something() -> None:
    """So that the test above does not compare zeros."""
    network = build("densenet-small", 1)
    unlike(network)
    image = torch.rand(1, 1, 40, 36, 48)
    both = [grad_cam(network, image, evidence=side) for side in ("malignant", "benign")]  # type: ignore[arg-type]
    assert max(each.max() for each in both) == 1
    assert max(each.std() for each in both) > 0.05


def test_evidence_is_found_where_it_was_put() -> None:
    image = torch.zeros(1, 1, 24, 24, 24)
    image[..., 16:, :8, 16:] = 1
    network = build("tests.inference.test_explain:Corners", 1)
    malignant, benign = (grad_cam(network, image, evidence=side) for side in ("malignant", "benign"))
    corner = np.zeros((24, 24, 24), bool)
    corner[16:, :8, 16:] = True
    assert (malignant[17:23, 1:7, 17:23] > 0.99).all()
    assert (malignant[~corner] == 0).all()
    assert (benign[:14] > 0.99).all()
    assert (benign[18:22, 2:6, 18:22] == 0).all()  # off the patch's end, beyond which is darkness


def test_the_model_is_left_as_it_was() -> None:
    network = build("densenet-small", 1, dropout=0.5, measured=("volume",)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    hooks = [len(module._forward_hooks) for module in network.modules()]
    image, measured = torch.rand(1, 1, 32, 32, 32), torch.ones(1, 1)
    with torch.no_grad():
        first = grad_cam(network, image, measured)
    assert np.array_equal(first, grad_cam(network, image, measured))
    assert all(module.training for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert hooks == [len(module._forward_hooks) for module in network.modules()]
    assert not image.requires_grad
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_frozen_networks_and_networks_of_others_are_explained() -> None:
    options = {"block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [4, 8, 8, 8], "spatial_dims": 3,
               "n_input_channels": 1, "num_classes": 1}  # fmt: skip
    network = build("monai.networks.nets:ResNet", 1, options).requires_grad_(False)
    sides = [grad_cam(network, torch.rand(1, 1, 32, 32, 32), evidence=e) for e in ("malignant", "benign")]
    assert max(side.max() for side in sides) == 1


@pytest.mark.parametrize("layer", [None, "flat", "no.such.module"])
def test_a_network_without_a_map_is_refused(layer: str | None) -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat = nn.Linear(1, 1)

        def forward(self, image: Tensor, measured: None) -> Tensor:
            return self.flat(image.mean((2, 3, 4)))[:, 0]

    with pytest.raises(UsageError, match="E-MODEL-006"):
        grad_cam(Flat(), torch.rand(1, 1, 8, 8, 8), layer=layer)


def test_a_last_map_of_one_voxel_is_passed_over() -> None:
    """DenseNet-121 makes one voxel of 32: the map before it is taken."""
    network = build("densenet-small", 1, {"blocks": [1, 1, 1, 1]})
    unlike(network)
    image = torch.rand(1, 1, 32, 32, 32)
    both = [grad_cam(network, image, evidence=side) for side in ("malignant", "benign")]  # type: ignore[arg-type]
    assert max(each.std() for each in both) > 0


def test_the_default_map_is_the_last_that_shows_places() -> None:
    torch.manual_seed(0)
    model = build("densenet-small", 1)
    image = torch.rand(1, 1, 32, 32, 32)
    # 32 voxels are 8 after the stem, 4 in the second block and 2 in the third
    found = grad_cam(model, image)
    assert np.array_equal(found, grad_cam(model, image, layer="features.transition2.relu"))
    assert not np.array_equal(found, grad_cam(model, image, layer="class_layers.relu"))

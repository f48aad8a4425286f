"""3-D DenseNets whose weights are those of MONAI's, made for small crops and for runs that can be repeated.

Huang et al., Densely Connected Convolutional Networks, CVPR 2017. A state dict of
``monai.networks.nets.DenseNet(spatial_dims=3, in_channels=c, out_channels=1)`` of the same sizes loads with
``strict=True`` and gives the same function, and the other way round; one seed gives both the same weights.

What differs is how it is computed. Global pooling is a mean, and pairs are averaged by sums of views: unlike
AdaptiveAvgPool3d and AvgPool3d these repeat themselves bit for bit on a GPU, and they leave memory in the
order of channels_last_3d. The transitions average before their 1x1x1 convolution instead of after it: both
are linear, so they commute, and the convolution is left with an eighth of the voxels.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from toolkit.errors import Problem, UsageError


class DenseNet(nn.Module):
    """A 3-D DenseNet with one output; (b, c, d, h, w) to (b, 1).

    Parameters
    ----------
    in_channels
        Of the patch.
    blocks
        How many layers each dense block has.
    growth, init_features, bn_size
        Channels that a layer adds, channels of the stem, and width of a bottleneck in units of `growth`.
    dropout
        Share of what a layer adds that is dropped in training, behind its 3x3x3 convolution.
    stem_stride
        2 is the published network: the first convolution halves the patch and the max-pool behind it halves
        it again. With 1 the convolution leaves it whole, the max-pool stays, and every later map has twice
        the voxels along each axis: for patches of 32 and fewer. Weights fit both.

    Raises
    ------
    ValueError
        On a size that no network has.
    UsageError
        E-MODEL-001 in `forward`, where a patch is too small to leave a voxel behind the last transition.
    """

    def __init__(
        self,
        in_channels: int,
        blocks: Sequence[int] = (6, 12, 24, 16),
        *,
        growth: int = 32,
        init_features: int = 64,
        bn_size: int = 4,
        dropout: float = 0.0,
        stem_stride: int = 2,
    ) -> None:
        super().__init__()
        _check(in_channels, blocks, growth, init_features, bn_size, stem_stride)
        self.stem_stride, self.transitions = stem_stride, len(blocks) - 1
        self.features = _stem(in_channels, init_features, stem_stride)
        channels = init_features
        for number, layers in enumerate(blocks, start=1):
            self.features.add_module(
                f"denseblock{number}", _block(layers, channels, growth, bn_size, dropout)
            )
            channels += layers * growth
            if number < len(blocks):
                self.features.add_module(f"transition{number}", Transition(channels))
                channels //= 2
        self.features.add_module("norm5", nn.BatchNorm3d(channels))
        self.class_layers = nn.Sequential(
            OrderedDict[str, nn.Module](
                relu=nn.ReLU(inplace=True), pool=GlobalMean(), out=nn.Linear(channels, 1)
            )
        )
        _initialise(self)

    @property
    def least_size(self) -> int:
        """Voxels that a patch must have along each axis."""
        # the stem's two halvings round up, those of the transitions down
        return 2 * self.stem_stride * ((1 << self.transitions) - 1) + 1

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (b, 1) of patches (b, c, d, h, w)."""
        if min(image.shape[2:]) < self.least_size:
            measured = " x ".join(str(each) for each in image.shape[2:]) + " voxels"
            expected = f"at least {self.least_size} along each axis at a stem stride of {self.stem_stride}"
            action = "Nothing done; take larger patches, or a stem stride of 1"
            problem = Problem(
                "E-MODEL-001", "patches are too small for the network", measured, expected, action
            )
            raise UsageError(problem)
        return self._logits(image)

    def _logits(self, image: Tensor) -> Tensor:
        logits: Tensor = self.class_layers(self.features(image))
        return logits


class DenseLayer(nn.Module):
    """Norm, ReLU, 1x1x1 convolution, norm, ReLU, 3x3x3 convolution; adds `growth` channels to its input."""

    def __init__(self, channels: int, growth: int, bn_size: int, dropout: float) -> None:
        super().__init__()
        width = bn_size * growth
        self.layers = nn.Sequential(
            OrderedDict[str, nn.Module](
                norm1=nn.BatchNorm3d(channels),
                relu1=nn.ReLU(inplace=True),
                conv1=nn.Conv3d(channels, width, 1, bias=False),
                norm2=nn.BatchNorm3d(width),
                relu2=nn.ReLU(inplace=True),
                conv2=nn.Conv3d(width, growth, 3, padding=1, bias=False),
            )
        )
        if dropout > 0:
            self.layers.add_module("dropout", nn.Dropout3d(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` and the new channels behind it."""
        return torch.cat([x, self.layers(x)], 1)


class Transition(nn.Module):
    """Halves the channels and, rounding down, the voxels along each axis."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv3d(channels, channels // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the smaller map."""
        smaller: Tensor = self.conv(mean_of_cells(self.relu(self.norm(x))))
        return smaller


class MaxPool(nn.Module):
    """The largest of 3x3x3 voxels at every second one; of a map that is nowhere negative."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled map.

        MaxPool3d's gradient adds up in any order on a GPU; on the CPU its order is fixed, and it is fast.
        """
        return max_of_neighbours(x) if x.is_cuda else F.max_pool3d(x, 3, 2, 1)


class GlobalMean(nn.Module):
    """The mean of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, c)."""
        return x.mean((2, 3, 4))


def mean_of_cells(x: Tensor) -> Tensor:
    """Return the means of cells of 2x2x2 voxels, as AvgPool3d(2) does: an odd voxel at an end is left out."""
    depth, height, width = (size // 2 * 2 for size in x.shape[2:])
    last = x[:, :, :depth, :height, :width].permute(0, 2, 3, 4, 1)  # channels last: contiguous, or made so
    for axis in (1, 2, 3):
        first, second = _pairs(last, axis)
        last = first + second
    return (last * 0.125).permute(0, 4, 1, 2, 3)


def max_of_neighbours(x: Tensor) -> Tensor:
    """Return ``max_pool3d(x, 3, stride=2, padding=1)`` of an `x` that is nowhere negative, axis by axis.

    Of equal values the first is taken, as there, so that gradients are the same; NaN stays NaN.
    """
    last = x.permute(0, 2, 3, 4, 1)
    for axis in (3, 2, 1):
        zero = torch.zeros_like(last.narrow(axis, 0, 1))
        if last.shape[axis] % 2:
            last = torch.cat([last, zero], axis)
        even, odd = _pairs(last, axis)
        before = torch.cat([zero, odd.narrow(axis, 0, odd.shape[axis] - 1)], axis)
        last = _first_larger(_first_larger(before, even), odd)
    return last.permute(0, 4, 1, 2, 3)


def _pairs(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    first, second = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :]).unbind(axis + 1)
    return first, second


def _first_larger(first: Tensor, second: Tensor) -> Tensor:
    return torch.where((second > first) | second.isnan(), second, first)


def _stem(in_channels: int, features: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            conv0=nn.Conv3d(in_channels, features, 7, stride, 3, bias=False),
            norm0=nn.BatchNorm3d(features),
            relu0=nn.ReLU(inplace=True),
            pool0=MaxPool(),
        )
    )


def _block(layers: int, channels: int, growth: int, bn_size: int, dropout: float) -> nn.Sequential:
    made = (DenseLayer(channels + i * growth, growth, bn_size, dropout) for i in range(layers))
    return nn.Sequential(OrderedDict((f"denselayer{i}", layer) for i, layer in enumerate(made, start=1)))


def _check(in_channels: int, blocks: Sequence[int], *widths: int) -> None:
    """Refuse sizes that no network has; a model file of unknown origin may name any."""
    if not 1 <= len(blocks) <= 8 or not all(1 <= layers <= 256 for layers in blocks):
        raise ValueError(f"1 to 8 blocks of 1 to 256 layers, got {blocks!r:.60}")
    *features, stem_stride = widths
    if stem_stride not in (1, 2) or not all(1 <= width <= 4096 for width in (in_channels, *features)):
        raise ValueError(f"1 to 4096 channels and a stem stride of 1 or 2, got {in_channels}, {widths}")


def _initialise(network: nn.Module) -> None:
    """Draw weights as MONAI does, in its order: He et al. 2015 for convolutions, no bias at the end."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


SIZES: Mapping[str, Mapping[str, int | tuple[int, ...]]] = {
    "densenet121": {"blocks": (6, 12, 24, 16), "growth": 32, "init_features": 64},
    "densenet169": {"blocks": (6, 12, 32, 32), "growth": 32, "init_features": 64},
    "densenet201": {"blocks": (6, 12, 48, 32), "growth": 32, "init_features": 64},
    "densenet-small": {"blocks": (2, 4, 4), "growth": 16, "init_features": 16},
}

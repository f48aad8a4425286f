"""How much arithmetic a network is: products that count, a multiply and an add as two."""

from math import prod
from typing import Any

from toolkit.models.registry import build

CHECKED = 2


def taps(voxels: int, kernel: int, stride: int, padding: int) -> int:
    """Return along one axis how many (output, kernel element) pairs meet a voxel and not the padding."""
    starts = range(-padding, voxels + padding - kernel + 1, stride)
    return sum(max(0, min(start + kernel, voxels) - max(start, 0)) for start in starts)


def convolution(
    channels_in: int,
    channels_out: int,
    voxels: tuple[int, ...],
    kernel: int,
    stride: int = 1,
    padding: int = 0,
) -> int:
    """Return the floating-point operations of a convolution of one sample without dilation.

    Products with padding are not counted: on small maps they are most of all (26 of 27 where a 3x3x3 kernel
    meets one voxel), and libraries leave them out.
    """
    return 2 * channels_in * channels_out * prod(taps(n, kernel, stride, padding) for n in voxels)


def gflop(model: str, patch: int, *, backward: bool) -> float:
    """Return GFLOP a sample of a network's convolutions and linear layers.

    The way back costs twice the way there, for weights and for inputs; the image itself has no gradient.
    """
    import torch
    from torch import nn

    forward: list[int] = []

    def count(module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, nn.Linear):
            forward.append(2 * module.in_features * module.out_features)
            return
        shape = tuple(inputs[0].shape[2:])
        kernel, stride, padding = module.kernel_size[0], module.stride[0], module.padding[0]
        channels = (module.in_channels // module.groups, module.out_channels)
        forward.append(convolution(*channels, shape, kernel, stride, padding))

    with torch.device("meta"):
        network, image = build(model, 1), torch.rand(CHECKED, 1, patch, patch, patch)
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.Linear):
            module.register_forward_hook(count)
    network(image, None)
    total = 3 * sum(forward) - forward[0] if backward else sum(forward)
    return total / 1e9

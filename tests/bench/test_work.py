"""How much arithmetic a network is: against enumeration, and against torch's own counter."""

from itertools import product

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from toolkit.bench.work import convolution, gflop, taps
from toolkit.models.registry import build


@pytest.mark.parametrize(
    ("voxels", "kernel", "stride", "padding"), [*product((1, 2, 5), (1, 3, 7), (1, 2), (0, 1, 3))]
)
def test_taps_are_the_ones_that_a_convolution_of_ones_adds_up(voxels, kernel, stride, padding) -> None:
    if voxels + 2 * padding < kernel:
        assert taps(voxels, kernel, stride, padding) == 0
        return
    ones = torch.ones(1, 1, voxels)
    summed = nn.functional.conv1d(ones, torch.ones(1, 1, kernel), stride=stride, padding=padding)
    assert taps(voxels, kernel, stride, padding) == int(summed.sum())


def test_without_padding_it_is_what_torch_counts() -> None:
    layer = nn.Conv3d(4, 6, 3, stride=2, bias=False)
    with FlopCounterMode(display=False) as counter:
        layer(torch.rand(1, 4, 9, 8, 7))
    assert convolution(4, 6, (9, 8, 7), 3, 2) == counter.get_total_flops()


def test_a_network_is_a_little_less_than_torch_counts() -> None:
    with torch.device("meta"):
        model, image = build("densenet121", 1), torch.rand(2, 1, 64, 64, 64)
    for backward in (False, True):
        with FlopCounterMode(display=False) as counter:
            logit = model(image, None)
            if backward:
                logit.sum().backward()
        counted = counter.get_total_flops() / 2e9
        assert 0.85 * counted < gflop("densenet121", 64, backward=backward) < counted


def test_where_nothing_is_padded_the_way_back_is_as_torch_counts_it() -> None:
    model = nn.Sequential(nn.Conv3d(1, 4, 1, bias=False), nn.Conv3d(4, 2, 3, bias=False))
    with FlopCounterMode(display=False) as counter:
        model(torch.rand(1, 1, 5, 5, 5)).sum().backward()
    first, second = convolution(1, 4, (5, 5, 5), 1), convolution(4, 2, (5, 5, 5), 3)
    assert counter.get_total_flops() == 3 * (first + second) - first

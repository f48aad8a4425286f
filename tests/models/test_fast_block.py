"""The dense block's operation: its gradients by finite differences, its registration, what it keeps."""

from typing import Any

import pytest
import torch
from torch import Tensor

from toolkit.models.fast_block import dense_block

EPS = 1e-5
Lists = list[list[Tensor]]
CHANNELS, GROWTH, WIDTH, LAYERS = 3, 2, 4, 2


def weights() -> Lists:
    """Return weights of two layers and the norm behind, float64, by list."""
    draw = torch.Generator().manual_seed(4)

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, generator=draw, dtype=torch.float64) - 0.3

    sizes = [CHANNELS + GROWTH * k for k in range(LAYERS + 1)]
    norm1 = [[random(size) for size in sizes] for _ in range(2)]
    norm2 = [[random(WIDTH) for _ in range(LAYERS)] for _ in range(2)]
    conv1 = [random(WIDTH, size, 1, 1, 1) for size in sizes[:-1]]
    return [*norm1, conv1, *norm2, [random(GROWTH, WIDTH, 3, 3, 3) for _ in range(LAYERS)]]


def running(given: Lists) -> Lists:
    """Return running statistics for evaluation."""
    return [[each.abs() + 0.1 * k for each in given[k]] for k in (0, 1)] + [
        [each.abs() + 0.2 * k for each in given[k]] for k in (3, 4)
    ]


def call(training: bool, cells: bool) -> tuple[Any, list[Tensor]]:
    """Return a function of all differentiable tensors, and those."""
    given = weights()
    stand_in = [] if training else running(given)
    masks = [torch.tensor([[0.0, 2.0], [1.5, 1.0]], dtype=torch.float64)] * LAYERS
    x = torch.rand(2, 2, 3, 2, CHANNELS, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def function(x: Tensor, *flat: Tensor) -> Tensor:
        lists, rest = [], list(flat)
        for some in given:
            lists.append(rest[: len(some)])
            rest = rest[len(some) :]
        return dense_block(x, lists, stand_in, masks, eps=EPS, cells=cells)[0]

    tensors = [x, *(each for some in given for each in some)]
    return function, [each.requires_grad_() for each in tensors]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("cells", [True, False], ids=["cells", "whole"])
def test_gradients_are_those_of_finite_differences(training: bool, cells: bool) -> None:
    function, tensors = call(training, cells)
    assert torch.autograd.gradcheck(function, tensors, fast_mode=True, eps=1e-7, atol=1e-5, rtol=1e-5)


def test_torch_finds_the_operations_well_registered() -> None:
    given = [[each.requires_grad_() for each in some] for some in weights()]
    x = torch.rand(2, 2, 3, 2, CHANNELS, dtype=torch.float64, requires_grad=True)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    operation = torch.ops.toolkit.dense_block.default
    for stand_in in ([[], [], [], []], [[each.detach() for each in some] for some in running(given)]):
        torch.library.opcheck(operation, (x, *given, *stand_in, [], EPS, True, True), test_utils=checks)
    out, *kept = operation(x, *given, [], [], [], [], [], EPS, False, True)
    flat = [[each.detach() for each in some] for some in given]
    torch.library.opcheck(
        torch.ops.toolkit.dense_block_backward.default,
        (torch.rand_like(out), kept[0], kept[1], kept[2:], *flat, [], [], [], [], [], EPS, False),
        test_utils=checks,
    )


def test_nothing_is_kept_where_nothing_goes_back() -> None:
    given = weights()
    x = torch.rand(2, 2, 2, 2, CHANNELS, dtype=torch.float64)
    sizes = {}
    for keep in (True, False):
        bottleneck = torch.ops.toolkit.dense_block(x, *given, *running(given), [], EPS, True, keep)[2]
        sizes[keep] = len(bottleneck)
    assert sizes == {True: LAYERS, False: 1}

"""A dense block with the norm and ReLU behind it as one differentiable operation.

One buffer holds all channels of the block, and nothing is concatenated. Mean and variance of new channels are
computed once and serve every later layer and the norm behind the block: batch norms of the same channels
differ in weight and bias alone. The way back keeps one buffer of gradients, and goes through the batch norm
of a channel once, when the last of its consumers has added to it.

Registered with torch as ``toolkit::dense_block`` and ``toolkit::dense_block_backward``, so that
``torch.compile`` and CUDA graphs take them as they are. All tensors are (n, d, h, w, channels).
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from toolkit.models import fast_rows
from toolkit.models.fast_norms import Norms
from toolkit.models.fast_rows import wide

Lists = list[list[Tensor]]
WEIGHTS = 6
"""Lists of weights: norm1's weight and bias, conv1, norm2's weight and bias, conv2; one of each a layer. The
first two have one more, of the norm behind the block."""
PARTS = 4
"""Lists of gradients: norm1's, conv1's, norm2's, conv2's."""


def dense_block(
    x: Tensor,
    weights: Sequence[Sequence[Tensor]],
    running: Sequence[Sequence[Tensor]],
    masks: Sequence[Tensor],
    *,
    eps: float,
    cells: bool,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Return what goes on behind the block, and the statistics of the batch; differentiable, once.

    Parameters
    ----------
    x
        (n, d, h, w, c), in the number type that is computed with.
    weights
        As `WEIGHTS` says; convolutions in the type of `x`.
    running
        For evaluation: lists of mean and variance of norm1 (and of the norm behind) and of norm2. Empty in
        training.
    masks
        (n, growth) a layer: what dropout multiplies new channels by; empty without.
    cells
        Whether cells of 2x2x2 voxels are averaged behind ReLU, as a transition does.

    The statistics are mean and biased variance of all channels of the block, (channels,), and of the
    bottlenecks, (layers, width); empty in evaluation.
    """
    running = [list(each) for each in running] or [[], [], [], []]
    keep = torch.is_grad_enabled()
    given = [list(each) for each in weights]
    out, *found = _dense_block(x, *given, *running, list(masks), eps, cells, keep)
    _, _, mean, variance, mean2, variance2 = found
    return out, (mean, variance, mean2, variance2)


# long signatures: torch reads an operation's schema from them
@torch.library.custom_op("toolkit::dense_block", mutates_args=())
def _dense_block(
    x: Tensor,
    weight1: list[Tensor],
    bias1: list[Tensor],
    conv1: list[Tensor],
    weight2: list[Tensor],
    bias2: list[Tensor],
    conv2: list[Tensor],
    mean1: list[Tensor],
    variance1: list[Tensor],
    mean2: list[Tensor],
    variance2: list[Tensor],
    masks: list[Tensor],
    eps: float,
    cells: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    kit, training = _kit(x, len(conv1[0])), not mean1
    out, buffer, bottleneck, *found = _shapes(x, conv1, conv2, training=training, cells=cells, keep=keep)
    norms = Norms([weight1, bias1, weight2, bias2], [mean1, variance1, mean2, variance2], found, eps)
    with torch.autocast(x.device.type, enabled=False):
        kit.append(buffer, 0, x, None, norms.of_input(0, x.shape[-1]))
        for layer, (first, second) in enumerate(zip(conv1, conv2, strict=True)):
            end = first.shape[1]
            z = bottleneck[layer if keep else 0]
            taps = first.flatten(1)
            kit.product(_rows(buffer, end), norms.before(layer, end), taps, z, norms.of_bottleneck(layer))
            active = kit.activate(z, norms.within(layer)).view(*x.shape[:4], -1)
            new = torch.conv3d(_first(active), second, padding=1)
            mask = masks[layer] if masks else None
            kit.append(buffer, end, _last(new), mask, norms.of_input(end, len(second)))
        behind = norms.before(len(conv1), buffer.shape[-1])
        if cells:
            out = kit.activate_cells(buffer, behind)
        else:
            out = kit.activate(_rows(buffer, buffer.shape[-1]), behind).view(buffer.shape)
    return out, buffer, bottleneck, found[0], found[1], found[2], found[3]


@_dense_block.register_fake
def _(x: Tensor, *given: Any) -> tuple[Tensor, ...]:
    *lists, _, cells, keep = given
    return _shapes(x, lists[2], lists[5], training=not lists[6], cells=cells, keep=keep)


@torch.library.custom_op("toolkit::dense_block_backward", mutates_args=())
def _backward(
    grad: Tensor,
    buffer: Tensor,
    bottleneck: Tensor,
    found: list[Tensor],
    weight1: list[Tensor],
    bias1: list[Tensor],
    conv1: list[Tensor],
    weight2: list[Tensor],
    bias2: list[Tensor],
    conv2: list[Tensor],
    mean1: list[Tensor],
    variance1: list[Tensor],
    mean2: list[Tensor],
    variance2: list[Tensor],
    masks: list[Tensor],
    eps: float,
    cells: bool,
) -> list[Tensor]:
    """Return the gradients of x, of norm1 (2, c) a layer and behind (bias, weight), conv1, norm2, conv2."""
    kit, training, layers = _kit(buffer, len(conv1[0])), not mean1, len(conv1)
    norms = Norms([weight1, bias1, weight2, bias2], [mean1, variance1, mean2, variance2], found, eps)
    grads: Lists = [[] for _ in range(PARTS)]
    every, shape = _rows(buffer, buffer.shape[-1]), (*buffer.shape[:4], -1)
    with torch.autocast(buffer.device.type, enabled=False):
        total, of_norm = kit.activate_grad(grad, buffer, norms.before(layers, every.shape[1]), cells=cells)
        sums = weight1[-1] * of_norm
        grads[0].append(of_norm)

        def close(first: int, end: int, mask: Tensor | None) -> Tensor:
            some = slice(first, end)
            statistics = norms.shared(some) if training else None
            closed: Tensor = kit.close(total[:, some], every[:, some], statistics, sums[:, some], mask)
            return closed.view(shape)

        for layer in reversed(range(layers)):
            end, z, within = conv1[layer].shape[1], bottleneck[layer], norms.within(layer)
            back = close(end, end + len(conv2[layer]), masks[layer] if masks else None)
            back, of_conv2, of_norm2 = kit.convolution_grad(back, z, within, conv2[layer], training=training)
            before, taps = norms.before(layer, end), conv1[layer].flatten(1)
            of_conv1, of_norm1 = kit.product_grad(back, every[:, :end], before, taps, total[:, :end])
            sums[:, :end].addcmul_(weight1[layer], of_norm1)
            of_conv1 = of_conv1.view(conv1[layer].shape).to(conv1[layer].dtype)
            for some, each in zip(grads, (of_norm1, of_conv1, of_norm2, of_conv2), strict=True):
                some.append(each)
        of_x = close(0, conv1[0].shape[1], None)
    return [of_x, *(each for some in grads for each in reversed(some))]


@_backward.register_fake
def _(grad: Tensor, buffer: Tensor, bottleneck: Tensor, found: list[Tensor], *given: Any) -> list[Tensor]:
    weight1, _, conv1, weight2, _, conv2, *_ = given
    of_x = buffer.new_empty(*buffer.shape[:4], conv1[0].shape[1])
    exact = wide(buffer.dtype)
    norm1, norm2 = (
        [each.new_empty(2, len(each), dtype=exact) for each in some] for some in (weight1, weight2)
    )
    like = [*(torch.empty_like(each) for each in conv1)], [*(torch.empty_like(each) for each in conv2)]
    return [of_x, *norm1, *like[0], *norm2, *like[1]]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, *lists, eps, cells, _ = inputs
    _, buffer, bottleneck, *found = output
    ctx.set_materialize_grads(False)
    ctx.sizes = [len(each) for each in lists]
    ctx.settings = (eps, cells)
    ctx.save_for_backward(buffer, bottleneck, *found, *(each for some in lists for each in some))


def _grads(ctx: Any, grad: Tensor | None, *unused: Any) -> tuple[Any, ...]:
    buffer, bottleneck, *rest = ctx.saved_tensors
    found, lists = rest[:4], _split(rest[4:], ctx.sizes)
    none = (None,) * 3
    if grad is None:
        return (None, *([None] * size for size in ctx.sizes), *none)
    of_x, *flat = _backward(grad, buffer, bottleneck, found, *lists, *ctx.settings)
    norm1, conv1, norm2, conv2 = _split(flat, [ctx.sizes[k] for k in (0, 2, 3, 5)])
    halves = [[each[k] for each in some] for some in (norm1, norm2) for k in (1, 0)]
    grads = [halves[0], halves[1], conv1, halves[2], halves[3], conv2]
    typed = [
        [g.to(w.dtype) for g, w in zip(some, like, strict=True)]
        for some, like in zip(grads, lists, strict=False)
    ]
    return (of_x, *typed, *([None] * size for size in ctx.sizes[WEIGHTS:]), *none)


_dense_block.register_autograd(_grads, setup_context=_setup)


def _kit(x: Tensor, width: int) -> Any:
    """Return what computes the pieces of a block: Triton's kernels on a GPU, where they can, or torch."""
    if x.is_cuda and x.dtype != torch.float64 and find_spec("triton"):
        from toolkit.models import fast_triton

        if width <= fast_triton.MOST_WIDTH:
            return fast_triton
    return fast_rows


def _shapes(
    x: Tensor, conv1: list[Tensor], conv2: list[Tensor], *, training: bool, cells: bool, keep: bool
) -> tuple[Tensor, ...]:
    """Return what comes out, not filled in."""
    samples, *extent, channels = x.shape
    channels += sum(len(each) for each in conv2)
    layers, width = len(conv1), len(conv1[0])
    smaller = [size // 2 for size in extent] if cells else extent
    rows = samples * extent[0] * extent[1] * extent[2]
    exact = wide(x.dtype)
    statistics = [(channels,)] * 2 + [(layers, width)] * 2 if training else [(0,)] * 4
    return (
        x.new_empty(samples, *smaller, channels),
        x.new_empty(samples, *extent, channels),
        x.new_empty(layers if keep else 1, rows, width),
        *(x.new_empty(shape, dtype=exact) for shape in statistics),
    )


def _rows(buffer: Tensor, channels: int) -> Tensor:
    return buffer.view(-1, buffer.shape[-1])[:, :channels]


def _first(x: Tensor) -> Tensor:
    return x.permute(0, 4, 1, 2, 3)


def _last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 4, 1)


def _split(flat: Sequence[Tensor], sizes: Sequence[int]) -> list[list[Tensor]]:
    parts, start = [], 0
    for size in sizes:
        parts.append(list(flat[start : start + size]))
        start += size
    return parts

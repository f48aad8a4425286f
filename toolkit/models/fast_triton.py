"""The pieces of `toolkit.models.fast_rows` by the GPU's kernels: the same doors, the same to rounding.

Tile sizes follow from shapes alone, so that a shape gives the same bits on every run.
"""

import math
from typing import Any

import torch
import triton
from torch import Tensor

from toolkit.models import fast_kernels as kernels
from toolkit.models.fast_rows import Measure, Norm, unconvolve

MOST_WIDTH = 256
"""Channels of a bottleneck that `product_grad` holds at once."""
MANY = 128 * 132
"""Rows from which every multiprocessor of the largest GPUs has a tile of 128 of its own."""
PROGRAMS, AT_ONCE, REPEAT = 264, 64, 4


def append(buffer: Tensor, first: int, new: Tensor, mask: Tensor | None, into: Measure | None) -> None:
    """As `fast_rows.append`."""
    new, channels = new.contiguous(), new.shape[-1]
    rows = new.numel() // channels
    tile, width = 128, _block(channels, 64)
    tiles = triton.cdiv(rows, tile)
    parts = _floats(buffer, 2, tiles if into else 0, channels)
    there = buffer.view(-1, buffer.shape[-1])[:, first:]
    kernels.append[tiles, triton.cdiv(channels, width)](
        new, new if mask is None else mask.contiguous(), there, buffer.shape[-1], parts, rows, channels,
        rows // len(new), TILE=tile, WIDTH=width, MASKED=mask is not None, MEASURED=into is not None,
    )  # fmt: skip
    _combine(parts, rows, tile, into)


def product(rows: Tensor, norm: Norm, weight: Tensor, out: Tensor, into: Measure | None) -> None:
    """As `fast_rows.product`."""
    many = len(rows) >= MANY
    tile, width = (128, _block(len(weight), 128)) if many else (64, _block(len(weight), 32))
    tiles = triton.cdiv(len(rows), tile)
    parts = _floats(rows, 2, tiles if into else 0, len(weight))
    kernels.product[tiles, triton.cdiv(len(weight), width)](
        rows, rows.stride(0), *norm, weight, out, parts, *rows.shape, len(weight),
        TILE=tile, STEP=32, WIDTH=width, MEASURED=into is not None, PRECISION=_precision(),
        num_warps=8 if many else 4, num_stages=3,
    )  # fmt: skip
    _combine(parts, len(rows), tile, into)


def activate(rows: Tensor, norm: Norm) -> Tensor:
    """As `fast_rows.activate`."""
    out = rows.new_empty(rows.shape)
    tile, width, grid = _elementwise(rows)
    kernels.activate[grid](rows, rows.stride(0), *norm, out, *rows.shape, TILE=tile, WIDTH=width)
    return out


def activate_cells(buffer: Tensor, norm: Norm) -> Tensor:
    """As `fast_rows.activate_cells`."""
    samples, *extent, channels = buffer.shape
    out = buffer.new_empty(samples, *(size // 2 for size in extent), channels)
    rows = out.view(-1, channels)
    width = _block(channels, 64)
    kernels.activate_cells[triton.cdiv(len(rows), 16), triton.cdiv(channels, width)](
        buffer, *norm, out, len(rows), channels, *extent, TILE=16, WIDTH=width
    )
    return out


def activate_grad(grad: Tensor, buffer: Tensor, norm: Norm, *, cells: bool) -> tuple[Tensor, Tensor]:
    """As `fast_rows.activate_grad`."""
    rows = buffer.view(-1, buffer.shape[-1])
    total = torch.empty_like(rows)
    return total, _masked(grad.contiguous(), rows, norm, total, buffer.shape[1:4], cells=cells)


def convolution_grad(
    grad: Tensor, rows: Tensor, norm: Norm, weight: Tensor, *, training: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """As `fast_rows.convolution_grad`."""
    back, of_weight = unconvolve(grad, activate(rows, norm), weight)
    out = torch.empty_like(rows)
    sums = _masked(back, rows, norm, None, (1, 1, 1), cells=False)
    tile, width, grid = _elementwise(rows)
    kernels.norm_back[grid](
        back, rows, *norm, sums, out, *rows.shape, TILE=tile, WIDTH=width, TRAINING=training
    )
    return out, of_weight, sums


def product_grad(
    grad: Tensor, rows: Tensor, norm: Norm, weight: Tensor, total: Tensor
) -> tuple[Tensor, Tensor]:
    """As `fast_rows.product_grad`."""
    width, channels = weight.shape
    tile, block = 64, _block(channels, 64)
    blocks, tiles = triton.cdiv(channels, block), triton.cdiv(len(rows), tile)
    each = max(4, triton.cdiv(tiles, max(1, PROGRAMS // blocks)))
    runs = triton.cdiv(tiles, each)
    of_conv, parts = _floats(rows, runs, width, channels), _floats(rows, 2, runs, channels)
    kernels.product_back[blocks, runs](
        grad, rows, rows.stride(0), *norm, weight, total, of_conv, parts, *rows.shape, width, each,
        TILE=tile, WIDTH=_block(width, MOST_WIDTH), CHANNELS=block, PRECISION=_precision(),
        num_warps=8, num_stages=2,
    )  # fmt: skip
    return of_conv.sum(0), parts.sum(1)


def close(
    total: Tensor,
    rows: Tensor,
    statistics: tuple[Tensor, Tensor] | None,
    sums: Tensor,
    mask: Tensor | None,
) -> Tensor:
    """As `fast_rows.close`."""
    out = rows.new_empty(rows.shape)
    tile, width, grid = _elementwise(rows)
    mean, rstd = statistics or (sums, sums)
    kernels.close[grid](
        total, rows, rows.stride(0), mean, rstd, sums, sums.stride(0),
        out if mask is None else mask.contiguous(), out, *rows.shape,
        len(rows) // (1 if mask is None else len(mask)),
        TILE=tile, WIDTH=width, TRAINING=statistics is not None, MASKED=mask is not None,
    )  # fmt: skip
    return out


def _masked(
    grad: Tensor, rows: Tensor, norm: Norm, total: Tensor | None, extent: Any, *, cells: bool
) -> Tensor:
    """Return sums (2, channels) of masked gradient and of its product with xhat."""
    count, channels = rows.shape
    tile, width = 32, _block(channels, 64)
    tiles = triton.cdiv(count, tile * REPEAT)
    parts = _floats(rows, 2, tiles, channels)
    kernels.masked[tiles, triton.cdiv(channels, width)](
        grad, rows, *norm, rows if total is None else total, parts, count, channels, *extent,
        TILE=tile, REPEAT=REPEAT, WIDTH=width, CELLS=cells, KEPT=total is not None,
    )  # fmt: skip
    return parts.sum(1)


def _combine(parts: Tensor, rows: int, tile: int, into: Measure | None) -> None:
    if into is None:
        return
    _, tiles, width = parts.shape
    block = 16
    kernels.combine[(triton.cdiv(width, block),)](
        parts, into.mean, into.variance, into.rstd, into.eps, rows, tiles, width,
        TILE=tile, AT_ONCE=AT_ONCE, WIDTH=block,
    )  # fmt: skip


def _elementwise(rows: Tensor) -> tuple[int, int, tuple[int, int]]:
    """Return tile and width of a pass over rows, and its grid."""
    width = _block(rows.shape[1], 128)
    tile = 4096 // width
    return tile, width, (triton.cdiv(len(rows), tile), triton.cdiv(rows.shape[1], width))


def _block(channels: int, most: int) -> int:
    """Return a power of two of 16 at least, that holds all channels or is the most."""
    return max(16, min(most, 1 << math.ceil(math.log2(channels))))


def _floats(like: Tensor, *shape: int) -> Tensor:
    return like.new_empty(shape, dtype=torch.float32)


def _precision() -> str:
    """Return what float32 products are made in: as torch's convolutions are, which the plain network uses."""
    return "tf32" if torch.backends.cudnn.allow_tf32 and torch.cuda.is_available() else "ieee"

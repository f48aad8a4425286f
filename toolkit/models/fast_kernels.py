"""The GPU's kernels for `toolkit.models.fast_triton`: what `toolkit.models.fast_rows` says, tile by tile.

Sums are float32 and their order is fixed: a program writes its part, and parts are added in order. Rows
stand `..._ld` elements apart; offsets are 64 bits, since a buffer may hold more than 2^31 elements. NaN stays
NaN through ReLU. Every kernel runs under Triton's interpreter too.
"""

import triton
import triton.language as tl


@triton.jit
def _norm(mean, rstd, weight, bias, c, live):
    """Return scale, shift and mean of channels."""
    m = tl.load(mean + c, live, 0.0)
    scale = tl.load(rstd + c, live, 0.0) * tl.load(weight + c, live, 0.0)
    return scale, tl.load(bias + c, live, 0.0) - m * scale, m


@triton.jit
def product(
    x, x_ld, mean, rstd, weight, bias, conv, out, parts, rows, channels, width,
    TILE: tl.constexpr, STEP: tl.constexpr, WIDTH: tl.constexpr, MEASURED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Out = relu(norm(x)) @ conv.T, and parts (2, tiles, width): mean and sum of squares of a tile of it."""
    tile = tl.program_id(0)
    row = tile * TILE + tl.arange(0, TILE)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    here, wide = row < rows, column < width
    start = x + row.to(tl.int64)[:, None] * x_ld
    total = tl.zeros((TILE, WIDTH), tl.float32)
    for k in range(0, channels, STEP):
        c = k + tl.arange(0, STEP)
        live = c < channels
        scale, shift, _ = _norm(mean, rstd, weight, bias, c, live)
        value = tl.load(start + c[None, :], here[:, None] & live[None, :], 0.0).to(tl.float32)
        value = value * scale[None, :] + shift[None, :]
        value = tl.where(value <= 0.0, 0.0, value).to(conv.dtype.element_ty)
        taps = tl.load(conv + column[None, :] * channels + c[:, None], live[:, None] & wide[None, :], 0.0)
        total = tl.dot(value, taps, total, input_precision=PRECISION)
    short = total.to(out.dtype.element_ty)
    keep = here[:, None] & wide[None, :]
    tl.store(out + row.to(tl.int64)[:, None] * width + column[None, :], short, keep)
    if MEASURED:
        _measure(short.to(tl.float32), keep, parts, tile, tl.num_programs(0), column, width, rows, TILE)


@triton.jit
def _measure(value, keep, parts, tile, tiles, column, width, rows, TILE: tl.constexpr):
    """Write a tile's mean and its sum of squared distances from it."""
    count = tl.minimum(rows - tile * TILE, TILE).to(tl.float32)
    mean = tl.sum(tl.where(keep, value, 0.0), 0) / count
    apart = tl.where(keep, value - mean[None, :], 0.0)
    place = tile * width + column
    tl.store(parts + place, mean, column < width)
    tl.store(parts + tiles * width + place, tl.sum(apart * apart, 0), column < width)


@triton.jit
def combine(
    parts, mean, variance, rstd, eps, rows, tiles, width,
    TILE: tl.constexpr, AT_ONCE: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Write mean, biased variance and 1 / deviation of columns out of their tiles' (Chan et al. 1979)."""
    column = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    inside = column < width
    total = tl.zeros((AT_ONCE, WIDTH), tl.float32)
    for first in range(0, tiles, AT_ONCE):
        tile = first + tl.arange(0, AT_ONCE)
        live = (tile < tiles)[:, None] & inside[None, :]
        count = tl.minimum(rows - tile * TILE, TILE).to(tl.float32)
        total += count[:, None] * tl.load(parts + tile[:, None] * width + column[None, :], live, 0.0)
    middle = tl.sum(total, 0) / rows
    total = tl.zeros((AT_ONCE, WIDTH), tl.float32)
    for first in range(0, tiles, AT_ONCE):
        tile = first + tl.arange(0, AT_ONCE)
        live = (tile < tiles)[:, None] & inside[None, :]
        count = tl.minimum(rows - tile * TILE, TILE).to(tl.float32)
        place = tile[:, None] * width + column[None, :]
        apart = tl.load(parts + place, live, 0.0) - middle[None, :]
        square = tl.load(parts + tiles * width + place, live, 0.0)
        total += tl.where(live, square + count[:, None] * apart * apart, 0.0)
    tl.store(mean + column, middle, inside)
    found = tl.sum(total, 0) / rows
    tl.store(variance + column, found, inside)
    tl.store(rstd + column, 1.0 / tl.sqrt(found + eps), inside)


@triton.jit
def append(
    new, mask, out, out_ld, parts, rows, channels, voxels,
    TILE: tl.constexpr, WIDTH: tl.constexpr, MASKED: tl.constexpr, MEASURED: tl.constexpr,
):  # fmt: skip
    """Copy new channels, times dropout's mask of their sample, and measure them as `product` does."""
    tile = tl.program_id(0)
    row = tile * TILE + tl.arange(0, TILE)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    keep = (row < rows)[:, None] & (column < channels)[None, :]
    value = tl.load(new + row.to(tl.int64)[:, None] * channels + column[None, :], keep, 0.0)
    if MASKED:
        factor = tl.load(mask + (row // voxels)[:, None] * channels + column[None, :], keep, 0.0)
        value = (value.to(tl.float32) * factor.to(tl.float32)).to(value.dtype)
    tl.store(out + row.to(tl.int64)[:, None] * out_ld + column[None, :], value, keep)
    if MEASURED:
        value = value.to(tl.float32)
        _measure(value, keep, parts, tile, tl.num_programs(0), column, channels, rows, TILE)


@triton.jit
def activate(x, x_ld, mean, rstd, weight, bias, out, rows, channels, TILE: tl.constexpr, WIDTH: tl.constexpr):
    """Out = relu(norm(x))."""
    row = tl.program_id(0) * TILE + tl.arange(0, TILE)
    c = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    live = c < channels
    keep = (row < rows)[:, None] & live[None, :]
    scale, shift, _ = _norm(mean, rstd, weight, bias, c, live)
    value = tl.load(x + row.to(tl.int64)[:, None] * x_ld + c[None, :], keep, 0.0).to(tl.float32)
    value = value * scale[None, :] + shift[None, :]
    value = tl.where(value <= 0.0, 0.0, value)
    place = row.to(tl.int64)[:, None] * channels + c[None, :]
    tl.store(out + place, value.to(out.dtype.element_ty), keep)


@triton.jit
def activate_cells(
    x, mean, rstd, weight, bias, out, rows, channels, depth, height, breadth,
    TILE: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Out = means of cells of 2x2x2 voxels of relu(norm(x)); rows are those of out."""
    row = tl.program_id(0) * TILE + tl.arange(0, TILE)
    c = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    live = c < channels
    keep = (row < rows)[:, None] & live[None, :]
    scale, shift, _ = _norm(mean, rstd, weight, bias, c, live)
    d, h, w = depth // 2, height // 2, breadth // 2
    column, line, plane, sample = row % w, row // w % h, row // (w * h) % d, row // (w * h * d)
    corner = ((sample * depth + 2 * plane) * height + 2 * line) * breadth + 2 * column
    total = tl.zeros((TILE, WIDTH), tl.float32)
    for corner_of in tl.static_range(8):
        step = (corner_of // 4 * height + corner_of // 2 % 2) * breadth + corner_of % 2
        place = (corner + step).to(tl.int64)[:, None] * channels + c[None, :]
        value = tl.load(x + place, keep, 0.0).to(tl.float32) * scale[None, :] + shift[None, :]
        total += tl.where(value <= 0.0, 0.0, value)
    place = row.to(tl.int64)[:, None] * channels + c[None, :]
    tl.store(out + place, (total * 0.125).to(out.dtype.element_ty), keep)


@triton.jit
def masked(
    grad, x, mean, rstd, weight, bias, total, parts, rows, channels, depth, height, breadth,
    TILE: tl.constexpr, REPEAT: tl.constexpr, WIDTH: tl.constexpr, CELLS: tl.constexpr,
    KEPT: tl.constexpr,
):  # fmt: skip
    """The way back through `activate` or `activate_cells` up to the norm.

    parts (2, tiles, channels): sums of gradient and of gradient * xhat; total = scale * gradient where KEPT.
    """
    tile = tl.program_id(0)
    c = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    live = c < channels
    scale, shift, middle = _norm(mean, rstd, weight, bias, c, live)
    of_bias, of_weight = tl.zeros((WIDTH,), tl.float32), tl.zeros((WIDTH,), tl.float32)
    for turn in range(REPEAT):
        row = (tile * REPEAT + turn) * TILE + tl.arange(0, TILE)
        keep = (row < rows)[:, None] & live[None, :]
        place = row.to(tl.int64)[:, None] * channels + c[None, :]
        value = tl.load(x + place, keep, 0.0).to(tl.float32)
        if CELLS:
            column, line, plane = row % breadth, row // breadth % height, row // (breadth * height) % depth
            d, h, w = depth // 2, height // 2, breadth // 2
            inside = (column // 2 < w) & (line // 2 < h) & (plane // 2 < d) & (row < rows)
            cell = (row // (breadth * height * depth) * d + plane // 2) * h + line // 2
            cell = cell.to(tl.int64) * w + column // 2
            back = tl.load(grad + cell[:, None] * channels + c[None, :], inside[:, None] & live[None, :], 0.0)
            back = back.to(tl.float32) * 0.125
        else:
            back = tl.load(grad + place, keep, 0.0).to(tl.float32)
        back = tl.where(value * scale[None, :] + shift[None, :] <= 0.0, 0.0, back)
        of_bias += tl.sum(back, 0)
        of_weight += tl.sum(back * (value - middle[None, :]), 0)
        if KEPT:
            tl.store(total + place, (back * scale[None, :]).to(total.dtype.element_ty), keep)
    place = tile * channels + c
    tl.store(parts + place, of_bias, live)
    of_weight = of_weight * tl.load(rstd + c, live, 0.0)
    tl.store(parts + tl.num_programs(0) * channels + place, of_weight, live)


@triton.jit
def norm_back(
    grad, x, mean, rstd, weight, bias, sums, out, rows, channels,
    TILE: tl.constexpr, WIDTH: tl.constexpr, TRAINING: tl.constexpr,
):  # fmt: skip
    """The rest of the way back through norm and ReLU, given `sums` (2, channels), those of `masked`."""
    row = tl.program_id(0) * TILE + tl.arange(0, TILE)
    c = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    live = c < channels
    keep = (row < rows)[:, None] & live[None, :]
    scale, shift, middle = _norm(mean, rstd, weight, bias, c, live)
    place = row.to(tl.int64)[:, None] * channels + c[None, :]
    value = tl.load(x + place, keep, 0.0).to(tl.float32)
    back = tl.load(grad + place, keep, 0.0).to(tl.float32)
    back = tl.where(value * scale[None, :] + shift[None, :] <= 0.0, 0.0, back)
    if TRAINING:
        level = tl.load(sums + c, live, 0.0) / rows
        slope = tl.load(sums + channels + c, live, 0.0) * tl.load(rstd + c, live, 0.0) / rows
        back = back - level[None, :] - (value - middle[None, :]) * slope[None, :]
    tl.store(out + place, (back * scale[None, :]).to(out.dtype.element_ty), keep)


@triton.jit
def product_back(
    grad, x, x_ld, mean, rstd, weight, bias, conv, total, of_conv, parts, rows, channels, width, tiles,
    TILE: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The way back through `product`, for a block of channels and a run of `tiles` tiles of rows.

    Reads x once. Adds scale * gradient to `total`; of_conv (runs, width, channels) and parts (2, runs,
    channels) are this run's share of the gradients of conv and of the norm's bias and weight.
    """
    run, runs = tl.program_id(1), tl.num_programs(1)
    c = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    column = tl.arange(0, WIDTH)
    live, wide = c < channels, column < width
    scale, shift, middle = _norm(mean, rstd, weight, bias, c, live)
    taps_at = column[:, None] * channels + c[None, :]
    taps_in = wide[:, None] & live[None, :]
    taps = tl.load(conv + taps_at, taps_in, 0.0)
    share = tl.zeros((WIDTH, CHANNELS), tl.float32)
    of_bias, of_weight = tl.zeros((CHANNELS,), tl.float32), tl.zeros((CHANNELS,), tl.float32)
    for turn in range(tiles):
        row = (run * tiles + turn) * TILE + tl.arange(0, TILE)
        here = row < rows
        long = row.to(tl.int64)[:, None]
        keep = here[:, None] & live[None, :]
        back = tl.load(grad + long * width + column[None, :], here[:, None] & wide[None, :], 0.0)
        value = tl.load(x + long * x_ld + c[None, :], keep, 0.0).to(tl.float32)
        active = value * scale[None, :] + shift[None, :]
        dead = active <= 0.0
        active = tl.where(dead, 0.0, active).to(back.dtype)
        share = tl.dot(tl.trans(back), active, share, input_precision=PRECISION)
        into = tl.where(dead, 0.0, tl.dot(back, taps, input_precision=PRECISION))
        of_bias += tl.sum(into, 0)
        of_weight += tl.sum(into * (value - middle[None, :]), 0)
        place = total + long * x_ld + c[None, :]
        before = tl.load(place, keep, 0.0).to(tl.float32)
        tl.store(place, (before + into * scale[None, :]).to(total.dtype.element_ty), keep)
    tl.store(of_conv + run.to(tl.int64) * width * channels + taps_at, share, taps_in)
    tl.store(parts + run * channels + c, of_bias, live)
    of_weight = of_weight * tl.load(rstd + c, live, 0.0)
    tl.store(parts + (runs + run) * channels + c, of_weight, live)


@triton.jit
def close(
    total, x, x_ld, mean, rstd, sums, sums_ld, mask, out, rows, channels, voxels,
    TILE: tl.constexpr, WIDTH: tl.constexpr, TRAINING: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """The gradient of channels all of whose consumers have run, as `fast_rows.close` says."""
    row = tl.program_id(0) * TILE + tl.arange(0, TILE)
    c = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    live = c < channels
    keep = (row < rows)[:, None] & live[None, :]
    place = row.to(tl.int64)[:, None] * x_ld + c[None, :]
    back = tl.load(total + place, keep, 0.0).to(tl.float32)
    if TRAINING:
        inverse = tl.load(rstd + c, live, 0.0)
        level = inverse * tl.load(sums + c, live, 0.0) / rows
        slope = inverse * inverse * tl.load(sums + sums_ld + c, live, 0.0) / rows
        value = tl.load(x + place, keep, 0.0).to(tl.float32)
        middle = tl.load(mean + c, live, 0.0)
        back = back - level[None, :] - (value - middle[None, :]) * slope[None, :]
    if MASKED:
        factor = tl.load(mask + (row // voxels)[:, None] * channels + c[None, :], keep, 0.0)
        back = back * factor.to(tl.float32)
    place = row.to(tl.int64)[:, None] * channels + c[None, :]
    tl.store(out + place, back.to(out.dtype.element_ty), keep)

"""What a dense block is made of, in plain torch, on rows: every voxel a row, every channel a column.

This is the definition: it runs on any device in any number type, and `toolkit.models.fast_triton` must equal
it. Sums and norms are float32 for shorter types, and of the type itself from float32 on.
"""

from typing import NamedTuple

import torch
from torch import Tensor

aten = torch.ops.aten


class Norm(NamedTuple):
    """Batch norm of c channels, (c,) each: (x - mean) * rstd * weight + bias."""

    mean: Tensor
    rstd: Tensor
    weight: Tensor
    bias: Tensor

    @property
    def scale(self) -> Tensor:
        """What a row is multiplied by."""
        return self.weight * self.rstd

    def apply(self, rows: Tensor) -> Tensor:
        """Return relu(norm(rows)) in the type of the rows."""
        scale = self.scale
        return torch.addcmul(self.bias - self.mean * scale, rows, scale).relu_().to(rows.dtype)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the type of sums and norms over a type."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class Measure(NamedTuple):
    """Where the statistics of columns go, (k,) each: mean, biased variance, 1 / sqrt(variance + eps)."""

    mean: Tensor
    variance: Tensor
    rstd: Tensor
    eps: float

    def take(self, rows: Tensor) -> None:
        """Measure rows in two passes: nothing cancels."""
        rows = rows.to(self.mean.dtype)
        mean = rows.mean(0)
        self.mean.copy_(mean)
        self.variance.copy_((rows - mean).square_().mean(0))
        torch.rsqrt(self.variance + self.eps, out=self.rstd)


def append(buffer: Tensor, first: int, new: Tensor, mask: Tensor | None, into: Measure | None) -> None:
    """Put `new` (n, d, h, w, k) into channels of the buffer from `first` on, times `mask` (n, k) or whole.

    Measures them where `into` says.
    """
    there = buffer[..., first : first + new.shape[-1]]
    if mask is None:
        there.copy_(new)
    else:
        torch.mul(new, mask[:, None, None, None], out=there)
    if into is not None:
        into.take(there.flatten(0, 3))


def product(rows: Tensor, norm: Norm, weight: Tensor, out: Tensor, into: Measure | None) -> None:
    """Write relu(norm(rows)) @ weight.T, (n, width), to `out`; a 1x1x1 convolution, `weight` (width, c).

    Measures it where `into` says.
    """
    torch.mm(norm.apply(rows), weight.t(), out=out)
    if into is not None:
        into.take(out)


def activate(rows: Tensor, norm: Norm) -> Tensor:
    """Return relu(norm(rows)), contiguous."""
    return norm.apply(rows)


def activate_cells(buffer: Tensor, norm: Norm) -> Tensor:
    """Return the means of cells of 2x2x2 voxels of relu(norm(buffer)); an odd voxel at an end is left out."""
    return _cells(norm.apply(buffer)).to(wide(buffer.dtype)).mean((2, 4, 6)).to(buffer.dtype)


def activate_grad(grad: Tensor, buffer: Tensor, norm: Norm, *, cells: bool) -> tuple[Tensor, Tensor]:
    """Go back through `activate` or `activate_cells` of a whole buffer.

    Returns scale * masked gradient (rows, c), and the gradients (2, c) of the norm's bias and weight.
    """
    if cells:
        whole = torch.zeros_like(buffer)
        _cells(whole).copy_(grad[:, :, None, :, None, :, None] * 0.125)
        grad = whole
    rows = buffer.reshape(-1, buffer.shape[-1])
    masked = aten.threshold_backward(grad.reshape(rows.shape), norm.apply(rows), 0)
    return (masked * norm.scale).to(buffer.dtype), _sums(masked, rows, norm)


def norm_grad(
    grad: Tensor, rows: Tensor, active: Tensor, norm: Norm, *, training: bool
) -> tuple[Tensor, Tensor]:
    """Go back through ``active = activate(rows)``; in training the statistics are of these rows.

    Returns the gradients of the rows, and (2, c) of the norm's bias and weight.
    """
    masked = aten.threshold_backward(grad, active, 0)
    sums = _sums(masked, rows, norm)
    if not training:
        return (masked * norm.scale).to(rows.dtype), sums
    slope, level = _center(len(rows), norm.mean, norm.rstd, norm.weight * sums)
    into = torch.addcmul(level, masked, norm.scale).addcmul_(rows, slope)
    return into.to(rows.dtype), sums


def product_grad(
    grad: Tensor, rows: Tensor, norm: Norm, weight: Tensor, total: Tensor
) -> tuple[Tensor, Tensor]:
    """Go back through `product`; adds scale * masked gradient to `total`, in place.

    Returns the gradients of the convolution's weight, and (2, c) of the norm's bias and weight.
    """
    active = norm.apply(rows)
    of_weight = torch.mm(grad.t(), active)
    masked = aten.threshold_backward(torch.mm(grad, weight), active, 0)
    total.addcmul_(masked, norm.scale)
    return of_weight, _sums(masked, rows, norm)


def close(
    total: Tensor,
    rows: Tensor,
    statistics: tuple[Tensor, Tensor] | None,
    sums: Tensor,
    mask: Tensor | None,
) -> Tensor:
    """Return the gradient of channels whose last consumer has run, (rows, k), contiguous.

    With G the sum over consumers of weight * masked gradient, and rstd * G in `total`, this is
    rstd * (G - mean(G) - xhat * mean(G * xhat)). `sums` (2, k) are those of G and of G * xhat, which the
    consumers' own gradients add up to. Without `statistics` (mean, rstd), in evaluation, it is `total`. The
    result is multiplied by `mask` (n, k), of dropout.
    """
    if statistics is not None:
        slope, level = _center(len(rows), *statistics, sums)
        found = torch.addcmul(level, rows, slope).add_(total)
    else:
        found = total.to(wide(total.dtype), copy=True, memory_format=torch.contiguous_format)
    if mask is not None:
        found.view(len(mask), -1, mask.shape[1]).mul_(mask[:, None])
    return found.to(total.dtype)


def _cells(x: Tensor) -> Tensor:
    """Return a view (n, d/2, 2, h/2, 2, w/2, 2, c) of (n, d, h, w, c)."""
    for axis in (1, 2, 3):
        x = x.narrow(axis, 0, x.shape[axis] // 2 * 2)
    samples, depth, height, width, channels = x.shape
    shape = (samples, depth // 2, 2, height // 2, 2, width // 2, 2, channels)
    strides = [each for axis in (1, 2, 3) for each in (2 * x.stride(axis), x.stride(axis))]
    return x.as_strided(shape, (x.stride(0), *strides, x.stride(4)))


def _sums(masked: Tensor, rows: Tensor, norm: Norm) -> Tensor:
    """Return sums (2, c) of the gradient and of gradient * xhat."""
    of_gradient = masked.sum(0, dtype=norm.mean.dtype)
    return torch.stack([of_gradient, (rows - norm.mean).mul_(masked).sum(0) * norm.rstd])


def _center(count: int, mean: Tensor, rstd: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
    """Return slope and level of what rstd * (mean(G) + xhat * mean(G * xhat)) takes off, given both sums."""
    slope = rstd * rstd * sums[1] / -count
    return slope, rstd * sums[0] / -count - mean * slope

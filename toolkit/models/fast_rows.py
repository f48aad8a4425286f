"""What a dense block is made of, in plain torch, on rows: every voxel a row, every channel a column.

This is the definition: it runs on any device in any number type, and `toolkit.models.fast_triton` must equal
it. Sums and norms are float32 for shorter types, and of the type itself from float32 on.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from toolkit.models.densenet import mean_of_cells

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
        if rows.dtype == scale.dtype:
            return torch.addcmul(self.bias - self.mean * scale, rows, scale).relu_()
        one = torch.ones_like(scale)  # of mixed types, arithmetic makes whole copies; torch's norms do not
        return _rows(F.batch_norm(_image(rows), self.mean, one, scale, self.bias, eps=0.0).relu_())

    def back(self, grad: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return scale * grad, and the sums (2, c) of grad and of grad * xhat."""
        given = (self.scale, self.mean, torch.ones_like(self.mean), None, None, False, 0.0, [True] * 3)
        into, apart, total = aten.native_batch_norm_backward(_image(grad), _image(rows), *given)
        return _rows(into), torch.stack([total, apart * self.rstd])


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
        unused = torch.zeros_like(self.mean)  # running statistics, whose type says that sums are wide
        mean, variance = aten.batch_norm_update_stats(_image(rows), unused, unused.clone(), 0.0)
        self.mean.copy_(mean)
        self.variance.copy_(variance)
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
    active = norm.apply(buffer.view(-1, buffer.shape[-1])).view(buffer.shape)
    means = mean_of_cells(active.to(wide(buffer.dtype)).permute(0, 4, 1, 2, 3))
    return means.permute(0, 2, 3, 4, 1).to(buffer.dtype)


def activate_grad(grad: Tensor, buffer: Tensor, norm: Norm, *, cells: bool) -> tuple[Tensor, Tensor]:
    """Go back through `activate` or `activate_cells` of a whole buffer.

    Returns scale * masked gradient (rows, c), and the gradients (2, c) of the norm's bias and weight.
    """
    if cells:
        whole = torch.zeros_like(buffer)
        _cells(whole).copy_(grad[:, :, None, :, None, :, None] * 0.125)
        grad = whole
    rows = buffer.view(-1, buffer.shape[-1])
    return norm.back(aten.threshold_backward(grad.reshape(rows.shape), norm.apply(rows), 0), rows)


def convolution_grad(
    grad: Tensor, rows: Tensor, norm: Norm, weight: Tensor, *, training: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Go back through a 3x3x3 convolution of ``activate(rows)``; in training the norm is of these rows.

    `grad` is (n, d, h, w, k) and `weight` (k, c, 3, 3, 3). Returns the gradients of the rows, of `weight`,
    and (2, c) of the norm's bias and weight.
    """
    active = norm.apply(rows)
    back, of_weight = unconvolve(grad, active, weight)
    masked = aten.threshold_backward(back, active, 0)
    if not training:
        into, sums = norm.back(masked, rows)
        return into, of_weight, sums
    given = (norm.weight, None, None, norm.mean, norm.rstd, True, 0.0, [True] * 3)
    found, apart, total = aten.native_batch_norm_backward(_image(masked), _image(rows), *given)
    return _rows(found), of_weight, torch.stack([total, apart])


def unconvolve(grad: Tensor, rows: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of rows (rows, c), contiguous, and of `weight`, of their 3x3x3 convolution."""
    first, ones = grad.permute(0, 4, 1, 2, 3), [1, 1, 1]
    image = rows.view(*grad.shape[:4], -1).permute(0, 4, 1, 2, 3)
    of_image, of_weight, _ = aten.convolution_backward(
        first, image, weight, None, ones, ones, ones, False, [0, 0, 0], 1, (True, True, False)
    )
    return of_image.permute(0, 2, 3, 4, 1).reshape(rows.shape).contiguous(), of_weight


def product_grad(
    grad: Tensor, rows: Tensor, norm: Norm, weight: Tensor, total: Tensor
) -> tuple[Tensor, Tensor]:
    """Go back through `product`; adds scale * masked gradient to `total`, in place.

    Returns the gradients of the convolution's weight, and (2, c) of the norm's bias and weight.
    """
    rows = rows.contiguous()
    active = norm.apply(rows)
    of_weight = torch.mm(grad.t(), active)
    into = torch.mm(grad, weight)
    aten.threshold_backward.grad_input(into, active, 0, grad_input=into)
    into, sums = norm.back(into, rows)
    total.add_(into)
    return of_weight, sums


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


def _image(rows: Tensor) -> Tensor:
    """Return a view (1, c, 1, rows), channels last, which torch's batch norms take in their stride."""
    return rows.contiguous().view(1, 1, *rows.shape).permute(0, 3, 1, 2)


def _rows(image: Tensor) -> Tensor:
    return image.permute(0, 2, 3, 1).reshape(image.shape[3], image.shape[1])


def _center(count: int, mean: Tensor, rstd: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
    """Return slope and level of what rstd * (mean(G) + xhat * mean(G * xhat)) takes off, given both sums."""
    slope = rstd * rstd * sums[1] / -count
    return slope, rstd * sums[0] / -count - mean * slope

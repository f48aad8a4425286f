"""The fast twin: the same network with the same weights, computed with less traffic to memory.

Dense blocks are `toolkit.models.fast_block`, on a CPU where that pays; transitions behind them are matrix
products. On a GPU the first convolution, of one channel, becomes one of eight: of cells of 2x2x2 voxels.
Modules, state dict, first weights, draws of dropout and running statistics are those of `DenseNet`, so that
either takes up where the other stopped. Hooks on modules within blocks and transitions do not run.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from toolkit.models.densenet import DenseNet, Transition
from toolkit.models.fast_block import dense_block


class FastDenseNet(DenseNet):
    """A `DenseNet` that computes its features faster; takes, gives and raises what that does."""

    def _logits(self, image: Tensor) -> Tensor:
        x, block = image, nn.Sequential()
        for name, module in self.features.named_children():
            if name == "conv0":
                worth = image.is_cuda and self.stem_stride == 2
                x = stem_of_cells(x, cast(Tensor, module.weight)) if worth else module(x)
            elif name.startswith("denseblock"):
                block = cast(nn.Sequential, module)  # waits for the norm behind it
            elif name.startswith("transition") or name == "norm5":
                x = _with_norm(x, block, module)
            else:
                x = module(x)
        logits: Tensor = self.class_layers[1:](x)  # its ReLU is part of the last block
        return logits


def _with_norm(x: Tensor, block: nn.Sequential, behind: nn.Module) -> Tensor:
    """Return what comes behind a block and its transition, or its last norm and ReLU."""
    layers = [cast(nn.Sequential, layer.layers) for layer in block]
    closing = cast(nn.BatchNorm3d, behind.norm if isinstance(behind, Transition) else behind)
    first = [*(cast(nn.BatchNorm3d, each.norm1) for each in layers), closing]
    second = [cast(nn.BatchNorm3d, each.norm2) for each in layers]
    drops = [each for each in layers if _drops(each)]
    training = closing.training
    kind = x.device.type
    mixed = torch.is_autocast_enabled(kind) and x.dtype != torch.float64  # which autocast leaves alone
    dtype = torch.get_autocast_dtype(kind) if mixed else x.dtype
    # some norms are frozen and others not, or the network was changed by hand
    odd = not _alike([*first, *second]) or len(drops) not in (0, len(layers))
    if odd or not _pays(x, dtype, second[0].num_features):
        x = behind(block(x))
        return x if isinstance(behind, Transition) else F.relu(x)
    rows = x.to(dtype).permute(0, 2, 3, 4, 1)
    if training and rows.shape[:-1].numel() == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {x.shape}")
    conv1, conv2 = _taps(layers, "conv1", dtype), _taps(layers, "conv2", dtype)
    weights = [*_weights(first), conv1, *_weights(second), conv2]
    running = [] if training else [*_running(first), *_running(second)]
    masks = [_mask(rows, each) for each in drops]
    cells = isinstance(behind, Transition)
    out, (mean, variance, mean2, variance2) = dense_block(
        rows, weights, running, masks, eps=closing.eps, cells=cells
    )
    if training:
        count = rows.shape[:-1].numel()
        unbiased, unbiased2 = (each * (count / (count - 1)) for each in (variance, variance2))
        sizes = [each.num_features for each in first]
        _update(first, [mean[:k] for k in sizes], [unbiased[:k] for k in sizes])
        _update(second, list(mean2), list(unbiased2))
    if isinstance(behind, Transition):
        out = F.linear(out, behind.conv.weight.flatten(1))
    return out.permute(0, 4, 1, 2, 3)


def _pays(x: Tensor, dtype: torch.dtype, width: int) -> bool:
    """Tell whether a block is worth computing as one; where not, it is computed as it is written down.

    On a CPU it is in float32 on one thread with bottlenecks of 128 channels and more, and maps of more than a
    voxel; in bfloat16, and on more threads, torch's own convolutions and norms are faster (benchmarks/LOG.md,
    2026-11-30). A compiled step cannot ask for threads, and was not measured. In float64, which nobody trains
    in, it always is: that is what proves it.
    """
    if not x.is_cpu or dtype == torch.float64:
        return True
    fits = width >= 128 and x.shape[2:].numel() > 1 and dtype == torch.float32
    return fits and (torch.compiler.is_compiling() or torch.get_num_threads() == 1)


def _alike(norms: Sequence[nn.BatchNorm3d]) -> bool:
    """Tell whether norms can share statistics: of one mode and one eps, with weights and running buffers."""
    whole = all(each.affine and each.track_running_stats for each in norms)
    return whole and len({(each.training, each.eps) for each in norms}) == 1


def _weights(norms: Sequence[nn.BatchNorm3d]) -> list[list[Tensor]]:
    return [[each.weight for each in norms], [each.bias for each in norms]]


def _taps(layers: Sequence[nn.Sequential], name: str, dtype: torch.dtype) -> list[Tensor]:
    return [cast(nn.Conv3d, getattr(each, name)).weight.to(dtype) for each in layers]


def _running(norms: Sequence[nn.BatchNorm3d]) -> list[list[Tensor]]:
    return [[cast(Tensor, getattr(each, name)) for each in norms] for name in ("running_mean", "running_var")]


def _drops(layer: nn.Sequential) -> bool:
    dropout = getattr(layer, "dropout", None)
    return dropout is not None and dropout.training and dropout.p > 0


def _mask(rows: Tensor, layer: nn.Sequential) -> Tensor:
    """Return what Dropout3d would multiply new channels by, (n, growth), drawn as it draws."""
    ones = rows.new_ones(len(rows), cast(nn.Conv3d, layer.conv2).out_channels, 1, 1, 1)
    mask: Tensor = cast(nn.Dropout3d, layer.dropout)(ones)
    return mask.flatten(1)


@torch.no_grad()
def _update(norms: Sequence[nn.BatchNorm3d], means: list[Tensor], variances: list[Tensor]) -> None:
    """Move running statistics as BatchNorm does; a momentum of None is the mean over all batches."""
    counts = [cast(Tensor, each.num_batches_tracked) for each in norms]
    torch._foreach_add_(counts, 1)
    momentum, *others = {each.momentum for each in norms}
    if momentum is not None and not others:
        for there, here in zip(_running(norms), (means, variances), strict=True):
            torch._foreach_lerp_(there, [each.to(there[0].dtype) for each in here], momentum)
        return
    shares = [each.momentum for each in norms]
    for k, (mean, variance) in enumerate(zip(*_running(norms), strict=True)):
        share = shares[k]
        if share is None:
            share = 1 / float(counts[k])
        mean.lerp_(means[k].to(mean.dtype), share)
        variance.lerp_(variances[k].to(variance.dtype), share)


def stem_of_cells(image: Tensor, weight: Tensor) -> Tensor:
    """Return ``conv3d(image, weight, stride=2, padding=3)`` of a 7x7x7 kernel, as one of 4x4x4 and stride 1.

    Output o sees voxels 2o - 3 to 2o + 3. With a tap of zero before the first these are eight, or cells
    o - 2 to o + 1 of two voxels each: channels times 8, kernels 4x4x4. Its products are the same, and 169 of
    512 taps are zero. Worth it where tensor cores would fill one channel up to eight.
    """
    padding = [each for size in reversed(image.shape[2:]) for each in (4, 2 + size % 2)]
    cells = to_cells(F.pad(image, padding))
    return F.conv3d(cells, to_cells(F.pad(weight, (1, 0) * 3)))


def to_cells(x: Tensor) -> Tensor:
    """Return (n, 8c, d/2, h/2, w/2), channels last, of (n, c, d, h, w) of even size; a cell is zyx."""
    n, c, *size = x.shape
    d, h, w = (each // 2 for each in size)
    apart = x.reshape(n, c, d, 2, h, 2, w, 2).permute(0, 2, 4, 6, 1, 3, 5, 7)
    return apart.reshape(n, d, h, w, 8 * c).permute(0, 4, 1, 2, 3)

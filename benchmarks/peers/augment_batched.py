"""The augmentation of `benchmarks.peers.augment` by those who work on whole batches: Kornia, BatchAug, torch.

On a CPU each sample is a batch of its own, from a thread pool, which is 1.6 times (torch: twice) as fast as
whole batches and torch's own threads. On a GPU a batch is a batch.

BatchAug is in no package index; it is measured where it can be imported: put a checkout of github
halleewong/batchaug (9de24f9 was tried) into ``PYTHONPATH``.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from benchmarks.peers.augment import Run, Work
    from toolkit.loading.table import AugmentTable

Batch = Callable[["Work"], Any]
"""From crops to patches float32 (b, 1, size, size, size), on whatever device the crops are."""


def torch_grid_sample(threads: int, name: str) -> "Run":
    """Use affine_grid, grid_sample and arithmetic in place."""
    import torch
    from torch.nn.functional import affine_grid, grid_sample

    def batch(work: "Work") -> Any:
        table, device = work.table, _device(work)
        size, side = table.size, work.images.shape[1]
        linear = table.matrix[:, :, :3].astype(np.float64)
        middle = linear @ np.full(3, (size - 1) / 2) + table.matrix[:, :, 3]
        theta = np.concatenate(
            [
                linear[:, ::-1, ::-1] * ((size - 1) / (side - 1)),
                middle[:, ::-1, None] * 2 / (side - 1) - 1,
            ],
            axis=2,
        )
        theta_there = torch.from_numpy(theta.astype(np.float32)).to(device)
        grid = affine_grid(theta_there, [len(table), 1, size, size, size], align_corners=True)
        v = grid_sample(_float(work.images), grid, padding_mode="border", align_corners=True)
        intensities(v, table, name)
        if name == "mask":
            v.mul_(grid_sample(_float(work.masks), grid, align_corners=True).div_(255))
        return v

    return spread(batch, threads)


def kornia(threads: int, name: str) -> "Run":
    """Use Kornia's warp_affine3d, which its RandomAffine3D calls, straight to the patch's size.

    Its own intensities (`enhance`) clamp after each operation, and its elastic transform is 2-D.
    """
    import torch
    from kornia.geometry.transform import warp_affine3d

    def batch(work: "Work") -> Any:
        table = work.table
        matrices = torch.from_numpy(source_to_target_xyz(table.matrix)).to(_device(work))
        size = (table.size,) * 3
        v = warp_affine3d(_float(work.images), matrices, size, padding_mode="border")
        intensities(v, table, name)
        if name == "mask":
            v.mul_(warp_affine3d(_float(work.masks), matrices, size, padding_mode="zeros").div_(255))
        return v

    return spread(batch, threads)


def source_to_target_xyz(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return matrices (b, 3, 4) of patch to crop, zyx, as Kornia wants them: crop to patch, xyz."""
    whole = np.tile(np.eye(4), (len(matrix), 1, 1))
    whole[:, :3] = matrix
    inverse = np.linalg.inv(whole)[:, :3]
    return np.concatenate([inverse[:, ::-1, 2::-1], inverse[:, ::-1, 3:]], axis=2).astype(np.float32)


def batchaug(threads: int, name: str) -> "Run":
    """Use BatchAug's RandAffine and RandGaussianNoise, the draws replaced by ours.

    Its affine takes the whole crop, as TorchIO's does; the patch is cut out after it, before anything else.
    It has no window; arithmetic is torch's.
    """
    import torch
    from batchaug import Rand3DElastic, RandAffine, RandGaussianNoise
    from batchaug.pytorch.geometric.affine import monai_affine_to_theta

    bend = Rand3DElastic(1.0, (4.0, 5.0), (50.0, 100.0), padding_mode="border")
    noise = RandGaussianNoise(1.0)

    def batch(work: "Work") -> Any:
        table, device, side = work.table, _device(work), work.images.shape[1]
        all_of_it = torch.ones(len(table), dtype=torch.bool, device=device)
        affine = torch.from_numpy(about_the_middle(table, side)).to(device)
        theta = monai_affine_to_theta(affine, (side,) * 3, device)
        params = {"mask": all_of_it, "theta": theta, "spatial_shape": (side,) * 3}

        def warp(source: Any, padding: str) -> Any:
            warped = RandAffine(1.0, padding_mode=padding).apply(source, params)
            if name == "elastic":
                warped = bend(warped)
            first = (side - table.size) // 2
            middle = slice(first, first + table.size)
            return warped[:, :, middle, middle, middle].contiguous()

        v = warp(_float(work.images), "border")
        intensities(v, table, "plain" if name == "noise" else name)
        if name == "noise":
            drawn = torch.randn_like(v).mul_(_column(table.noise_sigma, v))
            v = noise.apply(v, {"mask": all_of_it, "noise": drawn})
        if name == "mask":
            v.mul_(warp(_float(work.masks), "zeros").div_(255))
        return v

    return spread(batch, threads)


def about_the_middle(table: "AugmentTable", side: int) -> NDArray[np.float32]:
    """Return matrices (b, 4, 4), zyx, between voxels counted from the middles of patch and crop."""
    if (side - table.size) % 2:
        raise ValueError(f"a patch of {table.size} voxels has no middle place in a crop of {side}")
    linear = table.matrix[:, :, :3].astype(np.float64)
    whole = np.tile(np.eye(4), (len(table), 1, 1))
    whole[:, :3, :3] = linear
    whole[:, :3, 3] = linear @ np.full(3, (table.size - 1) / 2) + table.matrix[:, :, 3] - (side - 1) / 2
    return whole.astype(np.float32)


def intensities(v: Any, table: "AugmentTable", name: str) -> None:
    """Apply window, gamma, gain, bias and noise in place, the rows' own to each sample."""
    import torch

    v.sub_(_column(table.low_hu, v)).div_(_column(table.width_hu, v)).clamp_(0, 1)
    if name == "gamma":
        v.pow_(_column(table.gamma, v))
    v.mul_(_column(table.gain, v)).add_(_column(table.bias, v))
    if name == "noise":
        v.add_(torch.randn_like(v).mul_(_column(table.noise_sigma, v)))


def spread(batch: Batch, threads: int) -> "Run":
    """Return how a batch is best made: on a CPU a sample at a time from a pool, on a GPU at once."""
    import torch

    pool = ThreadPoolExecutor(threads)

    def run(work: "Work") -> Any:
        if torch.is_tensor(work.images) and work.images.is_cuda:
            return batch(work)[:, 0]
        torch.set_num_threads(1)
        parts = [work.part(k) for k in range(len(work.table))]
        return torch.cat(list(pool.map(batch, parts)))[:, 0]

    return run


def _float(crops: Any) -> Any:
    """Return crops as float32 (b, 1, s, s, s): int16 becomes float32 on the clock."""
    import torch

    return torch.as_tensor(crops).to(torch.float32)[:, None]


def _column(values: NDArray[np.float32], like: Any) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(values)).to(like.device).view(-1, 1, 1, 1, 1)


def _device(work: "Work") -> Any:
    import torch

    return torch.as_tensor(work.images).device

"""Crop and resample of bricks in a GPU's memory: ours, CuPy's affine_transform, torch's grid_sample.

``python -m benchmarks.peers.kernel_gpu [--bricks 64] [--out FILE]``

Image alone, int16 in, finer than the source on all axes, so that all are trilinear; matrices and torch's
grids are made before the clock starts, and events are the clock. Ours is one launch a batch, CuPy's one a
brick (its texture memory has fractions of 8 bits: another output). torch gets all bricks as one batch, which
only bricks of equal shape can be. The gate comes first, and there is no figure without it.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kernels
from benchmarks import RESULTS
from benchmarks.peers.contenders import unit_grid
from benchmarks.peers.gate import UnequalError
from benchmarks.peers.readers import AIR
from toolkit.bench.data import noise_bricks
from toolkit.bench.machine import Kind
from toolkit.bench.record import Figure, append, default_path, figure, line
from toolkit.bench.stopwatch import Effort, Work, in_turns, rates

FINER = 0.6  # of the spacing of `noise_bricks`, 1 mm
DEGREES = {"axial": 0.0, "oblique": 12.0}
SETS = 4  # batches in turn, larger together than the cache
EQUAL_HU = 1.0  # ours and CuPy's are rounded, each from float32 positions and sums in another order


@dataclass(frozen=True, eq=False)
class Batch:
    """Bricks of equal shape, packed for our kernel, and the same on a device as each peer wants them.

    Attributes
    ----------
    packed
        What `kernels.extract` takes.
    volumes
        int16 (n, z, y, x): an array of CuPy or NumPy.
    matrices, offsets
        (3, 3) arrays of the same library and three numbers, one for each brick.
    volumes_torch, grid_torch
        The volumes as a tensor, and float32 (n, s, s, s, 3).
    """

    packed: kernels.Bricks
    volumes: Any
    matrices: list[Any]
    offsets: list[list[float]]
    volumes_torch: Any
    grid_torch: Any


def bricks_of(seed: int, count: int, size: int, degrees: float) -> list[kernels.Brick]:
    """Return bricks of noise without a mask, sampled at `FINER` mm about their middle."""
    found = []
    for brick in noise_bricks(seed, count, size, degrees):
        middle = np.full(3, (size - 1) / 2)
        center = brick.matrix[:, :3] @ middle + brick.matrix[:, 3]
        linear = FINER * brick.matrix[:, :3]
        found.append(replace(brick, mask=None, matrix=np.column_stack([linear, center - linear @ middle])))
    return found


def batch_of(bricks: list[kernels.Brick], size: int, kind: Kind) -> Batch:
    """Put a batch where it is worked on; NumPy and the CPU are for trying this without a GPU."""
    import torch

    if kind == "cuda":
        import cupy as xp
    else:
        xp = np
    packed = kernels.pack(bricks, size)
    hu = np.stack([brick.hu for brick in bricks])
    grids = np.concatenate([unit_grid(brick, size, align_corners=True) for brick in bricks])
    return Batch(
        kernels.to_device(packed) if kind == "cuda" else packed,
        xp.asarray(hu),
        [xp.asarray(brick.matrix[:, :3]) for brick in bricks],
        [brick.matrix[:, 3].tolist() for brick in bricks],
        torch.from_numpy(hu).to(kind),
        torch.from_numpy(grids).to(kind),
    )


def ours(batch: Batch, size: int) -> Any:
    """Make all images in one launch, int16."""
    return kernels.extract(batch.packed, size)[0]


def affine_transform(batch: Batch, size: int, ndimage: Any) -> list[Any]:
    """Use affine_transform of order 1, a call a brick, int16 out; `ndimage` is CuPy's or SciPy's."""
    parts = zip(batch.volumes, batch.matrices, batch.offsets, strict=True)
    return [
        ndimage.affine_transform(hu, matrix, offset, (size,) * 3, order=1, mode="constant", cval=AIR)
        for hu, matrix, offset in parts
    ]


def grid_sample(batch: Batch) -> Any:
    """Use torch grid_sample on the whole batch; int16 to float32 on the clock, float32 out."""
    import torch

    volumes = batch.volumes_torch.to(torch.float32)[:, None]
    sample = torch.nn.functional.grid_sample
    return sample(volumes, batch.grid_torch, padding_mode="border", align_corners=True)[:, 0]


def contenders(batches: list[Batch], size: int, kind: Kind) -> dict[str, Work]:
    """Return who makes the images of batch number `turn`."""
    if kind == "cuda":
        from cupyx.scipy import ndimage
    else:
        from scipy import ndimage
    turns = len(batches)
    return {
        "toolkit": lambda turn: ours(batches[turn % turns], size),
        "cupyx": lambda turn: affine_transform(batches[turn % turns], size, ndimage),
        "torch": lambda turn: grid_sample(batches[turn % turns]),
    }


def check(name: str, works: Mapping[str, Work]) -> None:
    """Raise `UnequalError` unless all make the images that we make."""
    expected = _host(works["toolkit"](0))
    for peer, work in works.items():
        apart = float(np.abs(_host(work(0)) - expected).max())
        if not apart <= EQUAL_HU:
            raise UnequalError(f"{name}: {peer} differs by {apart:.3f} HU, {EQUAL_HU} is rounding")


def _host(images: Any) -> NDArray[np.float64]:
    if isinstance(images, list):
        return np.stack([_host(image) for image in images])
    if hasattr(images, "cpu"):
        images = images.cpu()
    return np.asarray(images.get() if hasattr(images, "get") else images).astype(np.float64)


def measure(size: int, bricks: int, rounds: int, kind: Kind) -> list[Figure]:
    """Return nodules a second of each on each grid, in turn, and the ratios of ours to theirs."""
    figures = []
    for name, degrees in DEGREES.items():
        batches = [batch_of(bricks_of(seed, bricks, size, degrees), size, kind) for seed in range(SETS)]
        works = contenders(batches, size, kind)
        check(name, works)
        seconds = in_turns(works, Effort(rounds, 0.0, warm=SETS), kind)
        taken = {peer: rates(each, bricks) for peer, each in seconds.items()}
        about = f"image alone, {size}^3 at {FINER} mm, batches of {bricks} bricks of equal shape, resident"
        for peer, each in taken.items():
            figures.append(figure(f"gpu.kernel/{name}/{peer}", each, "nodules/s", about))
        for peer in ("cupyx", "torch"):
            ratio = [a / b for a, b in zip(taken["toolkit"], taken[peer], strict=True)]
            figures.append(figure(f"gpu.kernel/{name}/ratio/toolkit / {peer}", ratio, "x", about))
    return figures


def main() -> None:
    """Parse, measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--bricks", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    figures = measure(args.size, args.bricks, args.rounds, "cuda")
    for found in figures:
        print(line(found))
    append(figures, args.out or default_path(RESULTS, "cuda"), "cuda")


if __name__ == "__main__":
    main()

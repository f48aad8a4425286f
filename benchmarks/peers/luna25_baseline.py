"""A malignancy classifier trained after the recipe that the LUNA25 challenge published, written afresh.

The facts are those of github DIAGNijmegen/luna25-baseline-public at eff2776 (`experiment_config.py`,
`dataloader.py`, `train.py`, `preprocessing/`): cubes of 50 mm at 64^3 voxels, HU from -1000 to 400 mapped to
[0, 1]; rotations of whole degrees from -20 to 19 about each axis; a shift of up to 2.5 mm, uniform in length,
in a direction by chance; `scipy.ndimage.affine_transform` of order 1 for every sample; batches of 32 from
`WeightedRandomSampler` with weights one over the class's share; Adam with 1e-4 and weight decay 5e-4, binary
cross-entropy, float32, eager, the loss fetched after each step; 10 epochs. It cuts blocks of 64 x 128 x 128
voxels once and maps them into memory (`blocks`); its inference reads whole scans, as does who follows it
without blocks (`scans`).

What is other here: outside the volume lies air, not 0 HU; a block keeps the part of a voxel by which the
nodule is off; the network is MONAI's DenseNet of our sizes, not an I3D with three equal input channels, so
that both sides train the same network; an epoch does not end.

Spawned workers import this file; keep it light.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

AIR_HU = -1024
SIZE, FIELD_MM = 64, 50.0
WINDOW_HU = (-1000.0, 400.0)
DEGREES, SHIFT_MM = 20, 2.5
BATCH, EPOCHS, LR, WEIGHT_DECAY = 32, 10, 1e-4, 5e-4
BLOCK_ZYX = (64, 128, 128)
NEVER = 10_000  # batches


@dataclass(frozen=True)
class Source:
    """Where the voxels of a nodule are: a whole scan, or a block with the affine that a scan has itself.

    Attributes
    ----------
    path
        ``.mha``, or ``.npy`` int16 zyx.
    center_zyx_mm
        Of the nodule, LPS, z first.
    label
        1 malignant, 0 benign.
    affine_zyx
        (4, 4) index to mm, z first, as nested tuples; None where the file says it.
    """

    path: str
    center_zyx_mm: tuple[float, ...]
    label: int
    affine_zyx: tuple[tuple[float, ...], ...] | None = None


def read(source: Source) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Return voxels zyx and their affine: a whole scan is read, a block is mapped."""
    if source.affine_zyx is not None:
        return np.load(source.path, mmap_mode="r", allow_pickle=False), np.array(source.affine_zyx)
    import SimpleITK as sitk

    image = sitk.ReadImage(source.path)
    return sitk.GetArrayFromImage(image), affine_of(image)


def affine_of(image: Any) -> NDArray[np.float64]:
    """Return a SimpleITK image's index to mm, (4, 4), z first."""
    whole = np.eye(4)
    xyz = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    whole[:3, :3] = xyz[::-1, ::-1]
    whole[:3, 3] = image.GetOrigin()[::-1]
    return whole


def patch(source: Source, size: int, voxel_mm: float, rng: np.random.Generator | None) -> NDArray[np.float32]:
    """Return a cube about the nodule, float32 (1, size, size, size) in [0, 1]; turned and moved by `rng`."""
    from scipy import ndimage

    volume, affine = read(source)
    rotation, center = np.eye(3), np.array(source.center_zyx_mm)
    if rng is not None:
        rotation, shift = draw(rng)
        center = center + shift
    to_index = np.linalg.inv(affine)
    linear = to_index[:3, :3] @ rotation * voxel_mm
    offset = to_index[:3, :3] @ center + to_index[:3, 3] - linear @ np.full(3, (size - 1) / 2)
    hu = ndimage.affine_transform(
        volume, linear, offset, (size,) * 3, np.float32, order=1, mode="constant", cval=AIR_HU,
        prefilter=False,
    )  # fmt: skip
    low, high = WINDOW_HU
    return np.asarray(np.clip((hu - low) / (high - low), 0, 1)[None], np.float32)


def draw(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a rotation (3, 3) and a shift in mm (3,), both z first."""
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_euler("zyx", rng.integers(-DEGREES, DEGREES, 3), degrees=True)
    away = rng.normal(size=3)
    return turn.as_matrix()[::-1, ::-1], away / np.linalg.norm(away) * rng.random() * SHIFT_MM


class Samples:
    """The data set: reads, turns and cuts a sample whenever it is asked for one."""

    def __init__(self, sources: Sequence[Source], size: int) -> None:
        self._sources, self._size = list(sources), size

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], np.float32]:
        import torch

        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        source = self._sources[index]
        return patch(source, self._size, FIELD_MM / self._size, rng), np.float32(source.label)


def endless_batches(
    sources: Sequence[Source], size: int, batch: int, workers: int, pin: bool
) -> Iterator[tuple[Any, Any]]:
    """Yield images (b, 1, s, s, s) and labels (b,) as the recipe's loader makes them.

    One epoch that does not end, so that neither a start of workers nor the wait for them is in a rate.
    """
    from torch.utils.data import DataLoader, WeightedRandomSampler

    label = np.array([source.label for source in sources])
    weight = np.where(label == 1, 1 / max(1, label.sum()), 1 / max(1, len(label) - label.sum()))
    yield from DataLoader(
        Samples(sources, size),  # type: ignore[arg-type]
        batch,
        sampler=WeightedRandomSampler(weight.tolist(), NEVER * batch),
        num_workers=workers,
        worker_init_fn=one_thread,
        multiprocessing_context="spawn" if workers else None,
        pin_memory=pin,
    )


def one_thread(worker: int) -> None:
    """Give each of ITK and torch one thread: there is a worker for each core."""
    import torch

    _one_thread_itk()
    torch.set_num_threads(1)


def _one_thread_itk() -> None:
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def main() -> None:
    """Cut blocks: ``python -m benchmarks.peers.luna25_baseline FOLDER WORKERS``, sources as JSON in and out.

    A program of its own, as the recipe's is, whose workers import nothing but what they need.
    """
    folder, workers = Path(sys.argv[1]), int(sys.argv[2])
    given = [Source(**each) for each in json.load(sys.stdin)]
    folder.mkdir()
    paths = [str(folder / f"{k:06d}.npy") for k in range(len(given))]
    with ProcessPoolExecutor(workers, get_context("spawn"), _one_thread_itk) as pool:
        json.dump([asdict(each) for each in pool.map(cut_block, given, paths)], sys.stdout)


def cut_block(source: Source, path: str) -> Source:
    """Write one block and return it as a source."""
    volume, affine = read(source)
    at = np.linalg.solve(affine, [*source.center_zyx_mm, 1.0])[:3]
    start = np.rint(at).astype(int) - np.array(BLOCK_ZYX) // 2
    block = np.full(BLOCK_ZYX, AIR_HU, np.int16)
    first = np.maximum(start, 0)
    stop = np.minimum(start + BLOCK_ZYX, volume.shape)
    there = tuple(slice(a, b) for a, b in zip(first, stop, strict=True))
    here = tuple(slice(a, b) for a, b in zip(first - start, stop - start, strict=True))
    block[here] = volume[there]
    np.save(path, block, allow_pickle=False)
    moved = affine.copy()
    moved[:3, 3] = affine[:3, :3] @ start + affine[:3, 3]
    return replace(source, path=path, affine_zyx=tuple(tuple(row) for row in moved.tolist()))


if __name__ == "__main__":
    main()

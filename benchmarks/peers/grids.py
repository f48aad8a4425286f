"""Bricks and targets for the kernel benchmark, and the same things as each peer wants them.

All of this is done before the clock starts: no side pays for a conversion that is not its own work,
except that int16 becomes float32 on the clock where a peer computes in nothing else.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kernels
from benchmarks.peers.readers import AIR, sitk_read

LIDC_SPACING_ZYX = (2.5, 0.703125, 0.703125)
NODULE_MM = 14.0


@dataclass(frozen=True, eq=False)
class Sample:
    """One source brick and one target grid.

    Attributes
    ----------
    hu, mask
        int16 and uint8 0/1 (nz, ny, nx).
    matrix
        float64 (3, 4): target index zyx to brick index zyx.
    image_only, with_mask
        The packed batches of one that the toolkit's kernel takes.
    sitk_hu, sitk_mask
        SimpleITK images on the brick's grid, the mask scaled to 0-255.
    origin_xyz, direction, spacing_mm, size
        The target in mm, in the frame in which the brick's first voxel lies at 0.
    """

    hu: NDArray[np.int16]
    mask: NDArray[np.uint8]
    matrix: NDArray[np.float64]
    image_only: kernels.Bricks
    with_mask: kernels.Bricks
    sitk_hu: Any
    sitk_mask: Any
    origin_xyz: list[float]
    direction: list[float]
    spacing_mm: float
    size: int


def samples(scan: Path | None, spacing_mm: float, degrees: float, size: int, count: int) -> list[Sample]:
    """Return bricks from the lungs of a scan (or of noise), each just large enough for its target."""
    volume, step = _volume(scan)
    rotation = _rotation(degrees)
    matrix = rotation * spacing_mm / step[:, None]
    reach = np.abs(matrix).sum(axis=1) * (size - 1) / 2 + np.maximum(np.linalg.norm(matrix, axis=1), 1)
    half = np.ceil(reach).astype(int) + 1
    rng = np.random.default_rng(5)
    found = []
    for _ in range(count):
        room = np.array(volume.shape) // 2 - half
        if room.min() < 0:
            raise ValueError(f"a target of {size} voxels of {spacing_mm} mm does not fit the scan")
        center = np.array(volume.shape) // 2 + rng.integers(-(room // 2), room // 2 + 1)
        hu = volume[tuple(slice(c - h, c + h + 1) for c, h in zip(center, half, strict=True))]
        at = half + rng.uniform(-0.5, 0.5, 3)  # where the target's centre lies in the brick
        found.append(_sample(np.ascontiguousarray(hu), at, matrix, rotation, step, spacing_mm, size))
    return found


def _sample(
    hu: NDArray[np.int16],
    at: NDArray[np.float64],
    linear: NDArray[np.float64],
    rotation: NDArray[np.float64],
    step: NDArray[np.float64],
    spacing_mm: float,
    size: int,
) -> Sample:
    import SimpleITK as sitk

    mask = np.asarray(_ball(hu.shape, at, step), np.uint8)
    matrix = np.column_stack([linear, at - linear @ np.full(3, (size - 1) / 2)])
    images = [sitk.GetImageFromArray(hu), sitk.GetImageFromArray(mask * np.uint8(255))]
    for image in images:
        image.SetSpacing(step[::-1].tolist())
    return Sample(
        hu=hu,
        mask=mask,
        matrix=matrix,
        image_only=kernels.pack([kernels.Brick(hu, None, matrix)], size),
        with_mask=kernels.pack([kernels.Brick(hu, mask, matrix)], size),
        sitk_hu=images[0],
        sitk_mask=images[1],
        origin_xyz=(matrix[:, 3] * step)[::-1].tolist(),
        direction=rotation[::-1, ::-1].ravel().tolist(),
        spacing_mm=spacing_mm,
        size=size,
    )


def _volume(scan: Path | None) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Return HU zyx, clipped as the toolkit's readers do, and spacing zyx in mm."""
    if scan is None:
        noise = np.random.default_rng(3).normal(-600, 250, (72, 256, 256))
        return noise.clip(AIR, 3071).astype(np.int16), np.array(LIDC_SPACING_ZYX)
    import SimpleITK as sitk

    folder = next(scan.rglob("*.dcm")).parent
    image = sitk_read(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    volume = sitk.GetArrayFromImage(image).clip(AIR, 3071).astype(np.int16)
    return volume, np.array(image.GetSpacing()[::-1])


def _rotation(degrees: float) -> NDArray[np.float64]:
    """Return a rotation (zyx) about an axis that favours none of the three."""
    from scipy.spatial.transform import Rotation

    axis = np.ones(3) / np.sqrt(3)
    return np.asarray(Rotation.from_rotvec(np.deg2rad(degrees) * axis).as_matrix())


def _ball(shape: tuple[int, ...], at: NDArray[np.float64], step: NDArray[np.float64]) -> NDArray[np.bool_]:
    mm = [(np.arange(n) - a) * s for n, a, s in zip(shape, at, step, strict=True)]
    z, y, x = np.meshgrid(*mm, indexing="ij")
    return np.asarray(z**2 + y**2 + x**2 <= (NODULE_MM / 2) ** 2)

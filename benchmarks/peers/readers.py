"""A case from DICOM files to a crop as others do it. Spawned workers import this file; keep it light.

What each returns is a sum over the crop, so that the crop itself crosses no process border: the
toolkit's crops do, and are written to disk with their masks and digests besides.
"""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

AIR = -1024


@dataclass(frozen=True)
class Target:
    """What is asked of one case.

    Attributes
    ----------
    folder
        Where its slices lie.
    files
        Those that the crop needs, in order along the stack.
    center_lps_mm, spacing_mm, side
        The crop: a cube of `side` voxels; z to the head, y to the back, x to the left.
    """

    folder: str
    files: tuple[str, ...]
    center_lps_mm: tuple[float, float, float]
    spacing_mm: float
    side: int

    @property
    def origin_xyz(self) -> tuple[float, ...]:
        """Position of the first voxel."""
        return tuple(c - self.spacing_mm * (self.side - 1) / 2 for c in self.center_lps_mm)


def prepare(kind: str) -> None:
    """Import what a worker needs and give it one thread: there is a worker for each core."""
    if kind.startswith("monai"):
        import monai.transforms  # noqa: F401
        import torch

        torch.set_num_threads(1)
        if kind == "monai-itk":
            import itk

            itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(1)
    else:
        import SimpleITK

        SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def sitk_resample(image: Any, target: Target, pixel_type: int | None = None) -> Any:
    """Return the crop of an image by SimpleITK: linear, -1024 outside, in the image's type."""
    import SimpleITK as sitk

    kind = image.GetPixelID() if pixel_type is None else pixel_type
    size, spacing = [target.side] * 3, [target.spacing_mm] * 3
    where = (size, sitk.Transform(), sitk.sitkLinear, list(target.origin_xyz), spacing)
    return sitk.Resample(image, *where, [1.0, 0, 0, 0, 1, 0, 0, 0, 1], AIR, kind)


def sitk_read(files: Sequence[str]) -> Any:
    """Return a volume of some slices, as `ImageSeriesReader` makes it."""
    import SimpleITK as sitk

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(list(files))
    return reader.Execute()


def sitk_series(target: Target) -> float:
    """Take the usual way: let GDCM sort the folder, read all of it, resample."""
    import SimpleITK as sitk

    image = sitk_read(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(target.folder))
    crop = sitk_resample(image, target)  # a name of its own: a view does not keep its image alive
    return _sum(sitk.GetArrayViewFromImage(crop))


def sitk_slices(target: Target) -> float:
    """Read only the files that the crop needs, which somebody already knows, and resample."""
    import SimpleITK as sitk

    crop = sitk_resample(sitk_read(target.files), target)
    return _sum(sitk.GetArrayViewFromImage(crop))


def monai_crop(target: Target, reader: str) -> Any:
    """Return the crop by MONAI's usual recipe: load, channel first, resample the scan, crop."""
    import numpy as np
    from monai.transforms import EnsureChannelFirst, LoadImage, Spacing, SpatialCrop

    image = EnsureChannelFirst()(LoadImage(reader=reader, image_only=True)(target.folder))
    image = Spacing(pixdim=(target.spacing_mm,) * 3, mode="bilinear")(image)
    x, y, z = target.center_lps_mm
    affine = np.asarray(image.affine, dtype=np.float64)
    center = np.linalg.solve(affine, [-x, -y, z, 1.0])[:3]  # MONAI's world is RAS
    return SpatialCrop(roi_center=[round(c) for c in center], roi_size=(target.side,) * 3)(image)


def monai_itk(target: Target) -> float:
    """`monai_crop` with ITKReader, which LoadImage takes first where itk is installed."""
    return _sum(monai_crop(target, "ITKReader").numpy())


def monai_pydicom(target: Target) -> float:
    """`monai_crop` with PydicomReader."""
    return _sum(monai_crop(target, "PydicomReader").numpy())


TASKS: dict[str, Callable[[Target], float]] = {
    "sitk-series": sitk_series,
    "sitk-slices": sitk_slices,
    "monai-itk": monai_itk,
    "monai-pydicom": monai_pydicom,
}


def measure(kind: str, targets: Sequence[Target], workers: int) -> tuple[float, float]:
    """Return how long spawned workers take for some cases, start and imports included, and the mean HU."""
    start = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, prepare, (kind,)) as pool:  # a worker's death is an error here
        sums = list(pool.map(TASKS[kind], targets))
    return time.perf_counter() - start, sum(sums) / sum(target.side**3 for target in targets)


def _sum(crop: Any) -> float:
    return float(crop.sum(dtype="float64"))

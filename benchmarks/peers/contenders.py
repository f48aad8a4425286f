"""Crop and resample of one brick, as the toolkit and as others do it, on one thread."""

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kernels
from benchmarks.peers.grids import Sample
from benchmarks.peers.readers import AIR

Contender = Callable[[Sample], Any]


def one_thread() -> None:
    """Give every library one thread."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    with suppress(ImportError):
        import torch

        torch.set_num_threads(1)
    with suppress(ImportError):
        import volresample

        volresample.set_num_threads(1)


def available(makers: Mapping[str, Callable[[], Contender]]) -> dict[str, Contender]:
    """Return the contenders whose libraries are installed; the others are named on stderr."""
    found = {}
    for name, make in makers.items():
        try:
            found[name] = make()
        except ImportError as error:
            print(f"left out {name}: {error}", file=sys.stderr)
    return found


def toolkit_image(sample: Sample) -> Any:
    """Make the image; the brick is packed before."""
    return kernels.extract(sample.image_only, sample.size)[0]


def toolkit_both(sample: Sample) -> Any:
    """Make image and mask in one operation."""
    return kernels.extract(sample.with_mask, sample.size)


def toolkit_pack_both(sample: Sample) -> Any:
    """Do it from the bare arrays: the table is built and the voxels copied on the clock."""
    packed = kernels.pack([kernels.Brick(sample.hu, sample.mask, sample.matrix)], sample.size)
    return kernels.extract(packed, sample.size)


def sitk_resample(sample: Sample, image: Any, air: float, pixel_type: int) -> Any:
    """Resample by SimpleITK onto the sample's target; `air` lies outside."""
    import SimpleITK as sitk

    where = (sample.origin_xyz, [sample.spacing_mm] * 3, sample.direction)
    return sitk.Resample(image, [sample.size] * 3, sitk.Transform(), sitk.sitkLinear, *where, air, pixel_type)


def sitk_image(sample: Sample) -> Any:
    """Make the image with sitk.Resample, int16 out."""
    return sitk_resample(sample, sample.sitk_hu, AIR, sample.sitk_hu.GetPixelID())


def sitk_both(sample: Sample) -> Any:
    """Make image and mask with two calls; the mask's 0-255 becomes uint8."""
    return sitk_image(sample), sitk_resample(sample, sample.sitk_mask, 0, sample.sitk_mask.GetPixelID())


def sitk_smoothed(sample: Sample) -> Any:
    """Smooth as far as the target is coarser, by recursive Gaussians along x and y, then resample.

    What SmoothingRecursiveGaussian does, without the pass along z, where these targets are finer.
    """
    import SimpleITK as sitk

    image = sample.sitk_hu
    for axis, source_mm in enumerate(image.GetSpacing()):
        lost = sample.spacing_mm**2 - source_mm**2
        if lost > 0:  # full width at half maximum becomes the target's spacing
            image = sitk.RecursiveGaussian(
                image, sigma=float(np.sqrt(lost / (8 * np.log(2)))), direction=axis
            )
    return sitk_resample(sample, image, AIR, sample.sitk_hu.GetPixelID())


def scipy_affine(sample: Sample) -> Any:
    """Use scipy.ndimage.affine_transform, order 1, int16 out."""
    from scipy import ndimage

    linear, shift = sample.matrix[:, :3], sample.matrix[:, 3]
    shape = (sample.size,) * 3
    return ndimage.affine_transform(sample.hu, linear, shift, shape, order=1, mode="constant", cval=AIR)


def scipy_coordinates() -> Contender:
    """Use scipy.ndimage.map_coordinates, order 1; coordinates are made before the clock starts."""
    from scipy import ndimage

    made: dict[int, Any] = {}

    def run(sample: Sample) -> Any:
        if id(sample) not in made:
            index = np.indices((sample.size,) * 3).reshape(3, -1)
            made[id(sample)] = sample.matrix[:, :3] @ index + sample.matrix[:, 3:]
        values = ndimage.map_coordinates(sample.hu, made[id(sample)], order=1, mode="constant", cval=AIR)
        return values.reshape((sample.size,) * 3)

    return run


def scipy_zoom(sample: Sample) -> Any:
    """Use scipy.ndimage.zoom on the whole brick: another grid, somewhat more voxels; axial only."""
    from scipy import ndimage

    return ndimage.zoom(sample.hu, 1 / np.diag(sample.matrix[:, :3]), order=1)


def unit_grid(brick: Sample | kernels.Brick, size: int, *, align_corners: bool) -> NDArray[np.float32]:
    """Return where the target's voxels lie in the brick, xyz, float32 (1, size, size, size, 3).

    As `grid_sample` counts: -1 and 1 are the centres of the outermost voxels, or the outer edges of these.
    """
    index = np.indices((size,) * 3).reshape(3, -1)
    at = (brick.matrix[:, :3] @ index + brick.matrix[:, 3:]).reshape(3, size, size, size)
    side = np.array(brick.hu.shape)[:, None, None, None]
    scaled = 2 * at / (side - 1) - 1 if align_corners else (2 * at + 1) / side - 1
    return np.ascontiguousarray(scaled[::-1].transpose(1, 2, 3, 0)[None], np.float32)


def torch_grid_sample() -> Contender:
    """Use torch grid_sample, border padding; the grid is made before, int16 to float32 on the clock."""
    import torch

    made: dict[int, Any] = {}

    def run(sample: Sample) -> Any:
        if id(sample) not in made:
            made[id(sample)] = torch.from_numpy(unit_grid(sample, sample.size, align_corners=True))
        volume = torch.from_numpy(sample.hu).to(torch.float32)[None, None]
        grid = made[id(sample)]
        return torch.nn.functional.grid_sample(volume, grid, padding_mode="border", align_corners=True)[0, 0]

    return run


def volresample_grid_sample() -> Contender:
    """Use volresample grid_sample, linear: the one of its functions that crops and turns.

    It takes float32 alone in this mode, so int16 to float32 is on the clock; the grid is made before. A mask
    would be a second call.
    """
    import volresample

    made: dict[int, Any] = {}

    def run(sample: Sample) -> Any:
        if id(sample) not in made:
            made[id(sample)] = unit_grid(sample, sample.size, align_corners=False)
        volume = sample.hu.astype(np.float32)[None, None]
        return volresample.grid_sample(volume, made[id(sample)], mode="linear", padding_mode="border")[0, 0]

    return run


def volresample_brick() -> Contender:
    """Use volresample.resample of the whole brick to as many voxels as the target: another grid.

    It maps a volume edge to edge, so it can neither crop between voxels nor turn; float32 alone.
    """
    import volresample

    def run(sample: Sample) -> Any:
        return volresample.resample(sample.hu.astype(np.float32), (sample.size,) * 3, mode="linear")

    return run


def monai_spacing() -> Contender:
    """Use MONAI Spacing on the whole brick: another grid, somewhat more voxels; no crop after it."""
    import torch
    from monai.data import MetaTensor
    from monai.transforms import Spacing

    def run(sample: Sample) -> Any:
        affine = np.diag([*sample.sitk_hu.GetSpacing()[::-1], 1.0])
        volume = MetaTensor(
            torch.from_numpy(sample.hu).to(torch.float32)[None], affine=torch.from_numpy(affine)
        )
        return Spacing(pixdim=(sample.spacing_mm,) * 3, mode="bilinear")(volume)

    return run

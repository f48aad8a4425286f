"""The same augmentation as others do it; see `benchmarks.peers.augment`."""

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from benchmarks.peers.augment import Run, Work

AIR = -1024.0


def dali(threads: int, name: str) -> "Run":
    """Use a DALI pipeline on the CPU: warp_affine from int16 to float32, then arithmetic."""
    from nvidia.dali import fn, math, pipeline_def, types

    current: list[Work] = []

    def feed() -> Any:
        work = current[0]
        table = work.table
        half = np.full(3, 0.5)
        linear = table.matrix[:, :, :3].astype(np.float64)
        shift = table.matrix[:, :, 3] + half - linear @ half  # voxel centres lie at 0.5
        matrices = np.concatenate([linear[:, ::-1, ::-1], shift[:, ::-1, None]], axis=2).astype(np.float32)
        scale = (1 / table.width_hu).astype(np.float32)
        columns = (scale, -table.low_hu * scale, table.gain, table.bias, table.gamma, table.noise_sigma)
        masks = work.masks[..., None] if name == "mask" else np.zeros((len(table), 1, 1, 1, 1), np.uint8)
        return (list(work.images[..., None]), list(masks), list(matrices), *(list(each) for each in columns))

    @pipeline_def  # type: ignore[untyped-decorator]
    def chain(size: int) -> Any:
        image, mask, matrix, scale, offset, gain, bias, gamma, sigma = fn.external_source(
            feed, num_outputs=9, no_copy=True, layout=["DHWC", "DHWC", "", "", "", "", "", "", ""]
        )
        common = {
            "matrix": matrix,
            "size": [size] * 3,
            "inverse_map": True,
            "interp_type": types.INTERP_LINEAR,
        }
        v = fn.warp_affine(image, dtype=types.FLOAT, fill_value=AIR, **common)
        v = math.clamp(v * scale + offset, 0.0, 1.0)
        if name == "gamma":
            v = math.pow(v, gamma)
        v = v * gain + bias
        if name == "noise":
            v = v + fn.random.normal(v) * sigma
        if name == "mask":
            v = v * (fn.warp_affine(mask, dtype=types.FLOAT, fill_value=0.0, **common) * np.float32(1 / 255))
        return v

    pipe: Any = None

    def run(work: "Work") -> Any:
        nonlocal pipe
        current[:] = [work]
        if pipe is None:
            pipe = chain(
                size=work.table.size, batch_size=len(work.table), num_threads=threads, device_id=None,
                prefetch_queue_depth=1, exec_async=False, exec_pipelined=False,
            )  # fmt: skip
            pipe.build()
        (batch,) = pipe.run()
        return batch.as_array()

    return run


def monai(threads: int, name: str) -> "Run":
    """Use MONAI's Affine and intensity transforms, a sample at a time from a thread pool; no metadata."""
    import torch
    from monai.data import set_track_meta
    from monai.transforms import Affine, Rand3DElastic, RandGaussianNoise, ScaleIntensityRange

    set_track_meta(False)
    pool = ThreadPoolExecutor(threads)

    def one(work: "Work", k: int) -> Any:
        table, side = work.table, work.images.shape[1]
        image = torch.as_tensor(work.images[k]).to(torch.float32)[None]
        if name == "elastic":
            warp = Rand3DElastic(
                (4, 5), (50, 100), prob=1.0, rotate_range=(0.2,) * 3, scale_range=(0.1,) * 3,
                spatial_size=(table.size,) * 3, padding_mode="border", device=image.device,
            )  # fmt: skip
            v = warp(image)
        else:
            linear = table.matrix[k, :, :3].astype(np.float64)
            middle = (table.size - 1) / 2
            affine = np.eye(4)
            affine[:3, :3] = linear
            affine[:3, 3] = linear @ np.full(3, middle) + table.matrix[k, :, 3] - (side - 1) / 2
            warp = Affine(
                affine=affine, spatial_size=(table.size,) * 3, padding_mode="border", image_only=True,
                device=image.device,
            )  # fmt: skip
            v = warp(image)
        low, width = float(table.low_hu[k]), float(table.width_hu[k])
        v = ScaleIntensityRange(low, low + width, 0.0, 1.0, clip=True)(v)
        v = v * float(table.gain[k]) + float(table.bias[k])
        if name == "noise":
            v = RandGaussianNoise(prob=1.0, std=float(table.noise_sigma[k]))(v)
        return v[0]

    def run(work: "Work") -> Any:
        torch.set_num_threads(1)
        return torch.stack(list(pool.map(lambda k: one(work, k), range(len(work.table)))))

    return run


def torchio(threads: int, name: str) -> "Run":
    """Use TorchIO's affine (of the whole crop: it cannot do less), crop and intensities, in threads."""
    import SimpleITK as sitk
    import torch
    import torchio as tio

    pool = ThreadPoolExecutor(threads)

    def one(work: "Work", k: int) -> Any:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
        table = work.table
        image = tio.ScalarImage(tensor=torch.from_numpy(work.images[k]).to(torch.float32)[None])
        chain = [tio.RandomAffine(scales=0.1, degrees=15, translation=3)]
        if name == "elastic":
            chain.append(tio.RandomElasticDeformation(num_control_points=7, max_displacement=3))
        low, width = float(table.low_hu[k]), float(table.width_hu[k])
        chain += [
            tio.CropOrPad(table.size),
            tio.RescaleIntensity((0, 1), in_min_max=(low, low + width)),
        ]
        if name == "noise":
            chain.append(tio.RandomNoise(std=(float(table.noise_sigma[k]),) * 2))
        v = tio.Compose(chain)(image).data
        return v.clamp_(0, 1).mul_(float(table.gain[k])).add_(float(table.bias[k]))[0]

    def run(work: "Work") -> Any:
        torch.set_num_threads(1)
        return torch.stack(list(pool.map(lambda k: one(work, k), range(len(work.table)))))

    return run

"""Run the CUDA kernels of augmentation in the simulator: ``python -m tests.kernels.simulate_augment OUT``.

As `tests.kernels.simulate`: a program of its own, on np.float32 scalars, equal to the CPU to the last bit.
"""

import sys

import numpy as np

from kernels import augment_cuda, rng
from kernels.augment import MODES, grids, output_shape, parameters
from tests.kernels.augment_tables import SIMULATED_SIZE as SIZE
from tests.kernels.augment_tables import Batch, cases

POISON = -7777.0


def _run(batch: Batch, dtype: type[np.generic], space_to_depth: bool = False) -> np.ndarray:
    images, masks, table = batch
    elastic, scale = grids(table)
    shape = output_shape(table, space_to_depth)
    out = np.full(shape, POISON).astype(dtype)
    settings = (scale, MODES.index(table.mask_mode), SIZE, space_to_depth)
    ids, rows = augment_cuda.identifiers(table), parameters(table)
    flat = out.reshape(shape[0], -1)
    augment_cuda.launch(images, masks, ids, rows, elastic, settings, rng.normal_table().copy(), flat)
    return out


def main(path: str) -> None:
    """Write what comes out of each case, and of other layouts, types and launches, to an npz file."""
    augment_cuda.THREADS = 32  # each thread strides over voxels where the grid is short of them
    named = cases(SIZE)
    results = {}
    for name, (images, masks, table) in named.items():
        ready = masks
        if table.edge_voxels:
            ready = np.zeros_like(masks)
            augment_cuda.launch_spread(masks, table.edge_voxels, ready)
            results[f"{name}/spread"] = ready
        results[name] = _run((images, ready, table), np.float32)
    results["everything/bfloat16"] = _run(named["soft"], np.uint16)
    results["everything/halved"] = _run(named["channel"], np.float32, True)
    augment_cuda.MAX_GRID_Y = 1  # two samples in two launches
    results["everything/chunks"] = _run(named["soft"], np.float32)
    np.savez(path, **results)


if __name__ == "__main__":
    main(sys.argv[1])

"""Run the CUDA kernel of every named case in Numba's simulator: ``python -m tests.kernels.simulate OUT``.

A program of its own, because NUMBA_ENABLE_CUDASIM must be set before Numba is imported. With
NUMBA_DISABLE_JIT the shared arithmetic, too, is run by the interpreter, on np.float32 scalars (NumPy 2
keeps them float32), so the results must equal the compiled CPU kernels to the last bit.
"""

import sys
from collections.abc import Callable, Sequence

import numpy as np

from kernels import Brick, cuda, pack
from tests.kernels.batches import SIMULATED_SIZE as SIZE
from tests.kernels.batches import cases
from tests.kernels.check import POISON_HU, POISON_OCCUPANCY

MAX_THREADS = 4096  # 0.7 s of the simulator's time, before any arithmetic


def _run(bricks: list[Brick], launch: Callable[..., None]) -> tuple[np.ndarray, np.ndarray]:
    shape = (len(bricks), SIZE, SIZE, SIZE)
    image = np.full(shape, POISON_HU, np.int16)
    occupancy = np.full(shape, POISON_OCCUPANCY, np.uint8)
    launch(pack(bricks, SIZE).table, image, occupancy)
    return image, occupancy


def _few_threads(table: Sequence[np.ndarray], image: np.ndarray, occupancy: np.ndarray) -> None:
    """Launch one block of 32 threads a brick, so that each thread strides over several voxels."""
    cuda.extract_kernel[(1, len(image)), 32](*table, image, occupancy)


def main(path: str) -> None:
    """Write image and occupancy of each case to an npz file, and the ragged one by other launches."""
    named = cases(SIZE)
    threads = -(-(SIZE**3) // cuda.THREADS) * cuda.THREADS
    ragged = named["ragged"]
    total = (sum(map(len, named.values())) + len(ragged)) * threads + 32 * len(ragged)
    assert total <= MAX_THREADS, f"{total} threads are too many for the simulator"
    results = {name: _run(batch, cuda.launch) for name, batch in named.items()}
    results["ragged/few_threads"] = _run(ragged, _few_threads)
    cuda.MAX_GRID_Y = 2  # five bricks in three launches
    results["ragged/chunks"] = _run(ragged, cuda.launch)
    images, occupancies = ({f"{name}:{i}": pair[i] for name, pair in results.items()} for i in range(2))
    np.savez(path, **images, **occupancies)


if __name__ == "__main__":
    main(sys.argv[1])

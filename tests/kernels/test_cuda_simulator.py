"""Without a GPU: the CUDA kernel, run thread by thread in Numba's simulator, equals the CPU kernels."""

import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from kernels import extract, pack
from tests.kernels.batches import CASES, cases
from tests.kernels.batches import SIMULATED_SIZE as SIZE
from tests.kernels.check import POISON_HU

pytestmark = pytest.mark.skipif(find_spec("numba_cuda") is None, reason="numba-cuda is not installed")


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, np.ndarray]:
    path = tmp_path_factory.mktemp("simulator") / "results.npz"
    subprocess.run(
        [sys.executable, "-m", "tests.kernels.simulate", str(path)],
        check=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"},
    )
    with np.load(path) as results:
        return dict(results)


@pytest.mark.parametrize("name", [*CASES, "ragged/chunks", "ragged/few_threads"])
def test_simulated_kernel_equals_cpu(simulated, name):
    """Bit for bit: the same float32 operations in the same order, contracted by neither."""
    image, occupancy = extract(pack(cases(SIZE)[name.split("/")[0]], SIZE), SIZE)
    assert not np.any(simulated[f"{name}:0"] == POISON_HU), "voxels were not written"
    np.testing.assert_array_equal(simulated[f"{name}:0"], image)
    np.testing.assert_array_equal(simulated[f"{name}:1"], occupancy)

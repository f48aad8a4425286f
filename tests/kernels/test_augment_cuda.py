"""Augmentation on CUDA without a GPU (simulator, PTX), and on one."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from kernels.augment import augment, spread
from tests.kernels.augment_tables import CASES, SIZES, cases
from tests.kernels.augment_tables import SIMULATED_SIZE as SIZE
from tests.kernels.test_augment import assert_equals_oracle
from tests.kernels.test_cuda_ptx import _ptxas, compile_ptx, instructions  # noqa: F401

needs_numba_cuda = pytest.mark.skipif(find_spec("numba_cuda") is None, reason="numba-cuda is not installed")


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, np.ndarray]:
    path = tmp_path_factory.mktemp("simulator") / "results.npz"
    subprocess.run(
        [sys.executable, "-m", "tests.kernels.simulate_augment", str(path)],
        check=True,
        timeout=300,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"},
    )
    with np.load(path) as results:
        return dict(results)


@needs_numba_cuda
@pytest.mark.parametrize("name", CASES)
def test_simulated_kernel_equals_cpu(simulated, name):
    """Bit for bit: the same float32 operations in the same order, contracted by neither."""
    np.testing.assert_array_equal(
        simulated[name].view(np.uint32), augment(*cases(SIZE)[name]).view(np.uint32)
    )


@needs_numba_cuda
def test_simulated_layouts_types_and_launches_equal_cpu(simulated):
    soft, channel = cases(SIZE)["soft"], cases(SIZE)["channel"]
    np.testing.assert_array_equal(simulated["everything/bfloat16"], augment(*soft, dtype="bfloat16"))
    np.testing.assert_array_equal(simulated["everything/halved"], augment(*channel, space_to_depth=True))
    np.testing.assert_array_equal(simulated["everything/chunks"], augment(*soft))


@needs_numba_cuda
@pytest.mark.parametrize("name", ["edge", "everything"])
def test_simulated_spread_equals_cpu(simulated, name):
    _, masks, rows = cases(SIZE)[name]
    for got, mask in zip(simulated[f"{name}/spread"], masks, strict=True):
        np.testing.assert_array_equal(got, spread(mask, rows.edge_voxels))


@pytest.fixture(scope="module", params=["float32", "float16", "bfloat16", "spread"])
def ptx(request, compile_ptx):  # noqa: F811
    from numba import boolean, float32, int16, int32, int64, uint8, uint16
    from numba.cuda.types import float16

    from kernels import augment_cuda

    crops = (int16[:, :, :, ::1], uint8[:, :, :, ::1])
    rows = (int64[:, ::1], float32[:, ::1], float32[:, :, :, :, ::1], float32, int32, float32[::1])
    batch = (*crops, *rows, int32, boolean)
    if request.param == "spread":
        mask = uint8[:, :, :, ::1]
        return compile_ptx(augment_cuda.spread_kernel.py_func, mask, int32, float32, float32, mask)
    if request.param == "bfloat16":
        return compile_ptx(augment_cuda.augment_kernel_bfloat16.py_func, *batch, uint16[:, ::1])
    out = {"float32": float32, "float16": float16}[request.param]
    return compile_ptx(augment_cuda.augment_kernel.py_func, *batch, out[:, ::1])


def test_augmentation_holds_no_float64_and_no_approximation(ptx):
    assert ".target sm_90" in ptx
    single = instructions(ptx, "f32")
    assert any(line.startswith("div.rn.f32") for line in single)
    assert not any(".approx" in line or ".full" in line or ".ftz" in line for line in single)
    assert instructions(ptx, "f64") == []


def test_nothing_lies_in_local_memory(ptx, tmp_path):
    assert not re.findall(r"\.local .*__local_depot", ptx)
    assembler = _ptxas()
    if assembler is None:
        pytest.skip("no ptxas (the wheel nvidia-cuda-nvcc-cu12 has one)")
    (tmp_path / "kernel.ptx").write_text(ptx)
    command = [assembler, "-arch=sm_90", "-v", "kernel.ptx", "-o", "kernel.cubin"]
    talk = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stderr
    assert "0 bytes spill stores, 0 bytes spill loads" in talk
    registers = re.search(r"Used (\d+) registers", talk)
    assert registers, talk
    assert int(registers[1]) <= 128  # 106 when written; at 128, sm_90 holds 512 threads


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Grid size:numba.core.errors.NumbaPerformanceWarning")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CASES)
def test_gpu_equals_oracle(cupy, name, size):
    images, masks, rows = cases(size)[name]
    values = augment(cupy.asarray(images), cupy.asarray(masks), rows)
    assert_equals_oracle((images, masks, rows), cupy.asnumpy(values))


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Grid size:numba.core.errors.NumbaPerformanceWarning")
def test_gpu_identity_is_a_copy_and_noise_has_the_same_bits(cupy):
    images, masks, rows = cases(5)["identity"]
    rows = replace(rows, gain=np.zeros(2, np.float32), noise_sigma=np.ones(2, np.float32))
    for each in (cases(5)["identity"][2], rows):
        values = cupy.asnumpy(augment(cupy.asarray(images), cupy.asarray(masks), each))
        np.testing.assert_array_equal(values, augment(images, masks, each))

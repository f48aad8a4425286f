"""On a real GPU: the CUDA kernel equals the oracle and, but for rounding, the CPU kernels."""

import numpy as np
import pytest
from hypothesis import given, settings

from kernels import Brick, extract, pack
from kernels.bricks import to_device
from tests import tolerances
from tests.kernels.batches import CASES, SIZES, batches, cases
from tests.kernels.check import POISON_HU, POISON_OCCUPANCY, assert_equals_oracle

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:Grid size:numba.core.errors.NumbaPerformanceWarning"),
]


def on_gpu(cupy, packed, size):
    return tuple(cupy.asnumpy(array) for array in extract(to_device(packed), size))


def assert_equals_cpu(packed, size, image, occupancy):
    """Two results that each lie within e of the truth lie within 2 e; rounding adds one."""
    cpu_image, cpu_occupancy = extract(packed, size)
    for b in range(len(packed.offset)):
        ok = ~tolerances.undecided(packed, b, size)
        errors = tolerances.extraction(packed, b, size)
        for gpu, cpu, error in zip((image, occupancy), (cpu_image, cpu_occupancy), errors, strict=True):
            difference = np.abs(gpu[b].astype(int) - cpu[b]).ravel()
            assert np.all(difference[ok] <= 1 + np.floor(2 * error[ok]))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CASES)
def test_named_cases(cupy, name, size):
    packed = pack(cases(size)[name], size)
    image, occupancy = on_gpu(cupy, packed, size)
    assert_equals_oracle(packed, size, image, occupancy)
    assert_equals_cpu(packed, size, image, occupancy)


@given(batch=batches())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_batch(cupy, batch):
    bricks, size = batch
    packed = pack(bricks, size)
    image, occupancy = on_gpu(cupy, packed, size)
    assert_equals_oracle(packed, size, image, occupancy)
    assert_equals_cpu(packed, size, image, occupancy)


def test_identity_is_a_copy(cupy):
    hu = np.random.default_rng(0).integers(-1024, 3072, (32, 32, 32), np.int16)
    packed = pack([Brick(hu, (hu > 0).astype(np.uint8), np.eye(3, 4))], 32)
    image, occupancy = on_gpu(cupy, packed, 32)
    np.testing.assert_array_equal(image[0], hu)
    np.testing.assert_array_equal(occupancy[0], 255 * (hu > 0))


def test_every_voxel_is_written(cupy):
    from kernels import cuda

    packed = pack(cases(13)["ragged"], 13)
    shape = (len(packed.offset), 13, 13, 13)
    image, occupancy = cupy.full(shape, POISON_HU, cupy.int16), cupy.full(shape, POISON_OCCUPANCY, cupy.uint8)
    cuda.launch(to_device(packed).table, image, occupancy, cupy.cuda.get_current_stream().ptr)
    expected = on_gpu(cupy, packed, 13)
    np.testing.assert_array_equal(cupy.asnumpy(image), expected[0])
    np.testing.assert_array_equal(cupy.asnumpy(occupancy), expected[1])
    assert not np.any(expected[0] == POISON_HU)


def test_on_a_stream_of_its_own(cupy):
    packed = pack(cases(13)["ragged"], 13)
    expected = on_gpu(cupy, packed, 13)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        image, occupancy = extract(to_device(packed), 13)
        stream.synchronize()
    np.testing.assert_array_equal(cupy.asnumpy(image), expected[0])
    np.testing.assert_array_equal(cupy.asnumpy(occupancy), expected[1])


def test_more_bricks_than_one_grid_holds(cupy):
    """CUDA allows 65,535 blocks in y; brick k here is one voxel of k HU."""
    count = 70_000
    hu = np.arange(count, dtype=np.int64) % 3000
    packed = pack([Brick(np.full((1, 1, 1), v, np.int16), None, np.eye(3, 4)) for v in hu], 1)
    image, occupancy = on_gpu(cupy, packed, 1)
    np.testing.assert_array_equal(image.ravel(), hu)
    assert not occupancy.any()


def test_no_bricks(cupy):
    image, occupancy = extract(to_device(pack([], 5)), 5)
    assert image.shape == occupancy.shape == (0, 5, 5, 5)
    assert isinstance(image, cupy.ndarray)

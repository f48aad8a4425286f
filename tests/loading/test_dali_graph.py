"""The table as a DALI pipeline: what every row means, against float64 (SciPy) and the fused kernel."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from kernels.augment import augment
from tests.loading.dali_cases import AIR, OPERATIONS, crops, exact, normals, plain, with_operation
from toolkit.errors import UsageError
from toolkit.loading.dali import warp_rows
from toolkit.loading.dali_graph import Chain, build, chain_of, dali_matrix, inputs

MODES = ("none", "hard", "soft", "channel")
COUNT = 3


def test_a_missing_dali_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(UsageError, match=r"E-LOAD-021 DALI is not installed.*extra cu12 or cu13"):
        build(Chain(4), dict, batch=1, threads=1, device_id=None, depth=1)


@pytest.fixture(autouse=True)
def _dali(request: pytest.FixtureRequest) -> None:
    if "missing" not in request.node.name:
        pytest.importorskip("nvidia.dali", reason="DALI is not installed")


def run(chain: Chain, fed: dict, threads: int = 2) -> np.ndarray:
    count = len(fed["gain"])
    pipeline = build(chain, lambda: fed, batch=count, threads=threads, device_id=None, depth=1)
    return np.array(pipeline.run()[0].as_tensor())


def assert_right(actual: np.ndarray, table, images, masks, further: float = 0.0) -> None:
    value, error, undecided = exact(table, images, masks)
    assert actual.shape == value.shape
    wrong = (np.abs(actual - value) > error + further * np.abs(value)) & ~undecided[..., None]
    assert not wrong.any(), f"{wrong.sum()} voxels, worst {np.abs(actual - value)[wrong].max()}"
    assert undecided.mean() < 0.01


@pytest.mark.parametrize(("size", "side"), [(1, 4), (7, 5), (16, 20), (13, 23)])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_operation_alone_and_all_together(operation: str, size: int, side: int) -> None:
    table = with_operation(plain(COUNT, size, side, seed=size), operation, seed=side)
    images, _ = crops(COUNT, side)
    assert_right(warp_rows(table, images, []), table, images, [])


@pytest.mark.parametrize("operation", ["warp", "all"])
@pytest.mark.parametrize("mode", MODES)
def test_mask_modes(mode: str, operation: str) -> None:
    table = replace(with_operation(plain(COUNT, 15, 21), operation), mask_mode=mode)
    images, masks = crops(COUNT, 21)
    assert_right(warp_rows(table, images, masks), table, images, masks)


@pytest.mark.parametrize("mode", MODES)
def test_equals_the_fused_kernel_with_its_noise(mode: str) -> None:
    table = replace(with_operation(plain(COUNT, 33, 41), "all"), mask_mode=mode)
    images, masks = crops(COUNT, 41)
    _, error, undecided = exact(table, images, masks)
    apart = np.abs(warp_rows(table, images, masks) - augment(images, masks, table))
    assert (apart <= 2 * error)[~undecided].all()  # each may be off by the bound of the looser


def shift(table, zyx: tuple[float, float, float]):
    matrix = np.tile(np.eye(3, 4, dtype=np.float32), (len(table), 1, 1))
    matrix[:, :, 3] = zyx
    return replace(table, matrix=matrix)


@pytest.mark.parametrize("zyx", [(0, 0, 0), (2, 3, 1), (-2, 0, 4), (0, 7, -3), (90, 0, 0), (0, -50, 0)])
def test_the_identity_copies_every_bit_and_is_air_outside(zyx: tuple[int, int, int]) -> None:
    size, side = 8, 11
    images, _ = crops(COUNT, side)
    table = shift(plain(COUNT, size, side), zyx)
    far = 100
    padded = np.pad(np.stack(images), [(0, 0)] + [(far, far)] * 3, constant_values=int(AIR))
    z, y, x = (far + start for start in zyx)
    expected = padded[:, z : z + size, y : y + size, x : x + size]
    np.testing.assert_array_equal(warp_rows(table, images, [])[..., 0], expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("start", [-0.5, -0.25, 5.5, 5.875])
def test_a_neighbour_outside_counts_as_air(axis: int, start: float) -> None:
    """Analytic: between a crop of 0 HU and air, the value is linear in the distance."""
    table = shift(plain(1, 1, 6), tuple(np.where(np.arange(3) == axis, start, 2.0)))
    beyond = max(-start, start - 5)
    value = warp_rows(table, [np.zeros((6, 6, 6), np.int16)], [])
    assert value.ravel().tolist() == [AIR * beyond]


def test_a_row_without_a_window_keeps_every_bit_among_rows_with_one() -> None:
    images, _ = crops(COUNT, 9)
    table = with_operation(shift(plain(COUNT, 5, 9), (2, 2, 2)), "all")
    assert chain_of(table) == Chain(5, "none", window=True, gamma=True, noise=True)
    np.testing.assert_array_equal(warp_rows(table, images, [])[-1, ..., 0], images[-1][2:7, 2:7, 2:7])


@pytest.mark.parametrize("size", [1, 5, 8])
def test_noise_has_the_bits_of_the_fused_kernel(size: int) -> None:
    table = plain(COUNT, size, 9)
    table = replace(table, gain=table.bias, noise_sigma=table.gamma, noise_key=table.noise_key | 2**63)
    images, _ = crops(COUNT, 9)
    expected = np.stack([normals(key, size) for key in table.noise_key])
    np.testing.assert_array_equal(warp_rows(table, images, [])[..., 0], expected)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    table = replace(with_operation(plain(5, 24, 30), "all"), mask_mode="channel")
    fed = inputs(chain_of(table), table, *crops(5, 30))
    np.testing.assert_array_equal(run(chain_of(table), fed, threads=1), run(chain_of(table), fed, threads=4))


@pytest.mark.parametrize("mode", ["soft", "channel"])
def test_space_to_depth_moves_cells_into_channels(mode: str) -> None:
    table = replace(with_operation(plain(2, 6, 9), "all"), mask_mode=mode)
    images, masks = crops(2, 9)
    chain = replace(chain_of(table), space_to_depth=True)
    cells = run(chain, inputs(chain, table, images, masks))
    patch = warp_rows(table, images, masks)
    expected = [patch[:, z::2, y::2, x::2] for z in (0, 1) for y in (0, 1) for x in (0, 1)]
    np.testing.assert_array_equal(cells, np.concatenate(expected, axis=-1))
    with pytest.raises(ValueError, match="`size` must be even"):
        inputs(replace(chain, size=5), replace(table, size=5), images, masks)


def test_half_precision_is_the_rounded_float32() -> None:
    table = with_operation(plain(2, 12, 15), "all")
    images, _ = crops(2, 15)
    chain = replace(chain_of(table), half=True)
    patch = run(chain, inputs(chain, table, images, []))
    assert patch.dtype == np.float16
    np.testing.assert_array_equal(patch, warp_rows(table, images, []).astype(np.float16))


def test_crops_are_not_copied_on_the_way_in() -> None:
    images, masks = crops(2, 6)
    table = replace(plain(2, 4, 6), mask_mode="soft")
    fed = inputs(chain_of(table), table, images, masks)
    assert all(np.shares_memory(a, b) for a, b in zip(fed["image"], images, strict=True))
    assert all(np.shares_memory(a, b) for a, b in zip(fed["mask"], masks, strict=True))


def test_the_matrix_is_turned_to_xyz_and_half_voxel_centres() -> None:
    matrix = np.array([[[1, 2, 3, 10], [4, 5, 6, 20], [7, 8, 9, 30]]], np.float32)
    point = np.array([0.0, 1.0, 5.0])  # zyx
    turned = dali_matrix(matrix)[0]
    read = turned[:, :3] @ (point[::-1] + 0.5) + turned[:, 3] - 0.5
    assert read[::-1].tolist() == (matrix[0, :, :3] @ point + matrix[0, :, 3]).tolist()


def test_what_dali_lacks_is_refused_by_the_fields_name() -> None:
    images, masks = crops(2, 6)
    table = plain(2, 4, 6)
    grid = np.full((2, 3, 4, 4, 4), 0.5, np.float32)
    with pytest.raises(UsageError, match=r"E-LOAD-022.*elastic 0.5.*fused loader"):
        warp_rows(replace(table, elastic=grid), images, masks)
    with pytest.raises(UsageError, match=r"E-LOAD-022.*edge_voxels 1, 0 expected"):
        warp_rows(replace(table, mask_mode="soft", edge_voxels=1.0), images, masks)


@pytest.mark.parametrize("operation", ["window", "gamma", "noise"])
def test_a_row_that_needs_more_than_the_chain_has_is_refused(operation: str) -> None:
    images, _ = crops(COUNT, 6)
    table = with_operation(plain(COUNT, 4, 6), operation)
    chain = replace(chain_of(table), **{operation: False})
    with pytest.raises(ValueError, match=f"a row has {operation}"):
        inputs(chain, table, images, [])
    with pytest.raises(ValueError, match="`size` must be 5, got 4"):
        inputs(replace(chain, size=5), table, images, [])

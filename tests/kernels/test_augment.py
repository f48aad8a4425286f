"""Augmentation on the CPU: the oracle, the definition, the identity, the layouts, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import augment_arith, rng
from kernels import oracle_augment as oracle
from kernels.augment import Rows, augment, spread
from tests import tolerances_augment as tolerances
from tests.kernels.augment_tables import CASES, SIZES, Batch, cases, crops, matrix, table

POISON = -7777.0
MOST_UNDECIDED = 0.02


def assert_equals_oracle(batch: Batch, values: np.ndarray) -> None:
    """Compare every voxel of a batch (b, d, h, w, c) with float64 mathematics, to the derived tolerance."""
    images, masks, rows = batch
    if rows.edge_voxels:  # the spread masks have a test of their own
        masks = np.stack([spread(mask, rows.edge_voxels) for mask in masks])
    exact, share = oracle.augment(images, masks, rows)
    soft = oracle.augment(images, masks, replace(rows, mask_mode="channel"))[1]
    for k in range(len(rows)):
        error, share_error = tolerances.augmented(images[k], rows, k)
        ok = np.ones(error.shape, bool)
        if rows.mask_mode == "hard":
            ok = ~tolerances.undecided(soft[k], share_error)
            assert np.mean(~ok) <= MOST_UNDECIDED
        far = np.abs(values[k, ..., 0] - exact[k]) > error
        assert not np.any(far & ok), (
            k,
            np.argwhere(far & ok)[:5],
            np.abs(values[k, ..., 0] - exact[k]).max(),
        )
        if rows.channels == 2:
            assert np.all(np.abs(values[k, ..., 1] - share[k]) <= share_error)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CASES)
def test_named_cases_equal_oracle(name, size):
    batch = cases(size)[name]
    assert_equals_oracle(batch, augment(*batch))


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Draw a batch of one row: any affine near the crop, any columns, any mask mode."""
    size, some = draw(st.sampled_from(SIZES)), st.floats(-1, 1, width=32)
    shift = [draw(some) * 7 for _ in range(3)]
    m = matrix(size, draw(some) * 180, [1 + 0.6 * draw(some) for _ in range(3)], shift, draw(some) * 0.4)
    columns = {"gain": 1 + draw(some), "bias": draw(some), "noise_sigma": draw(st.sampled_from([0, 0.1]))}
    if draw(st.booleans()):
        columns |= {"low_hu": 500 * draw(some), "width_hu": 900 + 800 * draw(some), "gamma": 2 ** draw(some)}
    seed = draw(st.integers(0, 2**32 - 1))
    grid = None
    if draw(st.booleans()):
        points = draw(st.integers(4, 7))
        grid = np.random.default_rng(seed).normal(0, 2, (1, 3, points, points, points)).astype(np.float32)
    mode = draw(st.sampled_from(["none", "soft", "channel"]))
    edge = draw(st.sampled_from([0.0, 0.3, 2.0]))
    return *crops(1, seed), table([m], size, elastic=grid, mask_mode=mode, edge_voxels=edge, **columns)


@given(batches())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_batch_equals_oracle_and_definition(batch):
    values = augment(*batch)
    assert_equals_oracle(batch, values)
    np.testing.assert_array_equal(bits(values), bits(by_definition(batch, "float32")))


def by_definition(batch: Batch, dtype: str, space_to_depth: bool = False) -> np.ndarray:
    images, masks, each = batch
    rows = Rows(each, dtype, space_to_depth)
    out = (
        np.full(rows.shape, POISON, rows.array_type) if dtype == "float32" else np.ones(rows.shape, np.uint16)
    )
    for k in range(len(rows)):
        rows.fill(k, images[k], masks[k], out[k], definition=True)
    return out


def bits(values: np.ndarray) -> np.ndarray:
    return values.view(np.uint32) if values.dtype == np.float32 else values


@pytest.mark.parametrize("space_to_depth", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CASES)
def test_fast_path_equals_definition(name, dtype, space_to_depth):
    """To the last bit, in every layout, and every voxel is written."""
    for size in (2, 8, 14) if space_to_depth else SIZES:
        batch = cases(size)[name]
        rows = Rows(batch[2], dtype, space_to_depth)
        out = np.full(rows.shape, POISON).astype(rows.array_type)
        augment(*batch, out=out, dtype=dtype, space_to_depth=space_to_depth)
        np.testing.assert_array_equal(bits(out), bits(by_definition(batch, dtype, space_to_depth)))


def test_identity_is_a_copy():
    images, masks = crops(2)
    whole = table([np.eye(3, 4), np.column_stack([np.eye(3), [2, 0, 4]])], 7)
    for mode in ("none", "channel"):
        values = augment(images, masks, replace(whole, mask_mode=mode))
        np.testing.assert_array_equal(values[0, ..., 0], images[0, :7, :7, :7])
        np.testing.assert_array_equal(values[1, ..., 0], images[1, 2:9, :7, 4:11])
    np.testing.assert_array_equal(values[1, ..., 1], masks[1, 2:9, :7, 4:11] / np.float32(255))


def test_a_patch_that_leaves_the_crop_sees_air():
    images, masks = crops(1)
    values = augment(images, masks, table([np.column_stack([np.eye(3), [-2, 0, 0]])], 7, mask_mode="channel"))
    assert np.all(values[0, :2, ..., 0] == -1024)
    assert not values[0, :2, ..., 1].any()
    np.testing.assert_array_equal(values[0, 2:, ..., 0], images[0, :5, :7, :7])


def test_space_to_depth_is_a_permutation():
    batch = cases(8)["everything_channel"]
    plain, packed = augment(*batch), augment(*batch, space_to_depth=True)
    cells = plain.reshape(2, 4, 2, 4, 2, 4, 2, 2).transpose(
        0, 1, 3, 5, 2, 4, 6, 7
    )  # (b, z, y, x, dz, dy, dx, c)
    np.testing.assert_array_equal(packed, cells.reshape(2, 4, 4, 4, 16))


def test_bfloat16_is_rounded_as_torch_does():
    batch = cases(13)["everything"]
    expected = torch.from_numpy(augment(*batch)).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(augment(*batch, dtype="bfloat16"), expected)


def test_a_row_does_not_depend_on_its_batch_and_a_resident_array_is_picked_from():
    images, masks, both = cases(8)["everything"]
    together = augment(list(images), list(masks), both)
    swapped = replace(both, index=np.array([1, 0]))
    picked = augment(images[::-1].copy(), masks[::-1].copy(), swapped)
    np.testing.assert_array_equal(together, picked)


def test_read_only_memory_maps_are_read_in_place(tmp_path):
    images, masks, rows = cases(8)["everything"]
    np.save(tmp_path / "i.npy", images)
    np.save(tmp_path / "m.npy", masks)
    mapped = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "im")
    np.testing.assert_array_equal(augment(*mapped, rows), augment(images, masks, rows))


@pytest.mark.parametrize("edge", [0.2, 1.0, 2.7])
def test_spread_masks_equal_a_convolution(edge):
    """Rounded with halves upwards, but for what rounding decides (a sum of under 400 float32 products)."""
    for mask in crops(3)[1]:
        exact = oracle.spread(mask, edge)
        error = 255 * 60 * tolerances.U
        got = spread(mask, edge)
        assert np.all((got >= np.floor(exact - error + 0.5)) & (got <= np.floor(exact + error + 0.5)))
    one = np.zeros((9, 9, 9), np.uint8)
    one[4, 4, 4] = 255
    total = float(spread(one, 1.0).sum())
    assert total == pytest.approx(255, abs=0.5 * 27)  # nothing is lost but by rounding of 27 voxels


def test_spread_equals_its_definition():
    for mask in crops(2)[1]:
        half_width = np.float32(2.7)
        total = np.float32(augment_arith.tent_total(2, half_width))
        each = [
            augment_arith.spread_voxel(mask, *zyx, 2, half_width, total) for zyx in np.ndindex(mask.shape)
        ]
        np.testing.assert_array_equal(spread(mask, 1.7), np.reshape(each, mask.shape))
    assert not spread(np.zeros((3, 4, 5), np.uint8), 1.7).any()


def test_philox_gives_the_published_words():
    """Random123's known answers for philox4x32-10."""
    words = (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    assert rng.philox(np.uint32(0), np.uint64(0)) == words
    every = oracle._halves(0xFFFFFFFF, 0x0123456789ABCDEF)
    got = rng.philox(np.uint32(0xFFFFFFFF), np.uint64(0x0123456789ABCDEF))
    assert [half for word in got for half in (word & 0xFFFF, word >> 16)] == every


def test_normals_are_normal():
    normals = rng.normal_table()
    assert normals.dtype == np.float32
    np.testing.assert_array_equal(normals, -normals[::-1])
    assert np.std(normals, dtype=np.float64) == pytest.approx(1, abs=1e-7)
    assert 4.3 < normals.max() < tolerances.LARGEST_NORMAL
    columns = {"noise_sigma": 1.0, "gain": 0.0}
    noise = augment(*crops(2), table([np.eye(3, 4)] * 2, 48, **columns))
    count = noise[0].size
    assert abs(noise[0].mean()) < 5 / count**0.5
    assert abs(noise[0].var() - 1) < 5 * (2 / count) ** 0.5
    for other in (noise[1], np.roll(noise[0], 1, 0), np.roll(noise[0], 1, 1), np.roll(noise[0], 1, 2)):
        assert abs(np.mean(noise[0] * other)) < 5 / count**0.5


@pytest.mark.parametrize("gamma", [0.1, 0.7, 1.0, 2.2, 10.0])
def test_power_equals_float64(gamma):
    v = np.concatenate([np.linspace(0, 1, 2001), 2.0 ** -np.linspace(0, 126, 500)]).astype(np.float32)
    got = np.array([augment_arith.power(x, np.float32(gamma)) for x in v])
    exact = v.astype(np.float64) ** float(np.float32(gamma))
    assert np.abs(got - exact).max() <= tolerances.U * (7.3 + 2.1 * gamma)
    assert got[0] == 0
    assert got[2000] == 1


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("size", {"size": 0}),
        ("size", {"size": 1025}),
        ("mask_mode", {"mask_mode": "neither"}),
        ("edge_voxels", {"edge_voxels": -1.0}),
        ("edge_voxels", {"edge_voxels": 16.0}),
        ("matrix", {"matrix": np.zeros((2, 3, 3), np.float32)}),
        ("matrix", {"matrix": np.full((2, 3, 4), np.nan, np.float32)}),
        ("gain", {"gain": np.ones(2)}),
        ("bias", {"bias": np.zeros(3, np.float32)}),
        ("noise_sigma", {"noise_sigma": np.float32([0, -1])}),
        ("width_hu", {"width_hu": np.float32([0, -1])}),
        ("gamma", {"gamma": np.float32([1, 2])}),
        ("gamma", {"gamma": np.float32([1, 0])}),
        ("noise_key", {"noise_key": np.zeros(2, np.int64)}),
        ("elastic", {"elastic": np.zeros((2, 3, 3, 3, 3), np.float32)}),
    ],
)
def test_a_broken_table_is_refused_with_the_fields_name(field, change):
    images, masks, rows = cases(8)["rotation"]
    with pytest.raises(ValueError, match=f"`{field}`"):
        augment(images, masks, replace(rows, **change))


def test_broken_crops_are_refused():
    images, masks, rows = cases(8)["soft"]
    with pytest.raises(ValueError, match="`images`"):
        augment(images.astype(np.float32), masks, rows)
    with pytest.raises(ValueError, match="`images`"):
        augment(list(images)[:1], masks, rows)
    with pytest.raises(ValueError, match="`images`"):
        augment(images[:, :, ::-1], masks, rows)
    with pytest.raises(ValueError, match="`masks`"):
        augment(images, masks[:, :5], rows)
    with pytest.raises(ValueError, match="`size`"):
        augment(*cases(5)["soft"], space_to_depth=True)
    with pytest.raises(ValueError, match="`dtype`"):
        augment(images, masks, rows, dtype="float16")
    with pytest.raises(ValueError, match="`out`"):
        augment(images, masks, rows, out=np.zeros((2, 8, 8, 8), np.float32))

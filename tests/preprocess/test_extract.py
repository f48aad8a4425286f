"""One case: the box that is read is enough, and both ways to the crop are one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
from tests.preprocess.archives import grid, scan, turn
from toolkit.archive.case import Case, Finding
from toolkit.archive.geometry import Box, Geometry
from toolkit.preprocess.extract import (
    Task,
    extract_case,
    finish,
    read_bricks,
    source_box,
    target_grid,
    target_to_source,
)
from toolkit.preprocess.plan import Settings


@dataclass(frozen=True, eq=False)
class InMemory:
    """A source that remembers which boxes were asked for."""

    geometry: Geometry
    hu: np.ndarray

    def read_boxes(self, boxes: Sequence[Box], tally: object = None) -> list[np.ndarray]:
        return [self.hu[box.slices].copy() for box in boxes]


def uneven(shape: tuple[int, int, int], rng: np.random.Generator) -> tuple[float, ...]:
    return tuple(np.concatenate([[0.0], np.cumsum(rng.uniform(0.5, 1.8, shape[0] - 1))]))


@settings(max_examples=60, deadline=None)
@given(
    spacing=st.tuples(*[st.floats(0.5, 2.5)] * 3),
    target_mm=st.floats(0.5, 3.0),
    degrees=st.floats(-60, 60),
    shear=st.floats(-0.3, 0.3),
    offset=st.tuples(*[st.floats(-14, 14)] * 3),
    seed=st.integers(0, 99),
    is_uneven=st.booleans(),
)
def test_the_box_is_enough(spacing, target_mm, degrees, shear, offset, seed, is_uneven) -> None:
    rng = np.random.default_rng(seed)
    shape = (17, 19, 21)
    geometry = grid(shape, spacing, rotation=turn(degrees, rng.normal(size=3)), shear_zy=shear)
    if is_uneven:
        geometry = Geometry(shape, geometry.affine, uneven(shape, rng))
    hu = rng.integers(-1024, 3071, shape).astype(np.int16)
    side = 7
    center = np.array([10.0, -20.0, 30.0]) + offset
    finding = Finding("1", tuple(center), 5.0, "none")
    crops = Settings(spacing_mm=target_mm, size=side, margin=0)
    (brick,), _, _ = read_bricks(InMemory(geometry, hu), [finding], crops)
    matrix = target_to_source(target_grid(center, target_mm, side), geometry)
    positions = None if geometry.slice_positions is None else np.array(geometry.slice_positions)
    whole = kernels.Brick(hu, None, matrix, positions)
    part, _ = kernels.extract(kernels.pack([brick], side), side)
    full, _ = kernels.extract(kernels.pack([whole], side), side)
    # The two differ by rounding of float32 positions alone: at most some 1e-5 voxels times 4095 HU a
    # voxel, and half a HU of rounding. Where the grid ends within that, air may replace a value.
    difference = np.abs(part.astype(int) - full)
    target = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1)
    index = target @ matrix[:, :3].T + matrix[:, 3]
    last = np.array(shape, float) - 1
    knots = np.empty(0) if positions is None else positions
    if positions is not None:
        last[0] = positions[-1]
    unsure = np.any(np.minimum(np.abs(index + 0.5), np.abs(index - last - 0.5)) < 1e-3, axis=-1)
    unsure |= np.any(np.abs(index[..., :1] - knots) < 1e-3, axis=-1)
    assert difference[0][~unsure].max(initial=0) <= 1


def test_the_box_is_not_the_whole_scan() -> None:
    geometry = grid((100, 400, 400), (2.5, 0.7, 0.7))
    matrix = target_to_source(target_grid((10.0, -20.0, 30.0), 1.0, 64), geometry)
    box = source_box(matrix, 64, geometry)
    assert box.shape_zyx == pytest.approx((64 / 2.5, 64 / 0.7, 64 / 0.7), abs=4)


def test_the_two_steps_of_the_gpu_path_give_the_crop_of_one() -> None:
    geometry = grid((40, 46, 52), (1.5, 0.8, 0.9))
    image, mask = scan(geometry)
    box = Box((0, 0, 0), geometry.shape_zyx)
    finding = Finding("1", (12.0, -23.0, 34.0), 12.0, "volume", 900.0, box=box, mask=mask)
    case = Case("c", "p", "", InMemory(geometry, image))
    crops = Settings(size=20, margin=2)
    direct = extract_case(Task(case, crops, (finding,)))
    waiting = extract_case(Task(case, crops, (finding,), on_device=True))
    assert waiting.images is None
    done = finish(waiting, crops, on_device=False)
    np.testing.assert_array_equal(done.images, direct.images)
    np.testing.assert_array_equal(done.masks, direct.masks)
    assert done.masks.max() == 255

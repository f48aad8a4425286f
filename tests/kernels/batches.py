"""Batches that every back end must get right: made once, drawn on by all tests of extraction."""

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from kernels import Brick

SIZES = (1, 2, 5, 8, 13)
SIMULATED_SIZE = 5


def grid(
    centre: Sequence[float],
    size: int,
    ratio: Sequence[float] = (1, 1, 1),
    degrees: Sequence[float] = (0, 0, 0),
    tilt: float = 0.0,
    flip: Sequence[float] = (1, 1, 1),
) -> np.ndarray:
    """Return the target->source matrix of a cube whose middle lies at `centre` (zyx, voxels).

    `ratio` is target over source spacing, `tilt` the tangent of a gantry angle: slices slide in y.
    """
    shear = np.eye(3)
    shear[1, 0] = tilt
    turn = np.eye(3) if not any(degrees) else Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    linear = np.diag(ratio) @ shear @ turn @ np.diag(flip)
    origin = np.asarray(centre) - linear @ np.full(3, (size - 1) / 2)
    return np.column_stack([linear, origin])


def brick(
    shape: Sequence[int],
    size: int,
    *,
    shift: Sequence[float] = (0.013, -0.021, 0.017),
    slices: Sequence[float] | None = None,
    mask: bool = True,
    seed: int = 0,
    **kwargs: object,
) -> Brick:
    """Return a brick of white noise (the hardest data), sampled about its middle plus `shift` voxels."""
    rng = np.random.default_rng(seed)
    extent = np.array(shape, float) - 1
    if slices is not None:
        extent[0] = slices[-1]
    return Brick(
        rng.integers(-1024, 3072, shape, np.int16),
        rng.integers(0, 2, shape, np.uint8) if mask else None,
        grid(extent / 2 + shift, size, **kwargs),
        None if slices is None else np.array(slices, float),
    )


def cases(size: int) -> dict[str, list[Brick]]:
    """Return named batches for cubes of `size` voxels; few and small enough for the simulator."""
    plain = brick((7, 6, 9), size, seed=1)
    oblique = brick((6, 9, 8), size, ratio=(0.8, 1.3, 0.6), degrees=(20, -35, 50), seed=2)
    tilted = brick((5, 8, 7), size, ratio=(0.5, 1.1, 1.2), tilt=0.4, seed=3)
    steps = (0, 0.7, 2, 3.1, 4.6, 5)
    return {
        "identity": [brick((size + 2,) * 3, size, shift=(0.5, 0.5, 0.5) if size % 2 else (0, 0, 0))],
        "plain": [plain],
        "finer": [brick((4, 5, 3), size, ratio=(0.3, 0.7, 0.45))],
        "coarser": [brick((9, 11, 8), size, ratio=(2.3, 1.7, 3.0))],
        "oblique": [oblique],
        "tilted": [tilted],
        "flipped": [brick((6, 5, 7), size, ratio=(1.2, 0.9, 0.5), flip=(-1, 1, -1))],
        "turned": [brick((6, 5, 7), size, degrees=(90, 0, 180))],
        "uneven": [brick((6, 5, 7), size, slices=steps, ratio=(0.9, 0.7, 1.4))],
        "uneven_oblique": [brick((6, 5, 7), size, slices=steps, ratio=(1.8, 1.2, 1), degrees=(10, 20, 30))],
        "crowded_ends": [brick((5, 4, 4), size, slices=(0, 0.1, 1.5, 2.9, 3), ratio=(1.1, 1, 1), mask=False)],
        "crowded_fine": [brick((5, 4, 4), size, slices=(0, 0.2, 1.5, 2.9, 3.1), ratio=(0.6, 0.6, 0.6))],
        "border": [brick((5, 6, 7), size, shift=(2.6, -3.3, 4.2), ratio=(0.8, 1.4, 1.1))],
        "off_corner": [brick((5, 6, 7), size, shift=(3.2, 4.3, -4.4), degrees=(5, 5, 5))],
        "outside": [brick((3, 3, 3), size, shift=(500.0, 0, -1e6))],
        "one_voxel": [brick((1, 1, 1), size, ratio=(0.21, 0.22, 0.23), degrees=(1, 2, 3))],
        "sheets": [brick((1, 6, 5), size, seed=4), brick((6, 1, 5), size, seed=5), brick((6, 5, 1), size)],
        "widest": [brick((7, 3, 4), size, ratio=(15, 0.3, 0.3), mask=False)],
        "ragged": [plain, brick((1, 2, 3), size, mask=False), oblique, brick((2, 1, 1), size), tilted],
    }


CASES = tuple(cases(1))


@st.composite
def bricks(draw: st.DrawFn, size: int, *, aligned: bool = False) -> Brick:
    """Draw a brick: ratios 0.3-3, any rotation, tilt, flips, any crop, with or without mask and steps."""
    shape = tuple(draw(st.integers(1, 9)) for _ in range(3))
    seed = draw(st.integers(0, 2**32 - 1))
    kwargs: dict[str, object] = {
        "ratio": [draw(st.floats(0.3, 3)) for _ in range(3)],
        "flip": [draw(st.sampled_from([1, -1])) for _ in range(3)],
    }
    if not aligned:
        kwargs["degrees"] = [draw(st.floats(-180, 180)) for _ in range(3)]
        kwargs["tilt"] = draw(st.floats(-0.6, 0.6))
        if shape[0] > 1 and draw(st.booleans()):
            gaps = [draw(st.floats(0.35, 3)) for _ in range(shape[0] - 1)]
            kwargs["slices"] = np.concatenate([[0.0], np.cumsum(gaps)])
    # a jitter keeps positions off exact borders, where rounding decides and nothing can be compared
    jitter = np.random.default_rng(seed).uniform(-0.01, 0.01, 3)
    shift = [draw(st.floats(-1.2, 1.2)) * n for n in shape] + jitter
    return brick(shape, size, shift=shift, mask=draw(st.booleans()), seed=seed, **kwargs)


@st.composite
def batches(draw: st.DrawFn, *, aligned: bool = False) -> tuple[list[Brick], int]:
    """Draw a ragged batch of one to four bricks and a size."""
    size = draw(st.sampled_from(SIZES))
    return draw(st.lists(bricks(size, aligned=aligned), min_size=1, max_size=4)), size

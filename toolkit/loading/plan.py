"""What a loader is given, checked before any work is done, and which loader it shall be."""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.augment import DType
from toolkit.errors import Problem, UsageError
from toolkit.loading.augment import AugmentConfig
from toolkit.loading.draw import CropGeometry, draw
from toolkit.loading.table import AugmentTable
from toolkit.store.reader import Store


class Sampler(Protocol):
    """Says who is in which batch; already cut to this rank."""

    def steps(self, epoch: int) -> int:
        """Return how many batches an epoch has."""

    def batch(self, epoch: int, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return which crops, int64 (b,), and the number of each draw in the epoch, int64 (b,)."""


@dataclass(frozen=True)
class Plan:
    """What every loader needs to know, checked before any work is done.

    Attributes
    ----------
    store, sampler, config
        Where crops come from, which of them, and what happens to them.
    size
        Voxels along each side of the patch.
    seed
        Of all draws.
    dtype
        ``float32`` or ``bfloat16`` (and ``float16`` on a GPU).
    space_to_depth
        Whether cells of 2x2x2 voxels become channels.

    Raises
    ------
    UsageError
        E-AUG-003 where the patch is larger than the crop, E-AUG-004 where a mask mode meets nodules without
        a mask, E-LOAD-001 on another wrong setting.
    """

    store: Store
    sampler: Sampler
    config: AugmentConfig
    size: int
    seed: int = 0
    dtype: DType = "float32"
    space_to_depth: bool = False

    def __post_init__(self) -> None:
        _ = self.geometry
        if self.dtype not in ("float32", "bfloat16", "float16"):
            refuse("dtype", self.dtype, "float32, bfloat16 or float16")
        if not 0 <= self.seed < 2**64:
            refuse("seed", str(self.seed), "0 to 2^64 - 1")
        if self.space_to_depth and self.size % 2:
            refuse("size", f"{self.size} voxels", "an even number with space to depth")
        if self.config.mask_mode != "none":
            bare = sum(nodule.mask_source == "none" for nodule in self.store.nodules)
            if bare:
                measured = (
                    f"mask_mode {self.config.mask_mode}, {bare} of {len(self.store)} nodules have no mask"
                )
                action = "Nothing done; use mask_mode none, or a store whose nodules all have masks"
                raise UsageError(Problem("E-AUG-004", "setting mask_mode is wrong", measured, "", action))

    @property
    def geometry(self) -> CropGeometry:
        """The stored crops and the patch."""
        side = self.store.size + 2 * self.store.margin
        return CropGeometry(side, self.size, self.store.spacing_mm)

    def table(self, epoch: int, step: int) -> AugmentTable:
        """Draw the rows of one batch."""
        index, number = self.sampler.batch(epoch, step)
        return draw(self.config, self.geometry, index, self.seed, epoch, number)

    def labels(self) -> NDArray[np.float32]:
        """Return the label of every crop of the store, float32 (n,); NaN where unknown."""
        known = (nodule.label for nodule in self.store.nodules)
        return np.array([math.nan if label is None else label for label in known], np.float32)


def refuse(name: str, measured: str, expected: str) -> None:
    """Raise `UsageError` E-LOAD-001 on a setting."""
    problem = Problem(
        "E-LOAD-001", f"setting {name} is wrong", measured, expected, "Nothing done; correct it"
    )
    raise UsageError(problem)


Kind = Literal["fused", "fused-cuda", "dali"]


def choose(
    plan: Plan, asked: Literal["auto", "fused", "dali"], device: Literal["cpu", "cuda"], free_bytes: int = 0
) -> tuple[Kind, str]:
    """Return which loader makes the batches, and a sentence that says why.

    `free_bytes` is the memory of the GPU that the store may take. On a GPU the fused loader keeps the store
    resident; one that does not fit is read by the CPU's threads.
    """
    if asked == "dali":
        return "dali", "DALI was asked for"
    if device == "cpu":
        return "fused", "fused: no GPU is used, and its threads read the store where it lies"
    side = plan.geometry.side
    needed = len(plan.store) * side**3 * (3 if plan.config.mask_mode != "none" else 2)
    sizes = f"the store takes {needed / 1e9:.1f} GB, the GPU has {free_bytes / 1e9:.1f} GB for it"
    if needed <= free_bytes:
        return "fused-cuda", f"fused on the GPU: {sizes}"
    return "fused", f"fused on the CPU: {sizes}"

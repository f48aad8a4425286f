"""What a run of the bench works with: the device, sizes, patience, its data, and the machine's ceilings."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from toolkit.bench.data import Scans, noise_store, write_scans
from toolkit.bench.machine import Kind, last_level_cache
from toolkit.bench.record import Figure
from toolkit.bench.stopwatch import Effort
from toolkit.memory import cores
from toolkit.store import Store
from toolkit.training.config import Compute
from toolkit.training.precision import Decision, Mode, decide


@dataclass(frozen=True)
class Sizes:
    """How much is worked on.

    Attributes
    ----------
    rows, scans, small
        Pixels along each side of a DICOM slice, DICOM scans, NIfTI scans.
    cube, bricks
        Voxels along each side of an extracted crop, and bricks of a batch.
    crop, margin, crops
        The store.
    patch
        Voxels along each side of what loaders make.
    model, model_patch
        The network and its patches.
    batch, batches
        The usual batch and the others that are tried.
    modes
        Of torch.compile that are tried, where any is.
    matrix, copied
        Rows of the matrices and bytes of the array that the ceilings are measured with.
    exceed_cache
        Whether inputs are made so many that twice the largest cache does not hold them.
    """

    rows: int = 512
    scans: int = 1
    small: int = 2
    cube: int = 64
    bricks: int = 8
    crop: int = 64
    margin: int = 16
    crops: int = 32
    patch: int = 64
    model: str = "densenet121"
    model_patch: int = 32
    batch: int = 32
    batches: tuple[int, ...] = (8,)
    modes: tuple[Mode, ...] = ("off", "default")
    matrix: int = 1024
    copied: int = 1 << 28
    exceed_cache: bool = True


QUICK = Sizes()
# on a CPU no graphs are recorded, and the two ways of max-autotune are one
FULL = Sizes(
    scans=3, batches=(4, 8, 16, 64), modes=("off", "default", "max-autotune-no-cudagraphs"), matrix=2048
)
QUICK_GPU = Sizes(
    bricks=128, crops=256, model_patch=64, batches=(16, 64, 128),
    modes=("off", "default", "reduce-overhead"), matrix=8192, copied=1 << 30,
)  # fmt: skip
FULL_GPU = Sizes(
    scans=3, bricks=256, crops=512, model_patch=64, batches=(8, 16, 64, 128, 256),
    modes=("off", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
    matrix=8192, copied=1 << 30,
)  # fmt: skip
TOY = Sizes(
    rows=128, scans=1, small=1, cube=12, bricks=2, crop=16, margin=4, crops=6, patch=16,
    model="densenet-small", model_patch=16, batch=4, batches=(2,), matrix=64, copied=1 << 16,
    exceed_cache=False,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Bench:
    """A run of the bench; its data is made when first asked for and lies in `folder`.

    Attributes
    ----------
    kind
        ``cpu`` or ``cuda``.
    compiled
        Whether torch.compile is tried where training would not use it.
    threads
        Of kernels and loaders.
    say
        Tells a person what is being done.
    ceilings
        What the machine can do, as far as it was asked for.
    """

    kind: Kind
    folder: Path
    sizes: Sizes
    effort: Effort
    compiled: bool = False
    threads: int = field(default_factory=cores)
    say: Callable[[str], None] = lambda text: None
    ceilings: dict[str, Figure] = field(default_factory=dict)

    def ceiling(self, name: str, make: Callable[[], Figure]) -> Figure:
        """Return a ceiling, measured the first time."""
        if name not in self.ceilings:
            self.ceilings[name] = make()
        return self.ceilings[name]

    def inputs(self, bytes_each: float) -> int:
        """Return how many inputs of a size do not fit into twice the largest cache; 2 at least."""
        if not self.sizes.exceed_cache:
            return 2
        return max(2, math.ceil(2 * last_level_cache(self.kind) / bytes_each))

    @cached_property
    def scans(self) -> Scans:
        """Scans on disk."""
        sizes, about = self.sizes, 100 * 2 * self.sizes.rows**2
        count = max(sizes.scans, math.ceil(2 * last_level_cache() / about) if sizes.exceed_cache else 1)
        return write_scans(self.folder / "scans", count, sizes.rows, sizes.small)

    @cached_property
    def store(self) -> Store:
        """A store of noise, whose crops make whole batches."""
        sizes = self.sizes
        crops = max(sizes.crops, self.inputs(2 * (sizes.crop + 2 * sizes.margin) ** 3))
        crops = -(-crops // sizes.batch) * sizes.batch
        return noise_store(self.folder / "store", crops, sizes.crop, sizes.margin)

    @cached_property
    def decision(self) -> Decision:
        """What training would take on this device by itself."""
        return decide(Compute(), self.kind)

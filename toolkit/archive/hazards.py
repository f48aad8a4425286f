"""Do voxels look like Hounsfield units? Judged wherever pixels are read, from a few counts.

Whatever part of a body a CT shows, some of it is darker than water: fat (-150 to -30 HU), lung (-950
to -500), air. And some of it is no darker than fat. Values that were shifted by 1024, scaled to 0..1
or 0..255, or read with the wrong sign, lose the first; values shifted twice lose the second. In cubes of
51 mm about 134 nodules of LIDC-IDRI at least 43 % is darker than -20 HU and at least 0.7 % brighter
than -200 HU; the limits are 1 % (room for the fat of an abdomen) and 0.1 %. Shifted by 1024 the noise
of air keeps up to some per cent dark, but then soft tissue lies where only hard bone should.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.archive.hu import AIR_HU
from toolkit.errors import Problem

DARK_HU, BRIGHT_HU, DENSE_HU = -20, -200, 700
MIN_DARK_SHARE, MIN_BRIGHT_SHARE = 0.01, 0.001
FEW_DARK_SHARE, MAX_DENSE_SHARE = 0.2, 0.1
MAX_BELOW_SHARE = 0.001
MIN_VOXELS = 20_000  # a cube of 27 voxels; in less, one tissue may be all there is
MIN_VOXELS_OF_LUNG = 100_000  # a cube of 46 voxels may lie in lung without a vessel


@dataclass(frozen=True)
class Counts:
    """How many voxels are what.

    Attributes
    ----------
    outside
        At -1024 HU: padding, or clipped.
    below
        Below -1024 HU before clipping, in files that name no padding value.
    dark, bright, dense
        Above -1024 and below -20 HU; above -200 HU; from 700 HU on.
    lowest, highest
        Extremes of all voxels that are not `outside`.
    """

    voxels: int = 0
    outside: int = 0
    below: int = 0
    dark: int = 0
    bright: int = 0
    dense: int = 0
    lowest: int = 3071
    highest: int = AIR_HU

    def __add__(self, other: "Counts") -> "Counts":
        """Return the counts of both."""
        sums = ("voxels", "outside", "below", "dark", "bright", "dense")
        lowest, highest = min(self.lowest, other.lowest), max(self.highest, other.highest)
        added = {name: getattr(self, name) + getattr(other, name) for name in sums}
        return Counts(**added, lowest=lowest, highest=highest)


def count_boxes(boxes: Iterable[NDArray[np.int16]], below: int) -> Counts:
    """Count the voxels of boxes of HU; `below` comes from the reader, which clipped them."""
    total = Counts(below=below)
    for hu in boxes:
        outside = int(np.count_nonzero(hu == AIR_HU))
        least = int(hu.min()) if hu.size else AIR_HU
        if least == AIR_HU and outside < hu.size:
            least = int(hu.min(where=hu != AIR_HU, initial=3071))
        total += Counts(
            hu.size,
            outside,
            0,
            int(np.count_nonzero(hu < DARK_HU)) - outside,
            int(np.count_nonzero(hu > BRIGHT_HU)),
            int(np.count_nonzero(hu >= DENSE_HU)),
            least,
            int(hu.max()) if hu.size else AIR_HU,
        )
    return total


def count_values(hu: NDArray[np.int16], times: NDArray[np.int64], below: int) -> Counts:
    """Count the voxels of a histogram: the HU of each bin, and how often it occurs."""
    there = hu[(times > 0) & (hu > AIR_HU)]
    return Counts(
        int(times.sum()),
        int(times[hu == AIR_HU].sum()),
        below,
        int(times[(hu > AIR_HU) & (hu < DARK_HU)].sum()),
        int(times[hu > BRIGHT_HU].sum()),
        int(times[hu >= DENSE_HU].sum()),
        int(there.min()) if there.size else 3071,
        int(there.max()) if there.size else AIR_HU,
    )


def judge(counts: Counts) -> tuple[Problem, ...]:
    """Return notes on voxels that are hardly Hounsfield units, or that padding is not named for."""
    notes = []
    inside = counts.voxels - counts.outside
    if counts.below > MAX_BELOW_SHARE * counts.voxels:
        measured = f"{100 * counts.below / counts.voxels:.2g} % of the voxels"
        action = "Read as -1024 HU, before anything is interpolated"
        expected = f"at most {100 * MAX_BELOW_SHARE:g} %"
        what = "values below -1024 HU that no padding value explains"
        notes.append(Problem("W-HU-002", what, measured, expected, action))
    action = "Read as it is; look at the scan, and leave it out or rescale it if it is no CT in HU"
    shifted = counts.dark < FEW_DARK_SHARE * inside and counts.dense > MAX_DENSE_SHARE * inside
    if inside >= MIN_VOXELS and (shifted or counts.dark < MIN_DARK_SHARE * inside):
        measured = f"{100 * counts.dark / inside:.2g} % are darker than {DARK_HU} HU; {_guess(counts)}"
        expected = f"at least {100 * MIN_DARK_SHARE:g} %: fat, lung or air"
        notes.append(Problem("W-HU-010", "values do not look like HU", measured, expected, action))
    elif counts.voxels >= MIN_VOXELS_OF_LUNG and counts.bright < MIN_BRIGHT_SHARE * counts.voxels:
        measured = f"{100 * counts.bright / counts.voxels:.2g} % are brighter than {BRIGHT_HU} HU"
        expected = f"at least {100 * MIN_BRIGHT_SHARE:g} %: fat or soft tissue"
        notes.append(Problem("W-HU-010", "values do not look like HU", measured, expected, action))
    return tuple(notes)


def _guess(counts: Counts) -> str:
    """Say what values without anything dark may be instead."""
    span = f"all within {counts.lowest} to {counts.highest}"
    if counts.highest <= 1:
        return f"{span}, a scale of 0 to 1"
    if counts.highest <= 255:
        return f"{span}, grey levels"
    if counts.dense > MAX_DENSE_SHARE * counts.voxels:
        return f"{span}, perhaps HU + 1024"
    return span

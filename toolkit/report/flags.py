"""What a person should look at: named flags on nodules, each by a stated rule."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.report.measure import Measured
from toolkit.store.format import Nodule

OFF_MM = 2.0
LOW_MEAN_HU, HIGH_MEAN_HU = -900.0, 500.0
FAINT_HU = 50.0
OUTSIDE = 0.5
LEAST_FOR_OUTLIERS = 10
MODIFIED_Z = 3.5  # Iglewicz and Hoaglin 1993


@dataclass(frozen=True)
class Flag:
    """A kind of doubt: `short` on a card, `title` in the list, `rule` as it is applied."""

    key: str
    short: str
    title: str
    rule: str


FLAGS = (
    Flag("empty", "empty mask", "Empty mask", "a mask was given, but no voxel of the crop is in it"),
    Flag("cut", "cut", "Mask cut by the crop", "the mask reaches the border of the crop"),
    Flag(
        "off",
        "off centre",
        "Mask off the centre",
        f"its centre of gravity is more than {OFF_MM:g} mm and a quarter of the diameter from the crop's",
    ),
    Flag(
        "hu",
        "odd HU",
        "Implausible HU in the mask",
        f"mean below {LOW_MEAN_HU:g} or above {HIGH_MEAN_HU:g} HU",
    ),
    Flag(
        "faint",
        "no contrast",
        "Mask on nothing",
        f"its mean is less than {FAINT_HU:g} HU above the darkest quarter of a 2 mm shell about it",
    ),
    Flag(
        "outside",
        "outside",
        "Crop mostly outside the scan",
        f"more than {100 * OUTSIDE:.0f} % of its voxels are at -1024 HU",
    ),
    Flag("twin", "twin", "Same pixels as another crop", "image digests are equal"),
    Flag(
        "size",
        "odd size",
        "Unusual diameter",
        f"modified z-score of the logarithm above {MODIFIED_Z:g}, among at least {LEAST_FOR_OUTLIERS}",
    ),
)


def flags_of(
    nodules: Sequence[Nodule], measured: Sequence[Measured], digests: Sequence[str]
) -> list[tuple[str, ...]]:
    """Return the keys of each nodule's flags, in the order of `FLAGS`."""
    copies = Counter(digests)
    odd = unusual_sizes([nodule.diameter_mm for nodule in nodules])
    result = []
    for nodule, one, name, strange in zip(nodules, measured, digests, odd, strict=True):
        raised = {*_on_mask(nodule, one)}
        if one.outside_share > OUTSIDE:
            raised.add("outside")
        if copies[name] > 1:
            raised.add("twin")
        if strange:
            raised.add("size")
        result.append(tuple(flag.key for flag in FLAGS if flag.key in raised))
    return result


def _on_mask(nodule: Nodule, one: Measured) -> list[str]:
    """Return the flags that a mask can raise."""
    if nodule.mask_source == "none":
        return []
    if one.held_share is None or one.held_share == 0:
        return ["empty"]
    found = []
    if one.touches:
        found.append("cut")
    if one.off_mm is not None and one.off_mm > OFF_MM + (nodule.diameter_mm or 0) / 4:
        found.append("off")
    if one.inside_hu is not None and not LOW_MEAN_HU <= one.inside_hu <= HIGH_MEAN_HU:
        found.append("hu")
    if one.contrast_hu is not None and one.contrast_hu < FAINT_HU:
        found.append("faint")
    return found


def unusual_sizes(diameters_mm: Sequence[float | None]) -> list[bool]:
    """Tell which diameters lie far from the others, by the modified z-score of their logarithms.

    An unknown diameter is never unusual.
    """
    sizes = np.array([np.nan if d is None else max(d, 1e-3) for d in diameters_mm], np.float64)
    if np.count_nonzero(np.isfinite(sizes)) < LEAST_FOR_OUTLIERS:
        return [False] * len(diameters_mm)
    logs = np.log(sizes)
    away = np.abs(logs - np.nanmedian(logs))
    spread = float(np.nanmedian(away))
    if spread == 0:  # more than half are alike: nothing to measure distance by
        return [False] * len(diameters_mm)
    return [bool(value) for value in 0.6745 * away / spread > MODIFIED_Z]

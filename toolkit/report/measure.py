"""What one pass over the crops of a store tells about masks, places and Hounsfield units."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from toolkit.memory import cores
from toolkit.progress import bar
from toolkit.store.reader import Store

OUTSIDE_HU = -1024
LOW_HU, HU_STEP, HU_BINS = -1000, 20, 205
INSIDE = 128  # a voxel is in the mask where at least half of it is nodule
SHELL_MM = 2.0


@dataclass(frozen=True)
class Measured:
    """What was measured on one crop without its margin; None where there is no mask to measure on.

    Attributes
    ----------
    outside_share
        Share of voxels at -1024 HU: outside the scan, padding, or the emptiest air.
    held_share
        Share of the stored mask (margin included) that the crop holds.
    touches
        True where the mask reaches the crop's border.
    reach_mm
        How far the mask goes from the crop's centre along an axis, at most.
    off_mm
        Distance from the crop's centre to the mask's centre of gravity.
    inside_hu
        Mean in the mask.
    contrast_hu
        How far that lies above the darkest quarter of a 2 mm shell about the mask.
    """

    outside_share: float
    held_share: float | None = None
    touches: bool = False
    reach_mm: float | None = None
    off_mm: float | None = None
    inside_hu: float | None = None
    contrast_hu: float | None = None


@dataclass(frozen=True, eq=False)
class Survey:
    """All crops measured; counts of voxels by HU, in bins of `HU_STEP` from `LOW_HU`."""

    measured: tuple[Measured, ...]
    inside_counts: NDArray[np.int64]
    crop_counts: NDArray[np.int64]


def survey(store: Store) -> Survey:
    """Measure every crop of a store, in threads (NumPy works outside the interpreter's lock)."""
    inside = np.zeros(HU_BINS, np.int64)
    everywhere = np.zeros(HU_BINS, np.int64)
    measured = []
    with bar("measure", len(store), "nodules") as advance:
        for one, inside_counts, crop_counts in _in_threads(store):
            measured.append(one)
            inside += inside_counts
            everywhere += crop_counts
            advance()
    return Survey(tuple(measured), inside, everywhere)


def _in_threads(store: Store) -> Iterator[tuple[Measured, NDArray[np.int64], NDArray[np.int64]]]:
    def work(index: int) -> tuple[Measured, NDArray[np.int64], NDArray[np.int64]]:
        image, mask = store.image(index), store.mask(index)
        inner = (slice(store.margin, store.margin + store.size),) * 3
        hu = np.asarray(image[inner])
        solid = np.asarray(mask[inner]) >= INSIDE
        one = measure(image, mask, store.margin, store.spacing_mm)
        return one, hu_counts(hu[solid]), hu_counts(hu[hu > OUTSIDE_HU])

    with ThreadPoolExecutor(cores()) as pool:
        indices = iter(range(len(store)))
        while run := list(islice(indices, 256)):  # bounded: results wait for nobody
            yield from pool.map(work, run)


def hu_counts(hu: NDArray[np.int16]) -> NDArray[np.int64]:
    """Count values in bins of `HU_STEP`; what lies beyond the ends falls into the end bins."""
    number = (hu.astype(np.int32) - LOW_HU) // HU_STEP
    return np.bincount(np.clip(number, 0, HU_BINS - 1).ravel(), minlength=HU_BINS)


def measure(image: NDArray[np.int16], mask: NDArray[np.uint8], margin: int, spacing_mm: float) -> Measured:
    """Measure a stored cube: `image` HU and `mask` 0-255, both (s, s, s) zyx with their margin."""
    side = image.shape[0]
    inner = (slice(margin, side - margin),) * 3
    outside = float(np.mean(np.asarray(image[inner]) == OUTSIDE_HU))
    solid = np.asarray(mask) >= INSIDE
    spans = [np.flatnonzero(solid.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if not spans[0].size:
        return Measured(outside)
    center = (side - 1) / 2
    first, last = min(span[0] for span in spans), max(span[-1] for span in spans)
    reach = max(center - first, last - center) + 0.5
    box = tuple(slice(max(0, span[0] - 1), span[-1] + 2) for span in spans)
    part = np.asarray(mask[box], np.float64)
    gravity = np.array(ndimage.center_of_mass(part)) + [s.start for s in box]
    held = np.asarray(mask[inner]).sum(dtype=np.int64) / np.asarray(mask).sum(dtype=np.int64)
    inside, contrast = _brightness(image, solid, spans, spacing_mm)
    return Measured(
        outside_share=outside,
        held_share=float(held),
        touches=bool(solid[inner].any()) and bool(first <= margin or last >= side - 1 - margin),
        reach_mm=float(reach * spacing_mm),
        off_mm=float(np.linalg.norm(gravity - center) * spacing_mm),
        inside_hu=inside,
        contrast_hu=contrast,
    )


def _brightness(
    image: NDArray[np.int16], solid: NDArray[np.bool_], spans: list[NDArray[np.intp]], spacing_mm: float
) -> tuple[float, float | None]:
    """Return the mean HU in a mask and its height above the darkest quarter of the shell about it."""
    steps = max(1, round(SHELL_MM / spacing_mm))
    box = tuple(slice(max(0, span[0] - steps), span[-1] + steps + 1) for span in spans)
    hu, core = np.asarray(image[box]), solid[box]
    inside = float(hu[core].mean())
    shell = hu[ndimage.binary_dilation(core, iterations=steps) & ~core]
    if not shell.size:
        return inside, None
    return inside, inside - float(np.quantile(shell, 0.25))

"""Crops of different patients that show the same thing: one scan under two ids, shifted, rescaled, noisy.

Three looks, each dearer and at fewer pairs than the one before:

1. A fingerprint of each crop: the middle 40 mm (or what there is) as 20^3 cells, smoothed, between its
   own 2nd and 98th percentile, so that a linear change of intensity leaves it alone. The magnitudes of
   its low frequencies hardly change with a shift; the eight nearest crops by their correlation are
   looked at again (`toolkit.loading.alike_first`).
2. Two fingerprints are laid over one another where their cross-correlation peaks; the correlation of what
   overlaps decides.
3. The two crops themselves, as the difference of a light and a strong smoothing over its local strength,
   are correlated at shifts by whole voxels around that place, uphill to the best. What chests and nodules
   have in common (a wall here, a bright ball there) counts little; vessels and texture count everywhere.

Thresholds from 134 real nodules. In samples of the pairs that reach it, the last look gave at most 0.40 for
different patients (0.51 for those of a phantom) and at least 0.73 for copies that were shifted by 2 voxels
along each axis, resampled through 2.5 mm slices or overlaid with noise of 60 HU. tests/loading/test_alike.py
holds what follows: no pair among the 134, and the planted copies found.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from tempfile import TemporaryFile

import numpy as np
from numpy.typing import NDArray

from toolkit.loading.alike_first import Floats, Ints, first_look, windowed
from toolkit.progress import bar
from toolkit.store import Store
from toolkit.store.ledger import committed, read_ledger

REGION_MM = 40.0
CELLS = 20
SECOND, ALIKE = 0.8, 0.62
"""Least correlation at the second and the last look."""
HOPELESS = 0.25
"""Where the last look begins below this it is not gone on with."""
WEAK = 0.01
"""Strength of detail, as a share of the crop's range, below which it counts less."""
REACH = 4
"""Largest shift, in cells."""
MOST_BYTES = 1 << 30
"""Of fingerprints that lie in memory (134,000 crops of 20^3 cells)."""


@dataclass(frozen=True)
class Alike:
    """Two nodules of different patients whose crops show the same thing.

    Attributes
    ----------
    first, second
        Their numbers in the store.
    correlation
        Of the detail in the crops, at the best shift; 1 where the pixels are equal.
    """

    first: int
    second: int
    correlation: float


def alike(store: Store) -> list[Alike]:
    """Return the pairs of crops of different patients that show the same thing.

    The order of the store does not matter. A crop without contrast is compared with none. Of many copies
    of one crop, enough pairs are returned to connect them where their pixels are equal.
    """
    order = sorted(range(len(store)), key=lambda i: store.nodules[i].nodule_id)
    numbers: dict[str, int] = {}
    whose = np.array([numbers.setdefault(store.nodules[i].patient_id, len(numbers)) for i in order], np.int64)
    prints = _room((len(order), *(_cells(store),) * 3))
    with bar("comparing crops", len(order), "crops") as advance:
        for row, i in enumerate(order):
            prints[row] = fingerprint(store, i)
            advance()
    lively = np.flatnonzero(prints.reshape(len(order), -1).any(axis=1))
    living = {*lively.tolist()}
    equal = {(a, b) for a, b in _equal(store, order, whose) if a in living}
    found = [Alike(order[a], order[b], 1.0) for a, b in sorted(equal)]
    fine = lru_cache(maxsize=64)(lambda place: _fine(store, order[place]))
    for a, b, shift in _second_look(prints, first_look(prints, whose, lively)):
        if (a, b) not in equal:
            value = _third_look(fine(a), fine(b), shift, _step(store))
            if value >= ALIKE:
                found.append(Alike(order[a], order[b], value))
    return found


def _room(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return an array for the fingerprints: in memory, or in a file without a name where they are many."""
    if math.prod(shape) <= MOST_BYTES:
        return np.empty(shape, np.uint8)
    with TemporaryFile() as file:
        return np.memmap(file, np.uint8, "w+", 0, shape)


def _step(store: Store) -> int:
    """Return the voxels of a cell."""
    side = store.size + 2 * store.margin
    return max(1, min(side, round(REGION_MM / store.spacing_mm)) // CELLS)


def _cells(store: Store) -> int:
    return min(CELLS, store.size + 2 * store.margin)


def _middle(store: Store, index: int) -> Floats:
    """Return the middle of a crop, float32 HU, cells * step voxels along each side."""
    length = _cells(store) * _step(store)
    start = (store.size + 2 * store.margin - length) // 2
    middle = slice(start, start + length)
    return np.asarray(store.image(index)[middle, middle, middle], np.float32)


def _tent(length: int, stride: int, width: int) -> Floats:
    """Return the matrix that smooths with a tent of half-width `width` and keeps each `stride`-th place."""
    at = np.arange(length // stride) * stride + (stride - 1) / 2
    weight = np.maximum(0, 1 - np.abs(np.arange(length) - at[:, None]) / width)
    matrix: Floats = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
    return matrix


def _smooth(crop: Floats, matrix: Floats) -> Floats:
    for _ in range(3):  # each turn does one axis and moves it to the end
        crop = np.tensordot(crop, matrix, axes=(0, 1))
    return crop


def _normal(crop: Floats) -> Floats:
    """Return values between the crop's own percentiles as 0 to 1; all 0 without contrast."""
    low, high = np.percentile(crop, (2, 98))
    if high - low < 1:
        return np.zeros_like(crop)
    normal: Floats = np.clip((crop - low) / np.float32(high - low), 0, 1).astype(np.float32)
    return normal


def fingerprint(store: Store, index: int) -> NDArray[np.uint8]:
    """Return the fingerprint of a crop, uint8 (cells, cells, cells); all 0 without contrast."""
    step = _step(store)
    crop = _middle(store, index)
    smooth = _normal(_smooth(crop, _tent(len(crop), step, 2 * step)))
    return np.round(smooth * 255).astype(np.uint8)


def _equal(store: Store, order: Sequence[int], whose: Ints) -> Iterator[tuple[int, int]]:
    """Yield places of crops whose pixels, or source pixels, are equal by the ledger's digests."""
    digests = [
        (value.get("image"), value.get("pixels"))
        for shard in committed(store.path)
        for entry in read_ledger(store.path, shard)
        for value in entry.nodules
    ]
    first: dict[tuple[int, str], int] = {}
    for place, i in enumerate(order):
        for kind, told in enumerate(digests[i]):
            if told:
                other = first.setdefault((kind, told), place)
                if whose[other] != whose[place]:
                    yield other, place


def _second_look(prints: NDArray[np.uint8], pairs: Ints) -> Iterator[tuple[int, int, tuple[int, int, int]]]:
    """Yield the pairs whose fingerprints agree where they overlap best, and that shift in cells."""
    n = prints.shape[-1]
    reach = min(REACH, n // 4)
    shifts = np.r_[0 : reach + 1, -reach:0]
    for start in range(0, len(pairs), 256):
        some = pairs[start : start + 256]
        waves = [np.fft.rfftn(windowed(prints[some[:, side]]), axes=(1, 2, 3)) for side in (0, 1)]
        peaks = np.fft.irfftn(waves[0] * waves[1].conj(), s=(n, n, n), axes=(1, 2, 3))
        near = peaks[:, shifts][:, :, shifts][..., shifts].reshape(len(some), -1)
        for (a, b), at in zip(some.tolist(), near.argmax(axis=1), strict=True):
            z, y, x = (int(shifts[k]) for k in np.unravel_index(at, (len(shifts),) * 3))
            one, other = prints[a].astype(np.float32), prints[b].astype(np.float32)
            if _correlation(one, other, (z, y, x)) >= SECOND:
                yield a, b, (z, y, x)


def _fine(store: Store, index: int) -> Floats:
    """Return the detail in the middle of a crop, about as strong everywhere."""
    crop = _normal(_middle(store, index))
    width = max(2, _step(store))
    strong = _tent(len(crop), 1, 3 * width)
    detail = _smooth(crop, _tent(len(crop), 1, width)) - _smooth(crop, strong)
    even: Floats = detail / np.sqrt(_smooth(detail**2, strong) + np.float32(WEAK**2))
    return even


def _third_look(one: Floats, other: Floats, cells: tuple[int, int, int], step: int) -> float:
    """Return the best correlation of two crops at shifts by whole voxels near a shift in cells."""
    limit = len(one) // 4
    at = (cells[0] * step, cells[1] * step, cells[2] * step)
    seen: dict[tuple[int, int, int], float] = {}
    while True:
        for z, y, x in product((-1, 0, 1), repeat=3):
            shift = (at[0] + z, at[1] + y, at[2] + x)
            if shift not in seen and max(map(abs, shift)) <= limit:
                seen[shift] = _correlation(one, other, shift, step)
        best = max(seen, key=lambda shift: seen[shift])
        if best == at or seen[best] < HOPELESS:
            return seen[best]
        at = best


def _correlation(one: Floats, other: Floats, shift: tuple[int, int, int], stride: int = 1) -> float:
    """Return the correlation of ``one[p + shift]`` and ``other[p]`` over each `stride`-th p of both."""
    n = len(one)
    here = tuple(slice(max(0, k), n + min(0, k), stride) for k in shift)
    there = tuple(slice(max(0, -k), n + min(0, -k), stride) for k in shift)
    a, b = one[here].astype(np.float64).ravel(), other[there].astype(np.float64).ravel()
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / max(np.sqrt((a @ a) * (b @ b)), 1e-12))

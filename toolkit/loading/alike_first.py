"""The first look at crops that may be alike: which pairs are worth a second one, without trying all of many.

Up to `WHOLE` crops each is compared with each. Beyond, crops are put to the nearest of so many centres
(crops themselves, taken evenly) that `CELL` share one, and compared with those of the `PROBES` centres that
are nearest to them: of two copies, each is found from the other, and both would have to miss.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

KEPT = 5
"""Frequencies along each axis, the constant included, that are looked at."""
NEAREST = 8
ALL_PAIRS = 128
"""Up to so many crops each pair is worth a second look; the first needs a mean over many."""
FIRST = 0.6
"""Least correlation."""
CELL, PROBES = 4096, 8
WHOLE = 2 * CELL * PROBES
"""Crops from which on centres save anything."""
MOST_BYTES = 1 << 30
"""Of a block of correlations."""
MOST_FOUND = 1 << 24
"""Pairs that are held before all but the nearest are let go."""

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Found = tuple[Ints, Ints, Floats]


def windowed(prints: NDArray[np.uint8]) -> Floats:
    """Return fingerprints less their mean, faded to 0 towards the border; of length 1."""
    n = prints.shape[-1]
    fade = np.hanning(n + 2)[1:-1].astype(np.float32)
    window = fade[:, None, None] * fade[:, None] * fade
    values = prints.astype(np.float32)
    mean = (values * window).sum(axis=(1, 2, 3), keepdims=True) / window.sum()
    values = (values - mean) * window
    length = np.sqrt((values**2).sum(axis=(1, 2, 3), keepdims=True))
    windowed: Floats = values / np.maximum(length, np.float32(1e-6))
    return windowed


def first_look(prints: NDArray[np.uint8], whose: Ints, lively: Ints) -> Ints:
    """Return places of pairs worth a second look, int64 (pairs, 2), in order.

    Among up to `WHOLE` crops this takes 2 n^2 x 405 operations of a matrix product, beyond about
    2 n CELL PROBES x 405; a block of correlations takes at most `MOST_BYTES`.
    """
    if len(lively) <= ALL_PAIRS:
        places = lively.tolist()
        few = [(a, b) for n, a in enumerate(places) for b in places[n + 1 :] if whose[a] != whose[b]]
        return np.array(few, np.int64).reshape(-1, 2)
    spectra = _spectra(prints, lively)
    spectra -= spectra.mean(axis=0)
    spectra /= np.maximum(np.linalg.norm(spectra, axis=1, keepdims=True), np.float32(1e-6))
    owner = whose[lively]
    found: list[Found] = []
    for rows, members in _cells(spectra):
        theirs = spectra if len(members) == len(spectra) else spectra[members]
        step = max(1, min(256, MOST_BYTES // (4 * len(members))))
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            block = spectra[some] @ theirs.T
            block[owner[some, None] == owner[members]] = -1
            at, near = np.nonzero(block >= FIRST)
            found.append(_nearest((some[at], members[near], block[at, near])))
        if sum(len(each[0]) for each in found) > MOST_FOUND:
            found = [_nearest(_joined(found))]
    one, other, _ = _nearest(_joined(found))
    if not len(one):
        return np.empty((0, 2), np.int64)
    return np.unique(np.sort(np.stack([lively[one], lively[other]], axis=1), axis=1), axis=0)


def _spectra(prints: NDArray[np.uint8], places: Ints) -> Floats:
    """Return square roots of low-frequency magnitudes of some fingerprints, (n, values)."""
    kept = min(KEPT, prints.shape[-1] // 2)
    both = np.r_[0:kept, -kept + 1 : 0] if kept > 1 else np.zeros(1, int)
    spectra = np.empty((len(places), len(both) ** 2 * kept), np.float32)
    for start in range(0, len(places), 256):
        waves = np.fft.rfftn(windowed(prints[places[start : start + 256]]), axes=(1, 2, 3))
        low = waves[:, both][:, :, both][..., :kept]
        spectra[start : start + 256] = np.sqrt(np.abs(low)).reshape(len(low), -1)
    return spectra


def _cells(spectra: Floats) -> Iterator[tuple[Ints, Ints]]:
    """Yield (crops, those that they are compared with): numbers of spectra, in order."""
    every = np.arange(len(spectra))
    if len(spectra) <= WHOLE:
        yield every, every
        return
    centres = spectra[np.linspace(0, len(spectra) - 1, len(spectra) // CELL).astype(np.int64)]
    home = np.empty(len(spectra), np.int32)
    near = np.empty((len(spectra), PROBES), np.int32)
    for start in range(0, len(spectra), CELL):
        block = spectra[start : start + CELL] @ centres.T
        home[start : start + CELL] = block.argmax(axis=1)
        near[start : start + CELL] = np.argpartition(-block, PROBES - 1, axis=1)[:, :PROBES]
    homes, probes = np.argsort(home, kind="stable"), np.argsort(near, axis=None, kind="stable")
    numbers = np.arange(len(centres) + 1)
    own = np.searchsorted(home[homes], numbers)
    looking = np.searchsorted(near.ravel()[probes], numbers)
    for k in numbers[:-1]:
        members = homes[own[k] : own[k + 1]]
        if len(members):
            yield probes[looking[k] : looking[k + 1]] // PROBES, members


def _joined(found: list[Found]) -> Found:
    ones, others, values = zip(*found, strict=True)
    return np.concatenate(ones), np.concatenate(others), np.concatenate(values)


def _nearest(found: Found) -> Found:
    """Keep of every crop the pairs with the `NEAREST` that are most alike."""
    one, other, value = found
    order = np.lexsort((other, -value, one))
    sorted_ones = one[order]
    first = np.searchsorted(sorted_ones, sorted_ones)
    kept = order[np.arange(len(order)) - first < NEAREST]
    return one[kept], other[kept], value[kept]

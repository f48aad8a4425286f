"""Nodules of the phantom at an exact imbalance, as a store and a split of their own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.loading.split import class_of
from toolkit.store import Store

SPACING_MM, SIZE = 0.75, 32


def phantom_store(work: Path, patients: int) -> Store:
    """Make a phantom archive and its store by the command line; what is there is taken."""
    archive, store = work / "archive", work / "all"
    if not (store / "nodules.csv").exists():
        _toolkit("phantom", archive, "--patients", patients, "--workers", 2)
        _toolkit("preprocess", archive, store, "--spacing", SPACING_MM, "--size", SIZE)
    return Store.open(store)


def choose(classes: list[str], ratio: int, seed: int) -> NDArray[np.int64]:
    """Return the largest set of nodules with `ratio` benign to 1 malignant, in order, int64.

    Of the class that there is too much of, chance leaves some out.
    """
    bad, good = (np.flatnonzero(np.array(classes) == name) for name in ("malignant", "benign"))
    positives = min(len(bad), len(good) // ratio)
    random = np.random.default_rng([seed, ratio])
    parts = [
        random.choice(each, count, replace=False)
        for each, count in ((bad, positives), (good, positives * ratio))
    ]
    return np.sort(np.concatenate(parts))


def imbalanced_store(source: Store, out: Path, ratio: int, seed: int) -> Store:
    """Copy the chosen nodules of a store into a new one; an older one is taken."""
    if (out / "nodules.csv").exists():
        return Store.open(out)
    chosen = choose([class_of(nodule) for nodule in source.nodules], ratio, seed).tolist()
    images = np.stack([source.image(i) for i in chosen])
    masks = np.stack([source.mask(i) for i in chosen])
    records = [source.nodules[i] for i in chosen]
    return Store.create(out, records, images, masks, source.spacing_mm, margin=source.margin)


def _toolkit(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "toolkit", *map(str, words)], check=True)

"""What a model saw in training: ranges of size, density and resolution, kept in the model file."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from toolkit.evaluation.predictions import diameters
from toolkit.models.folder import Range
from toolkit.store import Store
from toolkit.store.scans import source_spacing

Floats = NDArray[np.float64]


def features(store: Store, index: NDArray[np.int64]) -> dict[str, Floats]:
    """Return what ranges are kept of: name to values of the nodules `index`, float64 (n,).

    ``diameter_mm``; ``mean_hu`` of the nodule; ``slice_spacing_mm`` and ``pixel_spacing_mm`` of its scan.
    NaN where unknown.
    """
    from toolkit.models.measured import measure

    nodules = [store.nodules[i] for i in index.tolist()]
    spacing = source_spacing(store)
    unknown = (np.nan, np.nan)
    scans = np.array([spacing.get(nodule.case_id, unknown) for nodule in nodules], np.float64).reshape(-1, 2)
    return {
        "diameter_mm": diameters(nodules),
        "mean_hu": measure(store, index, ("mean_hu",))[:, 0],
        "slice_spacing_mm": scans[:, 0],
        "pixel_spacing_mm": scans[:, 1],
    }


def seen_ranges(store: Store, index: NDArray[np.int64]) -> Mapping[str, Range]:
    """Return the range of each feature over the nodules `index`; one that no nodule has is left out."""
    found = {}
    for name, values in features(store, index).items():
        known = values[~np.isnan(values)]
        if len(known):
            found[name] = Range(*np.percentile(known, (0, 1, 50, 99, 100)).tolist())
    return found

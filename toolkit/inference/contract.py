"""Whether a store holds what a model was made for; else each difference by name, measured and expected."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import Problem, UsageError
from toolkit.loading.augment import AugmentConfig
from toolkit.models.folder import InputContract
from toolkit.store import Store

SAME_SPACING = 1e-6  # relative


def check_store(contract: InputContract, store: Store) -> None:
    """Raise `UsageError` E-PRED-001 where format, spacing or size differ, naming each."""
    wrong = []
    stored = int(store.settings["format"])
    if stored != contract.store_format:
        wrong.append(("format", f"{stored}", f"{contract.store_format}"))
    if abs(store.spacing_mm - contract.spacing_mm) > SAME_SPACING * contract.spacing_mm:
        wrong.append(("spacing", f"{store.spacing_mm:g} mm", f"{contract.spacing_mm:g} mm"))
    side = store.size + 2 * store.margin
    if side < contract.size:
        wrong.append(("size", f"{side} voxels", f"at least {contract.size} voxels"))
    elif (side - contract.size) % 2 != contract.half_voxel:
        kind = "odd" if (contract.size + contract.half_voxel) % 2 else "even"
        wrong.append(("size", f"{side} voxels", f"an {kind} number, for patches centred as in training"))
    if wrong:
        measured = ", ".join(f"{name} {found}" for name, found, _ in wrong)
        expected = ", ".join(f"{name} {wanted}" for name, _, wanted in wrong)
        action = "Nothing predicted; preprocess the archive with these settings, or predict from the archive"
        what = "the model was made for another store"
        raise UsageError(Problem("E-PRED-001", what, measured, expected, action))


def check_nodules(
    contract: InputContract, store: Store, index: NDArray[np.int64], measured: NDArray[np.float64]
) -> None:
    """Refuse nodules that lack what the model is fed.

    Parameters
    ----------
    index
        int64 (n,), of the nodules.
    measured
        float64 (n, k), the contract's measured features of those; NaN where unknown.

    Raises
    ------
    UsageError
        E-PRED-002 where the mask mode meets a nodule without a mask, or no nodule has a measured feature.
    """
    wrong = []
    bare = sum(nodule.mask_source == "none" for nodule in store.nodules)
    if contract.mask_mode != "none" and bare:
        wrong.append((f"{bare} of {len(store)} nodules have no mask", f"masks (mode {contract.mask_mode})"))
    for k, name in enumerate(contract.measured):
        if len(index) and np.isnan(measured[:, k]).all():
            wrong.append((f"no nodule has the feature {name}", f"{name} measured"))
    if wrong:
        found, wanted = (", ".join(texts) for texts in zip(*wrong, strict=True))
        action = "Nothing predicted; give nodules with masks, or a model that needs none"
        what = "the model needs what the nodules do not have"
        raise UsageError(Problem("E-PRED-002", what, found, wanted, action))


def inputs(contract: InputContract) -> AugmentConfig:
    """Return what happens to crops in prediction: window and mask of the contract, and nothing by chance."""
    values: dict[str, Any] = {"window_hu": contract.window_hu, "mask_mode": contract.mask_mode}
    return AugmentConfig(**values, edge_mm=contract.edge_mm)

"""Where the network of a run sees evidence for malignancy in a nodule, by Grad-CAM; for the report."""

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import UsageError
from toolkit.evaluation.predictions import read_predictions
from toolkit.inference.contract import inputs
from toolkit.inference.explain import grad_cam
from toolkit.inference.predictor import Predictor, open_predictor, scaled_features, unlabelled
from toolkit.loading.open import open_loader
from toolkit.loading.plan import Plan
from toolkit.loading.sampler import SequentialSampler
from toolkit.store import Store
from toolkit.training.run_folder import RunFolder

Evidence = Callable[[int], NDArray[np.float32]]


def run_evidence(run: RunFolder, store: Store, *, allow_import: bool = False) -> Evidence | None:
    """Return what gives the evidence in a nodule of the store, float32 (d, h, w) in [0, 1] over the patch.

    Of a cross-validation it is the network of the first fold that had the nodule on its test side. None
    where the run has no model yet. Errors of a model folder are those of `open_predictor`.
    """
    of_nodule = {}
    for fold in reversed(run.folds()):
        if fold.predictions("test").exists():
            for name in read_predictions(fold.predictions("test")).nodule_id.tolist():
                of_nodule[name] = fold
    if not of_nodule and not (run.model / "model.json").exists():
        return None

    @cache
    def predictor(folder: RunFolder) -> Predictor:
        return open_predictor(folder.model, "cpu", "float32", allow_import=allow_import)

    predictor(next(iter(of_nodule.values()), run))  # what is wrong with it is told here

    def evidence(index: int) -> NDArray[np.float32]:
        return _evidence(predictor(of_nodule.get(store.nodules[index].nodule_id, run)), store, index)

    return evidence


def _evidence(predictor: Predictor, store: Store, index: int) -> NDArray[np.float32]:
    import torch

    contract = predictor.file.input
    one = np.array([index], np.int64)
    plan = Plan(store, SequentialSampler(unlabelled(store, one), batch=1), inputs(contract), contract.size)
    file, network = predictor.models[0]
    measured = torch.from_numpy(scaled_features(file, store, one)) if contract.measured else None
    with open_loader(plan, "fused", "cpu", 1) as loader:
        image = next(iter(loader.epoch(0))).image
        try:
            return grad_cam(network, image, measured)
        except UsageError as error:
            if error.problem.code != "E-MODEL-006":
                raise
            return np.zeros(image.shape[2:], np.float32)  # no map of more than one voxel: nothing to show

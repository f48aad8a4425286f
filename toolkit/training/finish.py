"""The end of a partition: selected weights, calibrated and with a threshold, both frozen on validation."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolkit.evaluation.calibration import fit
from toolkit.evaluation.predictions import Predictions, of_nodules, write_predictions
from toolkit.evaluation.thresholds import choose
from toolkit.loading.split import indices
from toolkit.models.folder import InputContract, ModelFile, write_model
from toolkit.models.seen import seen_ranges
from toolkit.store.format import FORMAT_VERSION, canonical_json, digest
from toolkit.training import checkpoint
from toolkit.training.job import Job

if TYPE_CHECKING:
    import torch


def finish(job: Job, *, test: bool) -> None:
    """Write ``model/`` and the predictions of validation, and with `test` those of the test side.

    Calibration and threshold see the scored validation nodules alone. Only rank 0 writes.
    """
    model = job.network()
    weights, state = checkpoint.load(job.folder.best)
    model.load_state_dict(weights)
    model = model.eval().to(job.machine.device)
    val = indices(job.store, job.sides.partition.val)
    shown = {int(i): z for i, z in zip(val, look(job, model, val), strict=True)}
    scored = job.sides.validation
    file = describe(job, np.array([shown[int(i)] for i in scored]), int(state["epoch"]))
    if job.machine.ranks.first:
        write_model(job.folder.model, file, weights)
        logit = np.array([shown[int(i)] for i in val], np.float64)
        write_predictions(job.folder.predictions("val"), predictions(job, file, val, logit))
    if test:
        index = indices(job.store, job.sides.partition.test)
        logit = look(job, model, index)
        if job.machine.ranks.first:
            write_predictions(job.folder.predictions("test"), predictions(job, file, index, logit))


def look(job: Job, model: "torch.nn.Module", index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return raw logits of nodules, float64 (n,)."""
    with job.view(index) as view:
        return view.logits(model, job.machine.device)


def describe(job: Job, logit: NDArray[np.float64], epoch: int) -> ModelFile:
    """Return what ``model.json`` says; `logit` is that of the scored validation nodules."""
    config, sides, balance = job.config, job.sides, job.balance
    label, patient = sides.label[sides.validation], sides.patient[sides.validation]
    goal = config.threshold.rule
    augmentation = config.augmentation
    architecture = {
        "name": config.model.name,
        "options": dict(config.model.options),
        "dropout": config.model.dropout,
        "stem_stride": config.model.stem_stride,
    }
    contract = InputContract(
        store_format=FORMAT_VERSION,
        spacing_mm=job.store.spacing_mm,
        size=job.size,
        window_hu=augmentation.window_hu,
        mask_mode=augmentation.mask_mode,
        edge_mm=augmentation.edge_mm,
        channels=job.channels,
        measured=config.model.measured,
        half_voxel=(job.store.size - job.size) % 2 == 1,
    )
    provenance = {
        "configuration": digest(canonical_json(config.model_dump(mode="json"))),
        "store": str(job.store.settings["config_digest"]),
        "partition": sides.partition.name,
        "seed": config.seed,
        "epoch": epoch,
        "training_nodules": len(sides.teaching),
        "validation_nodules": len(sides.validation),
    }
    return ModelFile(
        architecture=architecture,
        input=contract,
        labels=config.labels.rule,
        prior=balance.prior,
        plain_prior=balance.plain_prior,
        calibration=fit(logit, label, balance.plain_prior, balance.prior),
        threshold=choose(goal, logit, label, patient, config.prevalence).threshold,
        goal=goal,
        prevalence=config.prevalence or balance.plain_prior,
        seen=seen_ranges(job.store, sides.teaching),
        provenance=provenance,
        measured=job.scaling.stored if job.scaling else {},
    )


def predictions(
    job: Job, file: ModelFile, index: NDArray[np.int64], logit: NDArray[np.float64]
) -> Predictions:
    """Return predictions of nodules of the store from their raw logits."""
    return of_nodules(
        [job.store.nodules[i] for i in index.tolist()],
        job.sides.partition.name,
        file.labels,
        logit=logit,
        calibrated=file.calibration.logit(logit, file.plain_prior),
        probability=file.calibration.probability(logit, file.prevalence),
        threshold=file.threshold,
    )

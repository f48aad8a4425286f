"""The models of a cross-validation as one, judged on what none of them had seen."""

from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from toolkit.evaluation.calibration import Calibration
from toolkit.evaluation.predictions import Predictions, read_predictions, write_predictions
from toolkit.evaluation.thresholds import choose
from toolkit.models.folder import ModelFile, Range, read_model_file, write_ensemble
from toolkit.training.run_folder import RunFolder


def pool(run: RunFolder) -> Predictions:
    """Write the out-of-fold predictions of all folds as the run's test predictions, and return them.

    Each line keeps its own fold's calibration and frozen threshold.
    """
    parts = [read_predictions(fold.predictions("test")) for fold in run.folds()]
    columns = {
        each.name: np.concatenate([getattr(part, each.name) for part in parts])
        for each in fields(Predictions)
    }
    pooled = Predictions(**columns)
    write_predictions(run.predictions("test"), pooled)
    return pooled


def write_model_of_folds(run: RunFolder, pooled: Predictions, prevalence: float | None) -> ModelFile:
    """Write the ensemble as the run's ``model/``.

    Its raw logit is the mean of its members' calibrated logits at `plain_prior`. Its threshold is chosen on
    the pooled out-of-fold predictions, each of a single member: no nodule was seen by the model that judged
    it.
    """
    files = {fold.path.name: read_model_file(fold.model) for fold in run.folds()}
    members = list(files.values())
    first = members[0]
    plain = float(np.mean([file.plain_prior for file in members]))
    _, patient = np.unique(pooled.patient_id, return_inverse=True)
    chosen = choose(first.goal, pooled.calibrated, pooled.label, patient, prevalence)
    file = replace(
        first,
        architecture={},
        prior=plain,
        plain_prior=plain,
        calibration=Calibration(1.0, 0.0, plain, "none"),
        threshold=chosen.threshold,
        prevalence=prevalence or plain,
        seen=_widest([file.seen for file in members]),
        provenance={
            **{name: first.provenance[name] for name in ("configuration", "store", "seed")},
            "partition": f"{len(members)} folds",
            "epoch": [file.provenance["epoch"] for file in members],
        },
        members=tuple(files),
    )
    write_ensemble(run.model, file, {name: run.path / "folds" / name / "model" for name in files})
    return file


def _widest(ranges: list[dict[str, Range]]) -> dict[str, Range]:
    """Return ranges that hold all, the middle ones as their means."""
    found = {}
    for name in sorted({name for each in ranges for name in each}):
        some = [each[name] for each in ranges if name in each]
        middle: list[NDArray[np.float64]] = [
            np.mean([getattr(r, k) for r in some]) for k in ("low", "median", "high")
        ]
        found[name] = Range(min(r.least for r in some), *map(float, middle), max(r.largest for r in some))
    return found

"""The models of a cross-validation as one, judged on what none of them had seen."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

import numpy as np

from toolkit.evaluation.calibration import Calibration
from toolkit.evaluation.predictions import Predictions, read_predictions, write_predictions
from toolkit.evaluation.thresholds import choose
from toolkit.models.folder import Range, read_model_file, write_ensemble
from toolkit.training.run_folder import RunFolder


def write_folds_as_one(run: RunFolder, prevalence: float | None) -> None:
    """Write the pooled out-of-fold predictions of a cross-validation, and its models as one ensemble.

    Each line of the predictions keeps its own fold's calibration and frozen threshold. The ensemble's raw
    logit is the mean of its members' calibrated logits at `plain_prior`; its threshold is chosen on the
    out-of-fold logits at that share: no nodule was seen by the model that judged it.
    """
    folds = run.folds()
    parts = [read_predictions(fold.predictions("test")) for fold in folds]
    columns = (np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(Predictions))
    pooled = Predictions(*columns)
    write_predictions(run.predictions("test"), pooled)
    members = [read_model_file(fold.model) for fold in folds]
    first = members[0]
    plain = float(np.mean([file.plain_prior for file in members]))
    logit = [file.calibration.logit(part.logit, plain) for file, part in zip(members, parts, strict=True)]
    chosen = choose(first.goal, np.concatenate(logit), pooled.label, pooled.patient_id, prevalence)
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
        members=tuple(fold.path.name for fold in folds),
    )
    write_ensemble(run.model, file, {fold.path.name: fold.model for fold in folds})


def _widest(ranges: Sequence[Mapping[str, Range]]) -> dict[str, Range]:
    """Return ranges that hold all, the middle ones as their means."""
    found = {}
    for name in sorted({name for each in ranges for name in each}):
        some = [each[name] for each in ranges if name in each]
        low, median, high = (float(np.mean([getattr(r, k) for r in some])) for k in ("low", "median", "high"))
        found[name] = Range(min(r.least for r in some), low, median, high, max(r.largest for r in some))
    return found

"""The test side of a run: predicted once, looked at by count, evaluated beside what size alone knows."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.device import Device
from toolkit.errors import Problem, UsageError
from toolkit.evaluation.baseline import fit_diameter
from toolkit.evaluation.calibration import log_odds, sigmoid
from toolkit.evaluation.evaluate import evaluate
from toolkit.evaluation.evaluation import Evaluation, write_evaluation
from toolkit.evaluation.labels import LabelRule
from toolkit.evaluation.predictions import (
    Predictions,
    diameters,
    of_nodules,
    read_predictions,
    write_predictions,
)
from toolkit.inference.predictor import (
    Predictor,
    check_prevalence,
    model_digest,
    open_predictor,
    predict_store,
)
from toolkit.inference.scores import Scores
from toolkit.loading.split import Partition, Split, indices
from toolkit.loading.split_file import read_split
from toolkit.models.folder import ModelFile
from toolkit.progress import bar
from toolkit.store import Store
from toolkit.store.files import write_atomic
from toolkit.store.format import digest
from toolkit.store.scans import source_spacing
from toolkit.training.run_folder import RunFolder

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Look:
    """One look at a test side, a line of ``log/looks.jsonl``.

    `look` counts from 1, `model` is the digest of the model folder, `predictions` that of the file made then.
    """

    look: int
    model: str
    predictions: str
    nodules: int


@dataclass(frozen=True)
class Evaluated:
    """What was found, how often this test side was looked at, and whether an earlier look was used again."""

    evaluation: Evaluation
    looks: int
    used_again: bool


def evaluate_run(
    path: Path,
    store_path: Path | None = None,
    *,
    prevalence: float | None = None,
    device: Device = "auto",
    draws: int = 2000,
    seed: int = 0,
    allow_import: bool = False,
) -> Evaluated:
    """Evaluate the test side of a run and write ``evaluation.json``.

    A cross-validation is evaluated on the out-of-fold predictions that training wrote. Of a single run the
    test side is predicted, unless ``predictions_test.csv`` of this very model is there already.

    Parameters
    ----------
    store_path
        The store, where it is not at the place that the run remembers.
    prevalence
        That probabilities refer to; the model's own when None.
    draws, seed
        Of the bootstrap.

    Raises
    ------
    UsageError
        E-RUN-001 where the run has no model or its store is not known, E-SPLIT-003 where the store is another
        than the run's, E-EVAL-001 to E-EVAL-003 where there is nothing to evaluate, else as `predict_store`.
    """
    from toolkit.models.folder import read_model_file

    run = RunFolder(path)
    store = Store.open(store_path or _remembered(run))
    file = read_model_file(_model(run))
    split = read_split(run.split, store, compare_crops=False)  # training has compared them
    _need_test_side(split)
    declared = file.prevalence if prevalence is None else prevalence
    check_prevalence(declared)
    shown = file.prior
    if run.folds():
        found, used_again = read_predictions(run.predictions("test")), True
        folds = _fold_models(run, store)
        prior = {name: fold.plain_prior for name, fold in folds.items()}
        shown = float(np.mean([fold.prior for fold in folds.values()]))  # the ensemble's logit carries none
    else:
        (part,) = split.partitions
        found, used_again = _predicted(run, file, store, part, device, allow_import=allow_import)
        prior = {part.name: file.plain_prior}
    found = _declared(found, prior, declared)
    made = evaluate(
        found,
        baseline=_baseline(found, split, store, file.labels),
        goal=file.goal,
        beta=file.goal.beta,
        prevalence=declared,
        plain_prior=file.plain_prior,
        prior=shown,
        spacing_mm=source_spacing(store),
        solid_share=_solid_share(found, store),
        draws=draws,
        seed=seed,
    )
    write_evaluation(run.evaluation, made)
    return Evaluated(made, len(read_looks(run)), used_again)


def read_looks(run: RunFolder) -> list[Look]:
    """Return all looks at the test side of a run; raises `UsageError` E-RUN-001 where the list is damaged."""
    path = run.log / "looks.jsonl"
    try:
        return [Look(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        what = "the list of looks at the test side is damaged"
        action = "Nothing done; put it back from a copy, or mend its line: no look may be forgotten"
        raise UsageError(Problem("E-RUN-001", what, action=action, files=(str(path),))) from error


def as_predictions(scores: Scores, partition: str, rule: LabelRule) -> Predictions:
    """Return scores of one partition with what is known of the nodules, to be evaluated."""
    return of_nodules(
        scores.nodules,
        partition,
        rule,
        logit=scores.logit,
        calibrated=scores.calibrated,
        probability=scores.probability,
        threshold=scores.threshold,
    )


def _predicted(
    run: RunFolder, file: ModelFile, store: Store, part: Partition, device: Device, *, allow_import: bool
) -> tuple[Predictions, bool]:
    """Return predictions of the test side, and whether they are those of an earlier look."""
    path, looks = run.predictions("test"), read_looks(run)
    made = {(look.model, look.predictions) for look in looks}
    if path.is_file() and (model_digest(run.model), digest(path.read_bytes())) in made:
        return read_predictions(path), True
    predictor = open_predictor(run.model, device, allow_import=allow_import)
    scores = _test_scores(predictor, store, part)
    predictions = as_predictions(scores, part.name, file.labels)
    write_predictions(path, predictions)
    look = Look(len(looks) + 1, predictor.digest, digest(path.read_bytes()), len(scores))
    lines = [json.dumps(vars(each), sort_keys=True) + "\n" for each in (*looks, look)]
    write_atomic(run.log / "looks.jsonl", "".join(lines).encode())
    return predictions, False


def _test_scores(predictor: Predictor, store: Store, part: Partition) -> Scores:
    index = indices(store, part.test)
    with bar("test side", len(index) * len(predictor.models), "nodules") as advance:
        return predict_store(predictor, store, index, progress=advance)


def _declared(found: Predictions, plain_prior: Mapping[str, float], prevalence: float) -> Predictions:
    """Return predictions with probabilities at a prevalence; decisions stay."""
    foreign = sorted({*found.partition.tolist()} - plain_prior.keys())
    if foreign:
        measured, expected = f"partition {foreign[0]!r:.60}", f"one of {len(plain_prior)} of the run"
        raise UsageError(Problem("E-EVAL-002", "predictions are of another partition", measured, expected))
    at = np.array([log_odds(plain_prior[name]) for name in found.partition.tolist()])
    return replace(found, probability=sigmoid(found.calibrated - at + log_odds(prevalence)))


def _baseline(found: Predictions, split: Split, store: Store, rule: LabelRule) -> Floats:
    """Return the logits of diameter alone, fitted on the training side of each line's own partition."""
    logit = np.full(len(found), np.nan)
    for part in split.partitions:
        nodules = [store.nodules[i] for i in indices(store, part.train).tolist()]
        model = fit_diameter(diameters(nodules), rule.classes(rule.targets(nodules)))
        here = found.partition == part.name
        logit[here] = model.logit(found.diameter_mm[here])
    return logit


def _solid_share(found: Predictions, store: Store) -> Floats:
    from toolkit.models.measured import measure

    number = {nodule.nodule_id: i for i, nodule in enumerate(store.nodules)}
    index = np.array([number[name] for name in found.nodule_id.tolist()], np.int64)
    each, back = np.unique(index, return_inverse=True)
    return np.asarray(measure(store, each, ("solid_share",))[back, 0], np.float64)


def _fold_models(run: RunFolder, store: Store) -> dict[str, ModelFile]:
    """Return the model file of each fold by the name of its partition."""
    from toolkit.models.folder import read_model_file

    return {
        part.name: read_model_file(_model(fold))
        for fold in run.folds()
        for part in read_split(fold.split, store, compare_crops=False).partitions
    }


def _need_test_side(split: Split) -> None:
    empty = [part.name for part in split.partitions if not part.test]
    if empty:
        action = (
            "Nothing done; toolkit split STORE --holdout 0.15/0.15 or --folds 5 makes one, then train anew"
        )
        measured = f"0 nodules in {len(empty)} of {len(split.partitions)} partitions"
        raise UsageError(Problem("E-EVAL-003", "there is no test side", measured, "at least 1", action))


def _model(run: RunFolder) -> Path:
    if not (run.model / "model.json").is_file():
        action = "Nothing done; let toolkit train finish first"
        raise UsageError(Problem("E-RUN-001", "no trained model here", action=action, files=(str(run.path),)))
    return run.model


def _remembered(run: RunFolder) -> Path:
    """Return where the run's store was when it was trained."""
    path = run.log / "where.json"
    try:
        value: Any = json.loads(path.read_text("utf-8"))
        return Path(value["store"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        action = "Nothing done; name the store with --store"
        what = "the run does not say where its store is"
        raise UsageError(Problem("E-RUN-001", what, action=action, files=(str(path),))) from error

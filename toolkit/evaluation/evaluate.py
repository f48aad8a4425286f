"""One look at one side: everything that is to be known of it, from its predictions."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import Problem, UsageError
from toolkit.evaluation.bands import curves
from toolkit.evaluation.bootstrap import intervals
from toolkit.evaluation.calibration import log_odds, prior_shift
from toolkit.evaluation.evaluation import Baseline, Evaluation, Miss, Part
from toolkit.evaluation.metrics import count, ranking
from toolkit.evaluation.operating import PREVALENCES, decision_curve, operating_points, predictive
from toolkit.evaluation.pooled import Lines, Side, pool
from toolkit.evaluation.predictions import Predictions
from toolkit.evaluation.quality import Quality, quality
from toolkit.evaluation.results import Interval
from toolkit.evaluation.sentences import against_size, sentences
from toolkit.evaluation.subgroups import subgroups
from toolkit.evaluation.thresholds import Goal

Floats = NDArray[np.float64]
CALIBRATION_DRAWS = 400
SHOWN = 12


def evaluate(
    predictions: Predictions,
    *,
    baseline: Floats,
    goal: Goal,
    beta: float,
    prevalence: float,
    plain_prior: float,
    prior: float,
    spacing_mm: Mapping[str, tuple[float, float]] | None = None,
    solid_share: Floats | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Evaluation:
    """Evaluate the predictions of one side, or of all folds of a cross-validation.

    Parameters
    ----------
    predictions
        n lines; ``calibrated`` is at `plain_prior`, ``probability`` at `prevalence`. Partitions named
        ``repeat r fold f`` are pooled by repeat; all others are one repeat.
    baseline
        Logits of the diameter-only model (`toolkit.evaluation.baseline`) for the same lines, (n,).
    goal, beta
        Of the frozen threshold, and of the F-beta that is told beside it.
    prevalence, plain_prior, prior
        The declared one, that of the training nodules, and the one that training effectively had.
    spacing_mm
        By case id: distance between slices, and between pixels.
    solid_share
        Share of each nodule that is solid, (n,), NaN where unknown.

    Raises
    ------
    UsageError
        E-EVAL-001 where a class has fewer than 2 nodules, E-EVAL-002 where lines contradict each other.
    """
    # longer than 40 lines for its docstring and the list of what is told; nothing is computed here
    side = pool(predictions, baseline, draws, seed)
    lines = side.lines
    first = side.first
    area, precision, size = _ranks(side)
    frozen, points, tally = operating_points(side, goal, beta, log_odds(prevalence) - log_odds(plain_prior))
    roc, precision_recall = curves(side)
    share = None if solid_share is None else solid_share[~np.isnan(predictions.label)]
    nodules, positives = int(first.sum()), int(lines.label[first].sum())
    found = Evaluation(
        nodules=nodules,
        patients=len(np.unique(lines.patient_id)),
        positives=positives,
        unscored=len(np.unique(predictions.nodule_id[np.isnan(predictions.label)])),
        repeats=len(side.repeats),
        prior=prior,
        plain_prior=plain_prior,
        prevalence=prevalence,
        observed=positives / nodules,
        goal=goal.words,
        beta=beta,
        draws=draws,
        seed=seed,
        auroc=area,
        average_precision=precision,
        parts=_parts(side),
        frozen=frozen,
        points=tuple(points),
        predictive=predictive(tally, frozen, sorted({*PREVALENCES, prevalence})),
        calibration=_calibration(side, prior, plain_prior),
        decision_curve=decision_curve(side, prevalence, plain_prior),
        subgroups=subgroups(side, share, spacing_mm),
        baseline=size,
        roc=roc,
        precision_recall=precision_recall,
        false_negatives=_misses(side, 0),
        false_positives=_misses(side, 1),
        sentences=(),
    )
    return replace(found, sentences=sentences(found, goal))


def _ranks(side: Side) -> tuple[Interval, Interval, Baseline]:
    """Return AUROC and average precision, and the same of size alone with the paired differences."""

    def statistic(some: Lines, weights: Floats) -> Floats:
        model = ranking(side.lines.calibrated[some], side.lines.label[some], weights)
        size = ranking(side.baseline[some], side.lines.label[some], weights)
        apart = [ours - theirs for ours, theirs in zip(model, size, strict=True)]
        return np.stack([*model, *size, *apart], axis=1)

    value, drawn = side.resample(statistic)
    behind = min(side.patients(side.lines.label == k) for k in (1, 0))
    area, precision, size_area, size_precision = intervals(value[:4], drawn[:, :4], [behind] * 4)
    apart, precision_apart = intervals(value[4:], drawn[:, 4:])
    verdict = against_size(apart, not np.isnan(side.lines.diameter_mm).all())
    return area, precision, Baseline(size_area, size_precision, apart, precision_apart, verdict)


def _parts(side: Side) -> tuple[Part, ...]:
    """Return the values of each partition; raises `UsageError` E-EVAL-002 where it has two thresholds."""
    told = []
    for name in sorted(set(side.lines.partition.tolist()), key=_natural):
        some = np.flatnonzero(side.lines.partition == name)
        label = side.lines.label[some]
        thresholds = np.unique(side.lines.threshold[some])
        if len(thresholds) > 1:
            measured = f"{len(thresholds)} thresholds in one partition"
            raise UsageError(Problem("E-EVAL-002", "predictions contradict each other", measured, "one"))
        area, precision = ranking(side.lines.logit[some], label)
        counts = count(side.lines.decision[some] == 1, label)
        values = (area[0], precision[0], counts.recall[0], counts.specificity[0])
        told.append(
            Part(name, len(some), int(label.sum()), float(thresholds[0]), *(float(each) for each in values))
        )
    return tuple(told)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort fold 10 after fold 9."""
    return [(int(each), "") if each.isdigit() else (-1, each) for each in name.split()]


def _calibration(side: Side, prior: float, plain_prior: float) -> dict[str, Quality]:
    stages = {
        "raw": side.lines.logit,
        "prior corrected": prior_shift(side.lines.logit, prior, plain_prior),
        "calibrated": side.lines.calibrated,
    }
    draws = min(side.draws, CALIBRATION_DRAWS)
    label, patient, once = side.lines.label, side.lines.patient_id, side.first
    return {name: quality(each, label, patient, draws, side.seed, once) for name, each in stages.items()}


def _misses(side: Side, decision: int) -> tuple[Miss, ...]:
    """Return the wrong decisions of a kind that the model was surest of; each nodule once, at its worst."""
    lines = side.lines
    wrong = np.flatnonzero((lines.decision == decision) & (lines.label != decision))
    margin = lines.calibrated[wrong] * (-1 if decision else 1)
    wrong = wrong[np.lexsort((lines.nodule_id[wrong], margin))]
    _, first = np.unique(lines.nodule_id[wrong], return_index=True)
    return tuple(
        Miss(
            nodule_id=str(lines.nodule_id[k]),
            case_id=str(lines.case_id[k]),
            partition=str(lines.partition[k]),
            label=int(lines.label[k]),
            decision=decision,
            probability=float(lines.probability[k]),
            calibrated=float(lines.calibrated[k]),
            diameter_mm=float(lines.diameter_mm[k]),
        )
        for k in wrong[np.sort(first)[:SHOWN]]
    )

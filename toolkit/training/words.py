"""What the curves of a run say, in plain words with their numbers; nothing that the noise does not allow."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.evaluation.bootstrap import patient_counts
from toolkit.evaluation.influence import Floats, influence, standard_error
from toolkit.evaluation.metrics import paired
from toolkit.evaluation.results import Interval, Summary
from toolkit.training.change import (
    ERRORS,
    FROM_BEST_ERRORS,
    WINDOW,
    Change,
    Validation,
    best,
    change,
    error_of,
    paired_error,
)
from toolkit.training.record import EpochRecord, selection_value
from toolkit.training.stopping import WORDS

FEWEST = 2 * WINDOW
RARE = 0.05


@dataclass(frozen=True)
class Finding:
    """A question, its answer in a sentence or two, and what speaks for it.

    Attributes
    ----------
    kind
        The answer as a word for programs.
    figures
        The numbers of the evidence by name.
    """

    question: str
    answer: str
    evidence: tuple[str, ...] = ()
    kind: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


DRIFT = (
    "The threshold drifts, the ranking does not get worse: malignant nodules move below 0.5 but keep ranks. "
)
RECALL = {
    "none": "It does not fall beyond the noise: what goes up and down is luck of the few malignant nodules.",
    "ranking": "The ranking itself gets worse since epoch {since}: malignant nodules sink among the benign, "
    "and no threshold brings that back. The weights of epoch {kept} are kept.",
    "threshold": DRIFT + "Judge by AUROC and by recall at the chosen threshold, not at 0.5.",
    "goal": DRIFT + "Recall at the chosen threshold falls, too: its goal allows that.",
}
OVERFITTING = {
    "none": "No sign of it: training and validation differ by no more than the noise.",
    "gap": "It knows its training nodules better, but validation does not get worse: no harm so far. More "
    "data or stronger augmentation may close the gap.",
    "confidence": "In its confidence only: the loss of validation rises while the ranking stays. "
    "Probabilities get too sure; calibration on validation takes that back.",
    "harm": "Yes: the ranking of validation gets worse since epoch {since}. Stronger augmentation, more "
    "weight decay or a smaller network may help.",
}
PEAK = {
    "kept": "Epoch {peak} is the kept one: the highest by itself and of the smoothed curve.",
    "luck": "No: it cannot be told from luck. Epoch {kept} is kept, the highest of the smoothed curve.",
    "real": "Yes: it stands above epoch {kept}, which is kept, by more than luck. It did not last, though: a "
    "lower learning rate or slower averaging may hold it.",
}


def why_recall_falls(records: Sequence[EpochRecord], validation: Validation | None = None) -> Finding:
    """Tell a falling ranking from a drifting threshold.

    With `validation` the noise of a change is that of the paired difference; without, that of one epoch's
    interval, which is wider as a rule.

    Returns
    -------
        Of the kinds ``none``: recall at 0.5 does not fall beyond the noise; ``ranking``: the area under the
        ROC curve falls; ``threshold``: it does not, so that 0.5 moves over the ranks; ``goal``: and recall at
        the chosen threshold falls as well; ``short``: too few epochs.
    """
    question, now = "Why does recall fall while the loss falls?", len(records)
    if now < FEWEST:
        return _short(question, now)
    half, rank, chosen = _curves(records, validation)
    recall = half.change(best(half.values), now, FROM_BEST_ERRORS)
    ranking = rank.change(best(rank.values), now, FROM_BEST_ERRORS)
    then = recall.then if recall.then < now else WINDOW
    at = chosen.change(then, now)
    evidence = (
        recall.words("Recall at 0.5"),
        ranking.words("AUROC"),
        at.words("Recall at the chosen threshold"),
        *_losses(records, then),
    )
    kind = "none"
    if recall.fell:
        kind = "ranking" if ranking.fell else "goal" if at.fell else "threshold"
    answer = RECALL[kind].format(since=ranking.then, kept=records[-1].best_epoch)
    figures = {"recall": recall.step, "auroc": ranking.step, "recall_at_threshold": at.step}
    return Finding(question, answer, evidence, kind, figures)


def overfitting(records: Sequence[EpochRecord], validation: Validation | None = None) -> Finding:
    """Compare training with validation, both without augmentation.

    Returns
    -------
        Of the kinds ``none``: no gap beyond the noise; ``gap``: training is ahead, validation does not get
        worse; ``confidence``: the loss of validation rises while its ranking stays; ``harm``: the ranking of
        validation falls; ``short``: too few epochs.
    """
    question, now = "Does it overfit?", len(records)
    if now < FEWEST:
        return _short(question, now)
    _, rank, _ = _curves(records, validation)
    val = rank.change(best(rank.values), now, FROM_BEST_ERRORS)
    train = change([each.train.auroc.value for each in records], now, now).after
    # the two sides share no nodule, so their errors add up
    newest = records[-1]
    noise = ERRORS * math.hypot(error_of(newest.train.auroc), error_of(newest.val.auroc))
    losses = [each.val.loss for each in records]
    loss = change(losses, best([-each for each in losses]), now, FROM_BEST_ERRORS)
    kind = (
        "harm" if val.fell else "confidence" if loss.rose else "gap" if train - val.after > noise else "none"
    )
    told = f"AUROC at the end: {train:.3f} in training, {val.after:.3f} in validation"
    evidence = (
        f"{told} (a gap of less than {noise:.3f} is noise).",
        val.words("AUROC of validation"),
        loss.words("Loss of validation"),
    )
    figures = {"gap": train - val.after, "noise": noise, "auroc": val.step, "loss": loss.step}
    return Finding(question, OVERFITTING[kind].format(since=val.then), evidence, kind, figures)


# beyond 40 lines for its arguments and their words; the body is one list of sentences
def is_peak_real(
    logits: NDArray[np.floating],
    labels: Floats,
    patients: NDArray[np.generic],
    records: Sequence[EpochRecord],
    metric: Literal["auroc", "average_precision"] = "auroc",
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Finding:
    """Compare the highest single epoch with the kept one and with the last.

    `logits` are those of validation, (epochs, n).

    Returns
    -------
        Of the kinds ``kept``: the peak is the kept epoch; ``luck``: epochs that are all equal show such a
        peak in more than `RARE` of draws; ``real``: they do not; ``undefined``.
    """
    values = np.array([selection_value(each.val, metric) for each in records])
    what = WORDS[metric]
    if np.isnan(values).any():
        return Finding("Is the peak real?", f"{what} is not defined on validation.", (), "undefined")
    peak, kept, last = int(values.argmax()), records[-1].best_epoch - 1, len(values) - 1
    evidence = []
    for other, name in ((kept, "kept"), (last, "the last")):
        if other != peak:
            apart = paired(metric, logits[peak], logits[other], labels, patients, draws, seed)
            evidence.append(f"{what} of epoch {peak + 1} minus epoch {other + 1}, {name}: {_signed(apart)}.")
    moves = np.array([influence(metric, each, labels, patients) for each in logits])
    luck, wins = _chance(values, moves, peak, kept, draws, seed)
    alike = _alike(values, moves, peak)
    if peak != kept:
        evidence.append(
            f"Were all {last + 1} epochs equal, one would stand out as far in {luck:.0%} of draws."
        )
    evidence.append(
        f"With patients redrawn, epoch {peak + 1} is the highest in {wins:.0%} of {draws:,} draws."
    )
    evidence.append(f"{alike} of the other {last} epochs cannot be told from it.")
    kind = "kept" if peak == kept else "luck" if luck > RARE else "real"
    figures = {"peak": peak + 1.0, "kept": kept + 1.0, "luck": luck, "wins": wins, "alike": float(alike)}
    answer = PEAK[kind].format(peak=peak + 1, kept=kept + 1)
    return Finding(f"Is the peak at epoch {peak + 1} real?", answer, tuple(evidence), kind, figures)


def _alike(values: Floats, moves: Floats, peak: int) -> int:
    """Return how many other epochs are below the peak by no more than the paired noise."""
    errors = np.array([standard_error(moves[peak] - each) for each in moves])
    return int((values[peak] - values <= ERRORS * errors).sum()) - 1


def _chance(
    values: Floats, moves: Floats, peak: int, kept: int, draws: int, seed: int
) -> tuple[float, float]:
    """Return how often equal epochs show such a peak above the kept one, and how often this peak wins.

    Patients are drawn with replacement, and each epoch moves by its `influence`: the chance of the highest of
    many, which the paired interval of a peak that was picked leaves out.
    """
    swing = patient_counts(moves.shape[1], draws, seed).astype(np.float64) @ moves.T
    luck = (swing - swing[:, [kept]]).max(1) >= values[peak] - values[kept]
    return float(luck.mean()), float(((values + swing).argmax(1) == peak).mean())


class _Curve:
    """A metric of validation over the epochs, with the error of its changes."""

    def __init__(
        self,
        metric: Literal["recall", "auroc"],
        records: Sequence[EpochRecord],
        validation: Validation | None,
        of: Callable[[Summary], Interval],
        thresholds: Sequence[float],
    ) -> None:
        self.metric, self.validation, self.thresholds = metric, validation, thresholds
        self.intervals = [of(each.val) for each in records]
        self.values = [each.value for each in self.intervals]

    def change(self, then: int, now: int, errors: float = ERRORS) -> Change:
        """Compare two epochs, from 1."""
        if self.validation is None:
            error = error_of(self.intervals[now - 1])
        else:
            error = paired_error(self.validation, self.metric, self.thresholds, then, now)
        return change(self.values, then, now, errors, error)


def _curves(records: Sequence[EpochRecord], validation: Validation | None) -> tuple[_Curve, _Curve, _Curve]:
    """Return recall at 0.5, the area under the ROC curve, and recall at the chosen threshold."""
    zero = [0.0] * len(records)
    chosen = [each.val.at_threshold.threshold for each in records]
    return (
        _Curve("recall", records, validation, lambda val: val.at_half.recall, zero),
        _Curve("auroc", records, validation, lambda val: val.auroc, zero),
        _Curve("recall", records, validation, lambda val: val.at_threshold.recall, chosen),
    )


def _losses(records: Sequence[EpochRecord], then: int) -> list[str]:
    """Return how the loss of either class moved, and their weighted mean."""
    val, now = [each.val for each in records], len(records)
    return [
        change([each.loss_positive for each in val], then, now).words("Loss of malignant nodules"),
        change([each.loss_negative for each in val], then, now).words("Loss of benign nodules"),
        change([each.loss for each in val], then, now).words("Their mean, weighted as in training,"),
    ]


def _short(question: str, epochs: int) -> Finding:
    return Finding(question, f"{epochs} epochs are too few to tell; {FEWEST} are needed.", (), "short")


def _signed(value: Interval) -> str:
    if math.isnan(value.low):
        return f"{value.value:+.3f} (too few patients for an interval)"
    return f"{value.value:+.3f} ({value.low:+.3f} to {value.high:+.3f})"

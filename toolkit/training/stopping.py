"""Which epoch is kept and when training ends: pure functions of the history, so that a resumed run agrees.

A curve of validation is mostly noise, and its highest point mostly luck. So the metric is smoothed, the kept
epoch is the highest of the smoothed curve, and only a gain renews patience that neither the nodules that
happen to be in validation nor the curve's own restlessness explains.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toolkit.evaluation.influence import standard_error
from toolkit.training.config import Metric, Selection

Floats = NDArray[np.float64]
GAIN_ERRORS = 2.0  # luck renews patience in 5 % of runs of 60 epochs, in 12 % where the network itself wavers
RECENT = 20
TIE = 1e-12
WORDS: dict[Metric, str] = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "balanced_accuracy": "balanced accuracy",
    "f_beta": "F-beta",
    "loss": "loss",
}


@dataclass(frozen=True)
class Progress:
    """What the history says after its last epoch.

    Attributes
    ----------
    best_epoch
        The epoch that is kept, from 1 on: the newest, or the one that was kept before; no other weights are
        ever asked for.
    selected
        The smoothed metric at the newest epoch, higher is better; NaN where the metric is not defined.
    noise
        The least gain over `gain_epoch` that counts now.
    gain_epoch
        When the last gain beyond the noise was, from 1 on.
    stop
        True where training should end.
    why
        A sentence for the display and the report.
    """

    best_epoch: int
    selected: float
    noise: float
    gain_epoch: int
    stop: bool
    why: str


def smooth(values: ArrayLike, window: int) -> Floats:
    """Return trailing means over the last `window` epochs that exist, along the first axis.

    Parameters
    ----------
    values
        float64 (epochs, ...), higher is better; NaN is left out of its means.

    Returns
    -------
        float64, same shape; NaN where a whole window is.
    """
    values = np.asarray(values, np.float64)
    known = ~np.isnan(values)
    filled, total, count = np.where(known, values, 0), np.zeros(values.shape), np.zeros(values.shape)
    for back in range(min(window, len(values))):  # no running sum: equal windows give equal means
        total[back:] += filled[: len(values) - back]
        count[back:] += known[: len(values) - back]
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def judge(values: ArrayLike, moves: ArrayLike, settings: Selection) -> Progress:
    """Judge a history of at least one epoch.

    A gain counts where the smoothed metric exceeds that of the last gain by `GAIN_ERRORS` standard errors:
    the larger of the error of the paired, smoothed difference over patients, and that of the curve around
    itself. The kept epoch is the highest of the smoothed curve, the later one of equals (where all nodules
    are ranked right, weights still settle); until a whole window exists it is the newest. Training never
    ends before `min_epochs` and a window.

    Parameters
    ----------
    values
        (epochs,): `toolkit.training.record.selection_value` of each epoch, higher is better, maybe NaN.
    moves
        float64 (epochs, patients): `toolkit.evaluation.influence.influence` of each epoch, of the logits as
        stored (float32), so that a resumed run sees the same.
    """
    values, window = np.asarray(values, np.float64), settings.smoothing
    level, means = smooth(values, window), smooth(moves, window)
    best = gain = 0
    noise = math.nan
    for now in range(1, len(values)):
        if now < window or not level[now] < level[best] - TIE:
            best = now
        noise = GAIN_ERRORS * max(
            standard_error(means[now] - means[gain]),
            restlessness(values[: now + 1]) * spread(now, gain, window),
        )
        if math.isnan(level[gain]) or level[now] - level[gain] > noise:
            gain = now
    since = len(values) - 1 - gain
    long_enough = len(values) >= max(settings.min_epochs, window)
    stop = bool(settings.patience and since >= settings.patience and long_enough)
    why = _why(level, noise, gain, settings, long_enough)
    return Progress(best + 1, float(level[-1]), noise, gain + 1, stop, why)


def restlessness(values: Floats) -> float:
    """Return the standard deviation of one epoch around the trend of the last `RECENT`.

    From second differences, to which a straight rise adds nothing (Gasser, Sroka and Jennen-Steinmetz
    1986). 0 for fewer than 3 epochs.
    """
    bends = np.diff(values[-RECENT:], 2)
    bends = bends[~np.isnan(bends)]
    return math.sqrt(float(np.square(bends).mean()) / 6) if len(bends) else 0.0


def spread(now: int, then: int, window: int) -> float:
    """Return the standard error of a difference of two trailing means, where that of an epoch is 1."""
    a, b = min(now + 1, window), min(then + 1, window)
    both = min(max(then - (now - a), 0), b)
    return math.sqrt(both * (1 / a - 1 / b) ** 2 + (a - both) / a**2 + (b - both) / b**2)


def _why(level: Floats, noise: float, gain: int, settings: Selection, long_enough: bool) -> str:
    what, epochs = WORDS[settings.metric], len(level)
    if np.isnan(level[-1]):
        return f"{what} is not defined on validation"
    if epochs == 1:
        return "first epoch"
    since = epochs - 1 - gain
    if not since:
        return f"a gain beyond the noise ({noise:.2g} {what})"
    waiting = settings.patience and since < settings.patience
    of = f" of {settings.patience}" if waiting else ""
    told = f"no gain beyond the noise ({noise:.2g} {what}) in {since}{of} epochs"
    if waiting or long_enough or not settings.patience:
        return told
    return f"{told}; at least {max(settings.min_epochs, settings.smoothing)} are made"

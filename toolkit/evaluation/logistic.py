"""Logistic regression on one variable, for many bootstrap draws at once, by Newton's method."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
ITERATIONS, HALVINGS = 60, 30
CLOSE = 1e-6
"""Of the last step, which is still taken: what is left after it is its square."""
SEPARATED = 40.0
"""A slope a standard deviation beyond which the classes do not overlap and no finite slope is best."""


def smoothed(label: Floats) -> Floats:
    """Return (positives + 1) / (positives + 2) for each 1 and 1 / (negatives + 2) for each 0 (Platt 1999).

    As if one nodule of each class had been seen on the other side; a line fitted to these is always finite.
    """
    positives = float(label.sum())
    return np.where(label == 1, (positives + 1) / (positives + 2), 1 / (len(label) - positives + 2))


def fit_line(
    x: Floats, target: Floats, weights: Floats | None = None, *, slope: float | None = None
) -> tuple[Floats, Floats]:
    """Return slope and intercept of the log-odds of `target` over `x` by maximum likelihood, each (draws,).

    Parameters
    ----------
    x, target
        (n,); targets in [0, 1].
    weights
        (draws, n), at least 0; one draw of ones when None.
    slope
        Held fixed where given; only the intercept is found.

    NaN where there is no such line: the targets are all alike, `x` is constant, or it separates the classes.
    """
    weights = np.ones((1, len(x))) if weights is None else weights
    slopes, intercepts = np.full(len(weights), np.nan), np.full(len(weights), np.nan)
    total = weights.sum(axis=1)
    share = np.divide(weights @ target, total, out=np.full(len(total), np.nan), where=total > 0)
    usable = (share > 0) & (share < 1)
    center, scale = (0.0, 1.0) if slope is not None else (x.mean(), x.std()) if len(x) else (0.0, 0.0)
    if scale == 0 or not usable.any():
        return slopes, intercepts
    x = (x - center) / scale
    mean = weights[usable].mean(axis=0, keepdims=True)
    middle = float(mean[0] @ target / mean.sum())
    start = np.array([[0.0 if slope is None else slope, np.log(middle) - np.log1p(-middle)]])
    if usable.sum() > 1:  # draws lie around their mean, so their searches begin at its end
        near = _newton(x, target, mean, start, slope is None)
        start = np.where(np.isfinite(near), near, start).repeat(int(usable.sum()), axis=0)
    line = _newton(x, target, weights[usable], start, slope is None)
    slopes[usable] = line[:, 0] / scale
    intercepts[usable] = line[:, 1] - line[:, 0] * center / scale
    return slopes, intercepts


def _newton(x: Floats, target: Floats, weights: Floats, line: Floats, both: bool) -> Floats:
    """Return the best lines, (draws, 2); NaN where the search does not end.

    A step that does not lessen the loss is halved (Lin 2007). Draws that have ended are left out.
    """
    found = np.full_like(line, np.nan)
    active = np.arange(len(line))
    loss, gradient, curvature = _expand(x, target, weights, line)
    for _ in range(ITERATIONS):
        step = _step(gradient, curvature, both)
        ended = np.abs(step).max(axis=1) < CLOSE
        found[active[ended]] = (line - step)[ended]
        going = ~ended & np.isfinite(step).all(axis=1) & (np.abs(line[:, 0]) < SEPARATED)
        if not going.any():
            break
        active, weights, line, step = active[going], weights[going], line[going], step[going]
        loss, slack = loss[going], 1e-12 * (1 + np.abs(loss[going]))
        for _ in range(HALVINGS):
            new_loss, gradient, curvature = _expand(x, target, weights, line - step)
            worse = new_loss > loss + slack
            if not worse.any():
                break
            step[worse] /= 2
        line, loss = line - step, new_loss
    return found


def _expand(x: Floats, target: Floats, weights: Floats, line: Floats) -> tuple[Floats, Floats, Floats]:
    """Return loss (d,), gradient (d, 2) and second derivatives (d, 3): slope, mixed, intercept."""
    logit = line[:, :1] * x + line[:, 1:]
    small = np.exp(-np.abs(logit))
    probability = np.where(logit >= 0, 1.0, small) / (1 + small)
    loss = (weights * (np.maximum(logit, 0) + np.log1p(small) - target * logit)).sum(axis=1)
    powers = np.stack([x, np.ones_like(x)], axis=1)
    gradient = (weights * (probability - target)) @ powers
    curvature = (weights * probability * (1 - probability)) @ np.stack([x * x, x, np.ones_like(x)], axis=1)
    return loss, gradient, curvature


def _step(gradient: Floats, curvature: Floats, both: bool) -> Floats:
    """Return what Newton's method takes away from each line, (d, 2)."""
    a, b, c = curvature.T
    if not both:
        step = np.divide(gradient[:, 1], c, out=np.full(len(c), np.nan), where=c > 0)
        return np.stack([np.zeros_like(step), step], axis=1)
    determinant = a * c - b * b
    usable = determinant > 1e-14 * a * c
    slope = c * gradient[:, 0] - b * gradient[:, 1]
    intercept = a * gradient[:, 1] - b * gradient[:, 0]
    both_steps = np.stack([slope, intercept], axis=1)
    empty = np.full_like(both_steps, np.nan)
    np.divide(both_steps, determinant[:, None], out=empty, where=usable[:, None])
    return empty

"""Groups of nodules onto sides so that every stratum is shared as told.

A group (a patient, or patients tied together) is a row of counts: its nodules in each stratum, in each
class, and in all. With ``w_s`` the share of side s, the cost of an assignment is the sum over sides s and
columns of ``(count - w_s * total) ** 2``. Groups are dealt from the largest on, equal ones in an order by
chance, each to the side where it costs least; then single groups are moved while that lowers the cost. At
last a side that lacks a column that it must have is given the cheapest group from a side that has two.

Where every group is one nodule, each stratum, each class and the whole end within 2 nodules of their share
(tests/loading/test_assign.py).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from toolkit.loading.shuffle import permutation

SWEEPS = 20


def assign(
    counts: NDArray[np.int64],
    shares: Sequence[float],
    seed: int,
    stream: int = 0,
    cycle: int = 0,
    must: Sequence[int] = (),
) -> NDArray[np.int64]:
    """Return the side of each group, int64 (groups,).

    Parameters
    ----------
    counts
        int64 (groups, columns).
    shares
        Of each side, above 0; they add up to 1.
    seed, stream, cycle
        Key of the order by chance.
    must
        Columns that no side may lack, as far as there are groups for it.
    """
    weight = np.asarray(shares, np.float64)
    chance = permutation(len(counts), seed, stream, cycle)
    order = chance[np.argsort(-counts[chance].sum(axis=1), kind="stable")]
    # over[s, c] is how far side s is above its share of column c
    over = -weight[:, None] * counts.sum(axis=0)
    side = np.empty(len(counts), np.int64)
    for group in order.tolist():
        # adding v to a side changes its cost by 2 over . v + v . v, and v . v is the same for all sides;
        # a side that lacks more of what it is due, in proportion, goes first among equals
        need = over @ counts[group]
        side[group] = int(np.lexsort((over[:, -1] / weight, np.round(need, 6)))[0])
        over[side[group]] += counts[group]
    for _ in range(SWEEPS):
        if not _improve(counts, order.tolist(), side, over):
            break
    for column in must:
        _fill(counts, side, over, column)
    return side


def _improve(
    counts: NDArray[np.int64], order: Sequence[int], side: NDArray[np.int64], over: NDArray[np.float64]
) -> bool:
    """Move single groups while the cost falls; return whether any was moved."""
    moved = False
    squares = (counts**2).sum(axis=1)
    for group in order:
        need = over @ counts[group]
        best = int(np.argmin(np.round(need, 6)))
        # moving v from a to b changes the cost by 2 (over_b - over_a) . v + 2 v . v
        if need[best] - need[side[group]] + squares[group] < -1e-6:
            over[side[group]] -= counts[group]
            over[best] += counts[group]
            side[group] = best
            moved = True
    return moved


def _fill(counts: NDArray[np.int64], side: NDArray[np.int64], over: NDArray[np.float64], column: int) -> None:
    """Give sides that lack a column one group each from a side where two groups have it."""
    has = counts[:, column] > 0
    for empty in range(len(over)):
        if has[side == empty].any():
            continue
        donors = np.flatnonzero(has & (np.bincount(side[has], minlength=len(over)) > 1)[side])
        if not len(donors):
            return
        some = counts[donors]
        cost = some @ over[empty] - (some * over[side[donors]]).sum(axis=1) + (some**2).sum(axis=1)
        group = donors[int(np.argmin(np.round(cost, 6)))]
        over[side[group]] -= counts[group]
        over[empty] += counts[group]
        side[group] = empty

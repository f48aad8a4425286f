"""Who is in a batch: balanced, shuffled or in sequence; any batch of any epoch can be asked for.

All samplers answer ``steps(epoch)`` and ``batch(epoch, step)``. A batch is (index, draw): which nodules of
the store, int64 (b,), and their draw numbers within the epoch, int64 (b,), which with seed and epoch key
their augmentation. Nothing is kept between calls but caches, so the state of a run is (seed, epoch, step).

With several ranks, rank r takes places ``r::ranks`` of the global batch, draw numbers included: the
ranks together are the batch of one rank, and their positives differ by at most one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import Problem, UsageError
from toolkit.loading.cycles import Cycles
from toolkit.store import Nodule

POSITIVES, NEGATIVES, ALL = 1, 2, 3
"""Streams of chance."""
Drawn = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Members:
    """The nodules that a sampler draws from.

    Attributes
    ----------
    index
        int64 (n,): their numbers in the store.
    label
        float64 (n,): malignancy in [0, 1]; NaN where unknown.
    patient
        int64 (n,): equal numbers are one patient.
    """

    index: NDArray[np.int64]
    label: NDArray[np.float64]
    patient: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.index)


def members(nodules: Sequence[Nodule], index: NDArray[np.int64] | None = None) -> Members:
    """Return the nodules of a store, or those that `index` names, as arrays."""
    index = np.arange(len(nodules)) if index is None else np.asarray(index, np.int64)
    numbers: dict[str, int] = {}
    chosen = [nodules[i] for i in index.tolist()]
    label = [np.nan if nodule.label is None else nodule.label for nodule in chosen]
    patient = [numbers.setdefault(nodule.patient_id, len(numbers)) for nodule in chosen]
    return Members(index, np.array(label, np.float64), np.array(patient, np.int64))


@dataclass(frozen=True)
class Balance:
    """What a sampler shows the model; it belongs into the model file.

    Attributes
    ----------
    mode
        ``balanced``, ``shuffled`` or ``sequential``.
    positives, negatives, unknown
        Nodules of each class. Those of unknown label are in no batch, but for ``sequential``.
    prior
        Share of positives among what is shown.
    plain_prior
        Share of positives among all nodules of known label; what ``shuffled`` shows. NaN for none.
    """

    mode: str
    positives: int
    negatives: int
    unknown: int
    prior: float
    plain_prior: float


class Sampler(Protocol):
    """What loaders ask of a sampler."""

    balance: Balance

    def steps(self, epoch: int) -> int:
        """Return how many batches an epoch has for this rank."""

    def batch(self, epoch: int, step: int) -> Drawn:
        """Return (index, draw) of one batch for this rank."""


class BalancedSampler:
    """k positives in every batch; every positive and every negative once a cycle.

    No nodule is twice in a global batch, and no patient where that can be avoided by exchange with
    nearby batches. An epoch is ``ceil(negatives / (batch - positives))`` full batches: every negative is
    due once, and the few places left over begin the next cycle, which the next epoch goes on with.

    Parameters
    ----------
    of
        The nodules; those of unknown label are left out and counted.
    batch
        Size of the global batch, divisible by `ranks`.
    positives
        How many of its places are for positives.
    positive_from
        The least label of a positive.

    Raises
    ------
    UsageError
        E-LOAD-010 where a setting is impossible, E-LOAD-011 where a class has fewer nodules than a
        batch has places for it. Places are never filled in another way: that would change the prior.
    """

    def __init__(
        self,
        of: Members,
        *,
        batch: int,
        positives: int,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
        positive_from: float = 0.5,
    ) -> None:
        _check(of, batch, seed, rank, ranks)
        if not 1 <= positives < batch:
            raise _impossible("positives", positives, f"1 to {batch - 1}, below `batch`")
        if not 0 < positive_from <= 1:
            raise _impossible("positive_from", positive_from, "above 0, at most 1")
        bad, good = _classes(of, positive_from)
        _enough("positives (malignant)", len(bad), positives, "positives")
        _enough("negatives (benign)", len(good), batch - positives, "batch")
        self._batch, self._rank, self._ranks = batch, rank, ranks
        self._positives = Cycles(of.index[bad], of.patient[bad], positives, seed, POSITIVES)
        self._negatives = Cycles(
            of.index[good], of.patient[good], batch - positives, seed, NEGATIVES, self._positives.patients
        )
        self._steps = -(-len(good) // (batch - positives))
        self.balance = _balance("balanced", of, positive_from, positives / batch)

    def steps(self, epoch: int) -> int:
        """Return how many batches an epoch has."""
        return self._steps

    def batch(self, epoch: int, step: int) -> Drawn:
        """Return (index, draw), each int64 (batch / ranks,): positives first, then negatives."""
        number = _number(epoch, step, self._steps)
        parts = (self._positives.batches(number, number + 1), self._negatives.batches(number, number + 1))
        return _share(np.concatenate(parts, axis=1)[0], step * self._batch, self._rank, self._ranks)


class ShuffledSampler:
    """Every nodule of known label once a cycle in an order by chance; no balance.

    An epoch is ``ceil(n / batch)`` full batches; the stream runs on across epochs as in
    `BalancedSampler`, whose errors it shares.
    """

    def __init__(
        self,
        of: Members,
        *,
        batch: int,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
        positive_from: float = 0.5,
    ) -> None:
        _check(of, batch, seed, rank, ranks)
        known = np.flatnonzero(~np.isnan(of.label))
        _enough("nodules of known label", len(known), batch, "batch")
        self._batch, self._rank, self._ranks = batch, rank, ranks
        self._all = Cycles(of.index[known], of.patient[known], batch, seed, ALL)
        self._steps = -(-len(known) // batch)
        self.balance = _balance("shuffled", of, positive_from, None)

    def steps(self, epoch: int) -> int:
        """Return how many batches an epoch has."""
        return self._steps

    def batch(self, epoch: int, step: int) -> Drawn:
        """Return (index, draw), each int64 (batch / ranks,)."""
        number = _number(epoch, step, self._steps)
        whole = self._all.batches(number, number + 1)[0]
        return _share(whole, step * self._batch, self._rank, self._ranks)


class SequentialSampler:
    """Every nodule exactly once, in the order given, for evaluation and prediction.

    Nothing is padded: the last batch is short, and with several ranks the last step may be missing on
    some, so ``steps`` differs by at most one between ranks. Nodules of unknown label are included.
    """

    def __init__(
        self, of: Members, *, batch: int, rank: int = 0, ranks: int = 1, positive_from: float = 0.5
    ) -> None:
        _check(of, batch, 0, rank, ranks)
        self._mine = of.index[rank::ranks]
        self._draw = np.arange(len(of), dtype=np.int64)[rank::ranks]
        self._each = batch // ranks
        self._steps = -(-len(self._mine) // self._each)
        self.balance = _balance("sequential", of, positive_from, None)

    def steps(self, epoch: int) -> int:
        """Return how many batches this rank has."""
        return self._steps

    def batch(self, epoch: int, step: int) -> Drawn:
        """Return (index, draw), each int64 of at most batch / ranks."""
        _number(epoch, step, self._steps)
        part = slice(step * self._each, (step + 1) * self._each)
        return self._mine[part], self._draw[part]


def _share(whole: NDArray[np.int64], first_draw: int, rank: int, ranks: int) -> Drawn:
    draw = np.arange(first_draw, first_draw + len(whole), dtype=np.int64)
    return np.ascontiguousarray(whole[rank::ranks]), draw[rank::ranks].copy()


def _number(epoch: int, step: int, steps: int) -> int:
    """Return the number of a batch counted from the first epoch on."""
    if epoch < 0 or not 0 <= step < steps:
        raise IndexError(f"step {step} of epoch {epoch}: an epoch has {steps} steps")
    return epoch * steps + step


def _classes(of: Members, positive_from: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.flatnonzero(of.label >= positive_from), np.flatnonzero(of.label < positive_from)


def _balance(mode: str, of: Members, positive_from: float, prior: float | None) -> Balance:
    bad, good = (len(group) for group in _classes(of, positive_from))
    plain = bad / (bad + good) if bad + good else float("nan")
    return Balance(mode, bad, good, len(of) - bad - good, plain if prior is None else prior, plain)


def _check(of: Members, batch: int, seed: int, rank: int, ranks: int) -> None:
    """Refuse impossible settings by name."""
    if not 0 <= seed < 2**64:
        raise _impossible("seed", seed, "0 to 2**64 - 1")
    if ranks < 1:
        raise _impossible("ranks", ranks, "at least 1")
    if not 0 <= rank < ranks:
        raise _impossible("rank", rank, f"0 to {ranks - 1}")
    if batch < 1 or batch % ranks:
        raise _impossible("batch", batch, f"a multiple of {ranks}, the number of ranks")
    if not len(of):
        raise UsageError(Problem("E-LOAD-011", "there is no nodule to draw", "0 nodules", "at least 1"))
    known = of.label[~np.isnan(of.label)]
    if len(known) and not (known.min() >= 0 and known.max() <= 1):
        raise _impossible("label", f"{known.min():g} to {known.max():g}", "in [0, 1]")


def _impossible(name: str, value: object, expected: str) -> UsageError:
    return UsageError(Problem("E-LOAD-010", f"{name} is impossible", str(value), expected))


def _enough(what: str, have: int, need: int, setting: str) -> None:
    if have < need:
        action = f"Nothing drawn, for no nodule is twice in a batch; lower `{setting}`, or add nodules"
        raise UsageError(
            Problem("E-LOAD-011", f"too few {what}", f"{have}", f"{need} for each batch", action)
        )

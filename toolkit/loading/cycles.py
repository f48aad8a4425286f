"""One pool of nodules as an endless stream: every member once a cycle, none twice in a batch.

Batch g holds the stream's items ``g q`` to ``(g + 1) q``, and cycle c of a pool of n is the items ``c n``
to ``(c + 1) n`` in an order of its own, so a batch can hold the tail of one cycle and the head of the
next. Any batch is computed from its own cycle and the one before:

1. The tail of a cycle depends on that cycle alone.
2. A head member that the tail before it holds is swapped with one from the whole batches that follow.
   With n >= 2 q there always is one: they are at least q, and fewer than q are in that tail.
3. A patient who is twice in a batch is swapped with a member of another batch of the same window (a
   fixed run of whole batches) where neither batch then holds a patient twice.

All of this swaps places within one cycle, so each cycle stays an order of all members.

With q <= n < 2 q the same order is repeated until a cycle ends where a batch ends; q successive items of
one repeated order are distinct. Patients are not looked at there.
"""

from collections.abc import Callable, Iterable
from math import gcd
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from toolkit.loading.shuffle import permutation

WINDOW = 32
"""Whole batches among which patients are exchanged."""
TRIES = 64
"""How many places are tried for one patient who is twice in a batch."""

Ints = NDArray[np.int64]
Taken = Callable[[int, int], Ints]
Key = TypeVar("Key")
Value = TypeVar("Value")


class Cycles:
    """The endless stream of one pool.

    Parameters
    ----------
    members
        int64 (n,): the numbers that the batches hold.
    patients
        int64 (n,): whose they are; equal numbers are one patient.
    quota
        How many of them a batch holds; 1 to n.
    seed, stream
        Key of the order; pools of one sampler have different streams.
    taken
        ``taken(first, last)`` returns the patients (last - first, any) whom batches hold already.
    """

    def __init__(
        self, members: Ints, patients: Ints, quota: int, seed: int, stream: int, taken: Taken | None = None
    ) -> None:
        if not 1 <= quota <= len(members):
            raise ValueError(f"`quota` must be 1 to {len(members)}, got {quota}")
        self._members, self._patients, self._quota = members, patients, quota
        self._seed, self._stream = seed, stream
        self._taken: Taken = taken or (lambda first, last: np.empty((last - first, 0), np.int64))
        self._count = len(members)
        tight = self._count < 2 * quota
        self._repeats = quota // gcd(self._count, quota) if tight else 0
        self._orders: dict[int, Ints] = {}
        self._windows: dict[tuple[int, int], tuple[int, Ints]] = {}

    def batches(self, first: int, last: int) -> Ints:
        """Return the members of batches `first` to `last` - 1 as int64 (last - first, quota)."""
        return self._members[self._span(first * self._quota, last * self._quota)].reshape(-1, self._quota)

    def patients(self, first: int, last: int) -> Ints:
        """Return the patients of batches as int64 (last - first, quota)."""
        return self._patients[self._span(first * self._quota, last * self._quota)].reshape(-1, self._quota)

    def _span(self, start: int, stop: int) -> Ints:
        """Return the places in the pool of the stream's items from start to stop."""
        parts = [np.empty(0, np.int64)]
        while start < stop:
            cycle, at = divmod(start, self._count)
            if self._repeats:
                begin, items = 0, self._order(cycle // self._repeats)
            else:
                begin, items = self._window(cycle, self._window_of(cycle, at))
            part = items[at - begin : at - begin + stop - start]
            parts.append(part)
            start += len(part)
        return np.concatenate(parts)

    def _order(self, cycle: int) -> Ints:
        """Return the order of a cycle before any swap."""
        if cycle not in self._orders:
            _make_room(self._orders, 2)
            self._orders[cycle] = permutation(self._count, self._seed, self._stream, cycle)
        return self._orders[cycle]

    def _ends(self, cycle: int) -> tuple[int, int]:
        """Return how many items of a cycle lie in the batch shared with the cycle before, and after."""
        return -cycle * self._count % self._quota, (cycle + 1) * self._count % self._quota

    def _window_of(self, cycle: int, at: int) -> int:
        head, tail = self._ends(cycle)
        rows = (self._count - head - tail) // self._quota
        return min(max(at - head, 0) // (WINDOW * self._quota), (rows - 1) // WINDOW)

    def _window(self, cycle: int, number: int) -> tuple[int, Ints]:
        """Return where in its cycle a window begins, and its items after all swaps."""
        key = (cycle, number)
        if key not in self._windows:
            _make_room(self._windows, 3)
            self._windows[key] = self._settle_window(cycle, number)
        return self._windows[key]

    def _bounds(self, cycle: int, number: int) -> tuple[int, int, int, int]:
        """Return begin, first and last whole-batch item, and end of a window within its cycle."""
        head, tail = self._ends(cycle)
        body = self._count - head - tail
        length = WINDOW * self._quota
        first = head + number * length
        last = min(first + length, head + body)
        return (0 if number == 0 else first), first, last, (self._count if last == head + body else last)

    def _settle_tail(self, cycle: int, number: int) -> tuple[int, "_Places"]:
        """Return a window in which only the cycle's tail, if it is there, has been settled."""
        begin, first, last, end = self._bounds(cycle, number)
        items = self._order(cycle)[begin:end]
        base = (cycle * self._count + begin) // self._quota  # batch of the window's first item
        head = first - begin
        whole = cycle * self._count + first
        batches = whole // self._quota, (whole + last - first) // self._quota
        taken = self._taken(*batches)
        places = _Places(items, self._patients, self._quota, head, last - begin, taken)
        if end > last:
            places.settle(last - begin, end - begin, self._taken(batches[1], batches[1] + 1)[0], ())
        return base, places

    def _settle_window(self, cycle: int, number: int) -> tuple[int, Ints]:
        begin, first, _, _ = self._bounds(cycle, number)
        base, places = self._settle_tail(cycle, number)
        if first > begin:
            before = self._tail(cycle - 1)
            patients = (*self._taken(base, base + 1)[0], *self._patients[before])
            places.settle(0, first - begin, patients, before.tolist())
        places.settle_rows()
        return begin, places.items

    def _tail(self, cycle: int) -> Ints:
        """Return the items that a cycle leaves in the batch it shares with the next."""
        tail = self._ends(cycle)[1]
        last = self._window_of(cycle, self._count - 1)
        return self._settle_tail(cycle, last)[1].items[-tail:]


class _Places:
    """The items of one window: a head, whole batches (rows), a tail. Only rows give members away."""

    def __init__(self, items: Ints, patients: Ints, quota: int, first: int, last: int, taken: Ints) -> None:
        self.items = items.copy()
        self._whose = patients[items]
        self._quota, self._first, self._last, self._taken = quota, first, last, taken

    def settle(self, start: int, stop: int, taken: Iterable[int], banned: Iterable[int]) -> None:
        """Swap out of start to stop what is banned, and by preference who is taken or there twice."""
        outside, never = {int(p) for p in taken}, set(banned)
        for at in range(start, stop):
            there = outside | {int(p) for k, p in enumerate(self._whose[start:stop], start) if k != at}
            wrong = int(self.items[at]) in never
            before = outside | {int(p) for p in self._whose[start:at]}
            if not wrong and int(self._whose[at]) not in before:
                continue
            partner = self._partner(at, range(self._first, self._last), there, never)
            if partner is None and wrong:
                partner = next(k for k in range(self._first, self._last) if int(self.items[k]) not in never)
            if partner is not None:
                self._swap(at, partner)

    def settle_rows(self) -> None:
        """Exchange patients who are twice in a whole batch with other whole batches."""
        if self._last == self._first:
            return
        rows = self._whose[self._first : self._last].reshape(-1, self._quota)
        everyone = np.sort(np.concatenate([rows, self._taken], axis=1), axis=1)
        for row in np.flatnonzero((everyone[:, 1:] == everyone[:, :-1]).any(axis=1)):
            start = self._first + int(row) * self._quota
            stop = start + self._quota
            taken = {*self._taken[row].tolist()}
            for at in range(start, stop):
                others = self._whose[start:stop].tolist()
                patient = others.pop(at - start)
                if patient in taken or patient in others[: at - start]:
                    places = (*range(stop, self._last), *range(self._first, start))
                    partner = self._partner(at, places, taken | {*others}, set())
                    if partner is not None:
                        self._swap(at, partner)

    def _partner(self, at: int, places: Iterable[int], there: set[int], never: set[int]) -> int | None:
        """Return a place to swap with after which neither batch holds the patient twice."""
        patient = int(self._whose[at])
        for tried, place in enumerate(places):
            if tried == TRIES:
                break
            if int(self._whose[place]) in there or int(self.items[place]) in never:
                continue
            row = (place - self._first) // self._quota
            start = self._first + row * self._quota
            if patient not in self._taken[row] and patient not in self._whose[start : start + self._quota]:
                return place
        return None

    def _swap(self, a: int, b: int) -> None:
        for array in (self.items, self._whose):
            array[a], array[b] = array[b], array[a]


def _make_room(cache: dict[Key, Value], most: int) -> None:
    """Drop the oldest entries of a cache that is full."""
    while len(cache) >= most:
        cache.pop(next(iter(cache)))

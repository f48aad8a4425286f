"""Groups onto sides: everything is dealt, and every stratum gets its share."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.loading.assign import assign


def one_each(strata: list[int]) -> np.ndarray:
    """Groups of one nodule: strata in pairs are a class; the last column is all."""
    kind = np.repeat(np.arange(len(strata)), strata)
    table = np.zeros((len(kind), len(strata) + len(strata) // 2 + 2), np.int64)
    table[np.arange(len(kind)), kind] = 1
    table[np.arange(len(kind)), len(strata) + kind // 2] = 1
    table[:, -1] = 1
    return table


def furthest(table: np.ndarray, shares: list[float], side: np.ndarray) -> float:
    counts = np.stack([table[side == s].sum(axis=0) for s in range(len(shares))])
    return float(np.abs(counts - np.outer(shares, table.sum(axis=0))).max())


SHARES = st.sampled_from(
    [
        [0.7, 0.15, 0.15],
        [0.5, 0.5],
        [0.85, 0.15],
        [0.2] * 5,
        [0.1] * 10,
        [0.9, 0.05, 0.05],
        [0.33, 0.33, 0.34],
    ]
)


@settings(max_examples=300, deadline=None)
@given(strata=st.lists(st.integers(0, 40), min_size=2, max_size=12), shares=SHARES, seed=st.integers(0, 99))
def test_single_nodules_are_within_two_of_their_share(strata, shares, seed: int) -> None:
    table = one_each(strata)
    side = assign(table, shares, seed)
    assert furthest(table, shares, side) < 2


@settings(max_examples=200, deadline=None)
@given(data=st.data(), shares=SHARES, seed=st.integers(0, 99))
def test_groups_are_within_two_of_the_largest_of_their_share(data, shares, seed: int) -> None:
    sizes = data.draw(st.lists(st.integers(1, 6), min_size=len(shares), max_size=120))
    rng = np.random.default_rng(seed)
    table = np.zeros((len(sizes), 9), np.int64)
    for row, size in zip(table, sizes, strict=True):
        kinds = rng.integers(0, 6, size)
        np.add.at(row, kinds, 1)
        np.add.at(row, 6 + kinds // 3, 1)
        row[-1] = size
    side = assign(table, shares, seed)
    assert side.shape == (len(sizes),)
    assert side.min() >= 0
    assert side.max() < len(shares)
    assert furthest(table, shares, side) < 2 * max(sizes)


def test_chance_decides_among_equals_and_only_there() -> None:
    table = one_each([40, 20, 10, 4])
    sides = [tuple(assign(table, [0.5, 0.25, 0.25], seed).tolist()) for seed in range(4)]
    assert len({*sides}) == 4
    assert assign(table, [0.5, 0.25, 0.25], 2).tolist() == list(sides[2])


@pytest.mark.parametrize("few", [3, 4, 5])
def test_no_side_lacks_what_it_must_have(few: int) -> None:
    table = one_each([90, 0, few, 0])
    must = [5]
    assert table[:, 5].sum() == few
    for seed in range(10):
        side = assign(table, [0.9, 0.05, 0.05], seed, must=must)
        assert all(table[side == s, 5].any() for s in range(3))


def test_a_hundred_thousand_patients_take_seconds() -> None:
    from time import perf_counter

    rng = np.random.default_rng(0)
    table = one_each(rng.integers(5000, 15000, 10).tolist())
    start = perf_counter()
    side = assign(table, [0.7, 0.15, 0.15], 0)
    print(f"{len(table)} groups: {perf_counter() - start:.2f} s")  # noqa: T201
    assert furthest(table, [0.7, 0.15, 0.15], side) < 2

"""Planning: which shard, which key, how much margin."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.preprocess.archives import turn
from toolkit.archive.case import Case
from toolkit.archive.region_rule import RegionRule
from toolkit.preprocess.identity import IdKey
from toolkit.preprocess.plan import (
    CASES_PER_SHARD,
    MAX_ROTATION_DEGREES,
    MAX_SCALE,
    MAX_SHIFT_MM,
    Settings,
    case_key,
    default_margin,
    extend_plan,
    own_shards,
)
from toolkit.store.format import canonical_json, digest

ids = st.lists(st.uuids().map(str), unique=True, max_size=60)


@given(ids, ids)
def test_new_cases_open_new_shards_and_old_ones_stay(first: list[str], second: list[str]) -> None:
    before = extend_plan([], first)
    after = extend_plan(before, sorted({*first, *second}))
    assert after[: len(before)] == before
    assert sorted(c for shard in after for c in shard.case_ids) == sorted({*first, *second})
    assert [shard.name for shard in after] == [f"{i:05d}" for i in range(len(after))]
    assert all(1 <= len(shard.case_ids) <= CASES_PER_SHARD for shard in after)
    assert extend_plan(after, first) == after


@given(ids, st.integers(1, 7), st.booleans())
def test_parts_share_all_shards_out(cases: list[str], parts: int, from_zero: bool) -> None:
    plan = extend_plan([], cases)
    mine = [s for i in range(parts) for s in own_shards(plan, (i if from_zero else i + 1, parts))]
    assert sorted(s.name for s in mine) == [s.name for s in plan]


@pytest.mark.parametrize(("size", "spacing"), [(32, 1.0), (64, 1.0), (64, 0.6), (96, 2.0)])
def test_the_default_margin_holds_what_augmentation_needs(size: int, spacing: float) -> None:
    rng = np.random.default_rng(0)
    corners = (np.indices((2, 2, 2)).reshape(3, -1).T - 0.5) * size
    worst = 0.0
    for axis in [*rng.normal(size=(3000, 3)), (0, 1, 1), (1, 1, 0)]:
        moved = MAX_SCALE * corners @ turn(MAX_ROTATION_DEGREES, axis).T + MAX_SHIFT_MM / spacing
        worst = max(worst, np.abs(moved).max())
    margin = default_margin(size, spacing)
    assert size / 2 + margin - 1 <= worst <= size / 2 + margin


def test_a_key_changes_with_whatever_changes_the_result() -> None:
    case = Case("c", "p", "/somewhere", None, digest="d")
    base = case_key(case, Settings(), IdKey(b"k"))
    assert base == case_key(Case("c", "p", "/elsewhere", None, digest="d"), Settings(), IdKey(b"k"))
    others = [
        case_key(Case("c", "p", "", None, digest="e"), Settings(), IdKey(b"k")),
        case_key(Case("c", "q", "", None, digest="d"), Settings(), IdKey(b"k")),
        case_key(Case("c", "p", "", None, digest="d", split="test"), Settings(), IdKey(b"k")),
        case_key(case, Settings(spacing_mm=0.9), IdKey(b"k")),
        case_key(case, Settings(margin=3), IdKey(b"k")),
        case_key(case, Settings(regions=RegionRule("x")), IdKey(b"k")),
        case_key(case, Settings(), IdKey(b"l")),
    ]
    assert len({base, *others}) == 8


def test_a_key_is_the_digest_of_canonical_json() -> None:
    settings, id_key = Settings(size=48, margin=3), IdKey(b"secret")
    case = Case('c \u00e4 "', "p", "", None, digest="abc", split="val")
    value = {
        "input": case.digest,
        "settings": settings.resolved(),
        "ids": [id_key.hash("case", case.case_id), id_key.hash("patient", case.patient_id), case.split],
    }
    assert case_key(case, settings, id_key) == digest(canonical_json(value))

"""Splits: no patient and no scan on two sides, shared alike, and refused where that is not so."""

import itertools
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.loading.records import nodule
from tests.loading.split_stores import make_store, texture
from toolkit.errors import UsageError
from toolkit.loading.numbered import count
from toolkit.loading.split import (
    SIDES,
    Partition,
    Split,
    class_of,
    cross_validation,
    from_store,
    holdout,
    indices,
)
from toolkit.loading.split_file import read_split, write_split
from toolkit.store import Nodule, Store
from toolkit.store.format import sealed


def cohort(patients: int = 90, seed: int = 0) -> list[Nodule]:
    """1 to 3 nodules a patient, a fifth of them malignant, some of unknown label or size."""
    rng = np.random.default_rng(seed)
    nodules = []
    for p in range(patients):
        for k in range(rng.integers(1, 4)):
            label = [1.0, 0.0, 0.25, None][rng.choice(4, p=[0.2, 0.4, 0.3, 0.1])]
            diameter = None if rng.random() < 0.1 else float(rng.uniform(3, 25))
            nodules.append(nodule(f"{p:03}-{k}", f"p{p:03}", label, diameter))
    return nodules


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("split") / "store", cohort())


def sides_of(store: Store, part: Partition) -> dict[str, set[str]]:
    """Sides of each patient, after checking that each nodule is on one."""
    assert sorted(part.train + part.val + part.test) == sorted(n.nodule_id for n in store.nodules)
    whose = {n.nodule_id: n.patient_id for n in store.nodules}
    found: dict[str, set[str]] = {}
    for side in SIDES:
        for i in part.side(side):
            found.setdefault(whose[i], set()).add(side)
    return found


def test_a_holdout_shares_patients_by_class(store: Store) -> None:
    made = holdout(store, 0.2, 0.1, seed=4)
    (part,) = made.partitions
    assert {len(sides) for sides in sides_of(store, part).values()} == {1}
    table = count(store, part)
    whole = Counter(map(class_of, store.nodules))
    for side, share in (("train", 0.7), ("val", 0.2), ("test", 0.1)):
        assert abs(table[side]["nodules"] - share * len(store)) <= 3
        for name in ("benign", "malignant", "unknown"):
            assert abs(table[side][name] - share * whole[name]) <= 3
    assert table["train"]["patients"] + table["val"]["patients"] + table["test"]["patients"] == 90


def test_each_fold_is_tested_once_and_has_a_validation_side_of_its_own(store: Store) -> None:
    made = cross_validation(store, 5, 2, seed=1)
    assert [p.name for p in made.partitions[:2]] == ["repeat 1 fold 1", "repeat 1 fold 2"]
    assert len(made.partitions) == 10
    for repeat in (made.partitions[:5], made.partitions[5:]):
        tested = [i for part in repeat for i in part.test]
        assert sorted(tested) == sorted(n.nodule_id for n in store.nodules)
        for part in repeat:
            assert {len(sides) for sides in sides_of(store, part).values()} == {1}
            assert all(count(store, part)[side]["malignant"] for side in SIDES)
            assert abs(len(part.val) - 0.15 * 0.8 * len(store)) <= 4
    assert {part.test for part in made.partitions[:5]}.isdisjoint(part.test for part in made.partitions[5:])


def test_order_of_the_store_changes_nothing_and_the_seed_does(store: Store, tmp_path: Path) -> None:
    shuffled = [store.nodules[i] for i in np.random.default_rng(0).permutation(len(store))]
    other = make_store(tmp_path / "s", shuffled)
    assert holdout(other, 0.15, 0.15, 7).partitions == holdout(store, 0.15, 0.15, 7).partitions
    assert cross_validation(other, 3, 1, seed=7) == cross_validation(store, 3, 1, seed=7)
    assert len({holdout(store, 0.15, 0.15, s).partitions for s in range(3)}) == 3


def test_what_was_written_is_read(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    made = cross_validation(store, 3, 1)
    write_split(path, made, store)
    assert read_split(path, store) == made
    value = json.loads(path.read_bytes())
    assert value["store"] == store.settings["config_digest"]
    assert value["partitions"][0]["counts"] == count(store, made.partitions[0])
    again = path.read_bytes()
    write_split(path, made, store)
    assert path.read_bytes() == again
    train = indices(store, made.partitions[0].train)
    assert {store.nodules[i].nodule_id for i in train} == {*made.partitions[0].train}
    assert (np.diff(train) > 0).all()


def test_any_change_to_the_file_is_seen(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    write_split(path, holdout(store, 0.15, 0.15), store)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(content), 40):
        flipped = bytearray(content)
        flipped[at] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(flipped)
        refused(path, store, "E-SPLIT-001")
    for other in (
        b"",
        content[:-9],
        b"{}",
        sealed({"kind": "split", "format": 1}),
        sealed({"kind": "model"}),
    ):
        path.write_bytes(other)
        refused(path, store, "E-SPLIT-001")
    path.unlink()
    refused(path, store, "E-SPLIT-001")


def refused(path: Path, store: Store, code: str) -> str:
    with pytest.raises(UsageError) as caught:
        read_split(path, store)
    assert caught.value.problem.code == code
    return str(caught.value)


def forge(path: Path, split: Split) -> None:
    """Write a split without any check, as somebody else's program may."""
    parts = [{"name": p.name, "train": p.train, "val": p.val, "test": p.test} for p in split.partitions]
    value = {"format": 1, "kind": "split", "rule": "mine", "seed": None, "store": split.store, "tied": 0}
    path.write_bytes(sealed({**value, "partitions": parts}))


def test_a_patient_on_two_sides_is_refused_by_name(store: Store, tmp_path: Path) -> None:
    made = holdout(store, 0.15, 0.15)
    part = made.partitions[0]
    whose = {n.nodule_id: n.patient_id for n in store.nodules}
    many = {p for p, n in Counter(whose[i] for i in part.train).items() if n > 1}
    one = next(i for i in part.train if whose[i] in many)
    wrong = replace(part, train=tuple(i for i in part.train if i != one), test=(*part.test, one))
    forge(tmp_path / "s.json", replace(made, partitions=(wrong,)))
    said = refused(tmp_path / "s.json", store, "E-SPLIT-004")
    assert f"{whose[one]} in train and test" in said
    with pytest.raises(UsageError, match="E-SPLIT-004"):
        write_split(tmp_path / "t.json", replace(made, partitions=(wrong,)), store)
    assert not (tmp_path / "t.json").exists()


def test_a_nodule_lost_doubled_or_foreign_is_refused_with_numbers(store: Store, tmp_path: Path) -> None:
    made = holdout(store, 0.15, 0.15)
    part = made.partitions[0]
    for wrong, said in (
        (replace(part, val=part.val[2:]), "2 nodules on no side"),
        (replace(part, val=(*part.val, part.val[0])), "1 listed twice"),
        (replace(part, val=(*part.val, part.train[0])), "1 listed twice"),
        (replace(part, val=(*part.val, "stranger")), "1 not in the store"),
    ):
        forge(tmp_path / "s.json", replace(made, partitions=(part, wrong)))
        assert said in refused(tmp_path / "s.json", store, "E-SPLIT-003")
    forge(tmp_path / "s.json", replace(made, store="0" * 32))
    refused(tmp_path / "s.json", store, "E-SPLIT-003")
    forge(tmp_path / "s.json", replace(made, partitions=()))
    refused(tmp_path / "s.json", store, "E-SPLIT-003")


@pytest.fixture
def copied(tmp_path: Path) -> Store:
    """A store in which patients a, b and c have the same scan: b moved, c rescaled."""
    records = [nodule(f"n{i:02}", f"p{i}", float(i % 3 == 0)) for i in range(40)]
    images = np.stack([texture(i, 24) for i in range(40)])
    scan = texture(99, 30)
    for i, (z, y, x), factor in ((5, (2, 2, 2), 1.0), (17, (3, 4, 2), 1.0), (30, (2, 2, 2), 0.8)):
        images[i] = np.round(factor * scan[z : z + 24, y : y + 24, x : x + 24])
    return make_store(tmp_path / "copied", records, images)


def test_patients_with_the_same_scan_stay_together(copied: Store) -> None:
    for seed in range(5):
        made = holdout(copied, 0.3, 0.3, seed)
        sides = sides_of(copied, made.partitions[0])
        assert sides["p5"] == sides["p17"] == sides["p30"]
        assert made.tied >= 2
    for part in cross_validation(copied, 4).partitions:
        sides = sides_of(copied, part)
        assert sides["p5"] == sides["p17"] == sides["p30"]


def test_the_same_scan_on_two_sides_is_refused_by_name(copied: Store, tmp_path: Path) -> None:
    ids = [n.nodule_id for n in copied.nodules]
    rest = tuple(i for i in ids if i != "n17")
    forge(
        tmp_path / "s.json",
        Split("mine", None, copied.settings["config_digest"], (Partition("mine", rest, (), ("n17",)),)),
    )
    said = refused(tmp_path / "s.json", copied, "E-SPLIT-005")
    assert "n05 in train and n17 in test" in said or "n17 in test and n05 in train" in said
    assert read_split(tmp_path / "s.json", copied, compare_crops=False).partitions[0].test == ("n17",)


def test_sides_of_the_manifest_are_taken(tmp_path: Path) -> None:
    words = itertools.cycle(["train", "Training", " val", "dev", "test", "TEST"])
    records = [nodule(f"n{i:02}", f"p{i}", 1.0, split=w) for i, w in zip(range(12), words, strict=False)]
    made = from_store(make_store(tmp_path / "s", records))
    part = made.partitions[0]
    assert (part.train, part.val, part.test) == (
        ("n00", "n01", "n06", "n07"),
        ("n02", "n03", "n08", "n09"),
        ("n04", "n05", "n10", "n11"),
    )
    records[3] = replace(records[3], split="holdout?")
    with pytest.raises(UsageError, match="1 with 'holdout\\?'"):
        from_store(make_store(tmp_path / "t", records))


def few(malignant: int, benign: int = 30) -> list[Nodule]:
    return [nodule(f"n{i:02}", f"p{i}", float(i < malignant)) for i in range(malignant + benign)]


def test_a_class_too_small_for_the_folds_is_refused_with_the_arithmetic(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", few(4))
    with pytest.raises(UsageError, match="malignant nodules: 4 patients have one, 5 for 5 folds") as caught:
        cross_validation(store, 5)
    assert caught.value.problem.code == "E-SPLIT-002"
    for folds in (2, 3, 4):
        for part in cross_validation(store, folds).partitions:
            assert all(count(store, part)[side]["malignant"] for side in SIDES)
    with pytest.raises(UsageError, match="E-SPLIT-002"):
        cross_validation(make_store(tmp_path / "three", few(3)), 2)
    with pytest.raises(UsageError, match=r"2 patients x .* = .* due on the (train|val|test) side"):
        holdout(make_store(tmp_path / "two", few(2)), 0.15, 0.15)


def test_a_few_patients_of_a_class_still_reach_every_side(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", few(3))
    table = count(store, holdout(store, 0.1, 0.1).partitions[0])
    assert [table[side]["malignant"] for side in SIDES] == [1, 1, 1]


def test_a_class_that_the_store_lacks_is_nobody_s_fault(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [replace(n, label=None) for n in few(0)])
    table = count(store, holdout(store, 0.2, 0.2).partitions[0])
    assert [table[side]["unknown"] for side in SIDES] == [18, 6, 6]


@pytest.mark.parametrize(("val", "test"), [(0.5, 0.5), (-0.1, 0.2), (0.0, 0.0), (1.0, 0.0)])
def test_impossible_shares_are_refused(store: Store, val: float, test: float) -> None:
    with pytest.raises(UsageError, match="E-SPLIT-006 holdout"):
        holdout(store, val, test)


def test_a_side_of_no_share_is_empty(store: Store) -> None:
    part = holdout(store, 0.2, 0.0).partitions[0]
    assert part.test == ()
    assert len(part.val) > 20


@pytest.mark.parametrize(
    ("more", "named"), [({"folds": 1}, "folds"), ({"repeats": 0}, "repeats"), ({"val": 0.0}, "inner-val")]
)
def test_impossible_folds_are_refused(store: Store, more: dict, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        cross_validation(store, **{"folds": 5, **more})

"""What cannot be trained on is refused by name before any epoch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.runs import Watcher, config, make_store, nodule, run
from toolkit.errors import ToolkitError, UsageError
from toolkit.loading.split import Partition, Split
from toolkit.loading.split_file import write_split
from toolkit.models.folder import read_model_file
from toolkit.store.files import write_atomic
from toolkit.store.format import sealed, unseal
from toolkit.training.config import from_table, read_config


def refused(store: Path, out: Path, code: str, **given: Any) -> str:
    watcher = Watcher()
    with pytest.raises(ToolkitError, match=code) as caught:
        run(store, out, given.pop("settings", None), watcher, **given)
    assert not watcher.batches
    return str(caught.value)


def sided(labels: list[float | None]) -> list[Any]:
    """Return one nodule a patient, dealt over train, val and test by the manifest."""
    sides = ["train"] * 4 + ["val", "test"]
    return [nodule(k, label, patient=k, split=sides[k % 6]) for k, label in enumerate(labels)]


def test_no_labels(tmp_path: Path) -> None:
    make_store(tmp_path / "s", nodules=[nodule(k, None) for k in range(24)])
    assert "0 of 24" in refused(tmp_path / "s", tmp_path / "run", "E-TRAIN-001")


def test_one_class_in_training(tmp_path: Path) -> None:
    labels = [1.0 if k % 6 in (4, 5) and k < 12 else 0.0 for k in range(36)]
    make_store(tmp_path / "s", nodules=sided(labels))
    assert "0 malignant, 24 benign" in refused(tmp_path / "s", tmp_path / "run", "E-TRAIN-001")


def test_one_class_in_validation(tmp_path: Path) -> None:
    labels = [float(k % 6 < 2) for k in range(36)]
    make_store(tmp_path / "s", nodules=sided(labels))
    assert "0 malignant, 6 benign" in refused(tmp_path / "s", tmp_path / "run", "E-TRAIN-005")


@pytest.mark.parametrize("wrong", [1.5, -0.1])
def test_label_outside_its_range(tmp_path: Path, wrong: float) -> None:
    labels = [float(k % 2) for k in range(36)]
    labels[7] = wrong
    make_store(tmp_path / "s", nodules=sided(labels))
    assert f"{wrong:g}" in refused(tmp_path / "s", tmp_path / "run", "E-TRAIN-002")


def test_a_patient_on_two_sides(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s")
    ids = [each.nodule_id for each in store.nodules]
    part = Partition("leaky", tuple(ids[1::2]), tuple(ids[0:24:2]), tuple(ids[24::2]))
    clean = Partition("clean", tuple(ids[:40]), tuple(ids[40:56]), tuple(ids[56:]))
    write_split(
        tmp_path / "split.json", Split("by hand", None, str(store.settings["config_digest"]), (clean,)), store
    )
    value = unseal((tmp_path / "split.json").read_bytes(), tmp_path / "split.json")
    value["partitions"] = [
        {"name": "leaky", "train": part.train, "val": part.val, "test": part.test, "counts": {}}
    ]
    write_atomic(tmp_path / "leak.json", sealed(value))
    told = refused(tmp_path / "s", tmp_path / "run", "E-SPLIT-004", split=tmp_path / "leak.json")
    assert "patients" in told


def test_a_step_that_cannot_be_recorded(tmp_path: Path) -> None:
    make_store(tmp_path / "s")
    told = refused(tmp_path / "s", tmp_path / "run", "E-CONF-002", settings=config(compute={"graph": True}))
    assert "there is no GPU" in told
    assert not (tmp_path / "run").exists()


def test_the_manifest_puts_a_patient_on_two_sides(tmp_path: Path) -> None:
    sides = ["train", "train", "train", "val", "val", "test"]
    given = [nodule(k, float(k % 2), patient=k // 2, split=sides[k % 6]) for k in range(36)]
    make_store(tmp_path / "s", nodules=given)
    refused(tmp_path / "s", tmp_path / "run", "E-SPLIT-004")


def test_balanced_twice(tmp_path: Path) -> None:
    make_store(tmp_path / "s")
    refused(tmp_path / "s", tmp_path / "run", "E-CONF-003", settings=config(loss={"pos_weight": 3.0}))


def test_patch_larger_than_crop(tmp_path: Path) -> None:
    make_store(tmp_path / "s")
    refused(tmp_path / "s", tmp_path / "run", "E-AUG-003", settings=config(input={"size": 64}))


def test_patch_too_small_for_the_network(tmp_path: Path) -> None:
    make_store(tmp_path / "s")
    refused(tmp_path / "s", tmp_path / "run", "E-MODEL-001", settings=config(input={"size": 4}))


def test_unknown_model_and_feature(tmp_path: Path) -> None:
    make_store(tmp_path / "s")
    refused(tmp_path / "s", tmp_path / "a", "E-MODEL-001", settings=config(model={"name": "resnet"}))
    refused(tmp_path / "s", tmp_path / "b", "E-MODEL-004", settings=config(model={"measured": ["age"]}))


def test_fewer_malignant_nodules_than_places(tmp_path: Path) -> None:
    labels = [float(k == 0 or (k % 6 >= 4 and k % 12 < 6)) for k in range(36)]
    make_store(tmp_path / "s", nodules=sided(labels))
    refused(tmp_path / "s", tmp_path / "run", "E-LOAD-011", settings=config(positives=4))
    # not asked for a number, it takes what there are, and the prior says so
    run(tmp_path / "s", tmp_path / "other", config(epochs=1))
    assert read_model_file(tmp_path / "other" / "model").prior == 1 / 8


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"epochs": 0}, "epochs = 0"),
        ({"batch": "many"}, "batch = 'many'"),
        ({"model": {"dropot": 0.1}}, "unknown setting model.dropot"),
        ({"balance": "both"}, "balance = 'both'"),
        ({"prevalence": 1.0}, "prevalence = 1.0"),
        ({"optimizer": {"lr": float("nan")}}, "optimizer.lr"),
        ({"model": "densenet121"}, "model = 'densenet121'"),
    ],
    ids=str,
)
def test_wrong_settings_are_named(table: dict, told: str) -> None:
    with pytest.raises(UsageError, match="E-CONF-001") as caught:
        from_table(table)
    assert told in str(caught.value)


def test_labels_that_overlap() -> None:
    with pytest.raises(UsageError, match="E-CONF-002"):
        from_table({"labels": {"benign_to": 0.8, "malignant_from": 0.5}})


def test_settings_come_from_file_then_sets_then_flags(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("epochs = 7\nseed = 3\n[model]\nname = 'densenet169'\n[augment]\npreset = 'light'\n")
    found = read_config(
        path, ["model.dropout=0.25", "augment.preset=strong", "seed=4"], {"seed": 5, "epochs": None}
    )
    assert (found.epochs, found.seed, found.model.name, found.model.dropout) == (7, 5, "densenet169", 0.25)
    assert found.augmentation.rotation_degrees == 180


@pytest.mark.parametrize("text", ["model.dropout", "=3", "seed.x=3"])
def test_wrong_sets_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text("seed = 3\n")
    with pytest.raises(UsageError, match="E-CONF-001"):
        read_config(path, [text])


def test_nothing_in_a_configuration_is_run() -> None:
    with pytest.raises(UsageError, match="E-CONF-001"):
        read_config(None, ["epochs=__import__('os').getpid()"])


def test_a_store_that_is_none(tmp_path: Path) -> None:
    refused(tmp_path / "none", tmp_path / "run", "E-STORE-001")
    assert not (tmp_path / "run").exists()


def test_classes_follow_the_named_rule() -> None:
    rule = config(labels={"source": "rating", "benign_to": 0.25, "malignant_from": 0.75}).labels.rule
    target = rule.targets([nodule(k, None, rating=r) for k, r in enumerate([1.0, 2.0, 3.0, 3.5, 4.0, 5.0])])
    np.testing.assert_array_equal(target, [0, 0.25, 0.5, 0.625, 0.75, 1])
    np.testing.assert_array_equal(rule.classes(target), [0, 0, np.nan, np.nan, 1, 1])

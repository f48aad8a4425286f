"""No link or name leads out of a store or a model folder, and nothing in them is unpickled."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.test_folder import FILE, network
from tests.security.opened import opened
from tests.store.test_store import crops
from toolkit.errors import Problem, StoreError, ToolkitError, UsageError
from toolkit.evaluation.calibration import Calibration
from toolkit.models.folder import load_members, load_model, write_ensemble, write_model
from toolkit.preprocess.plan import PlannedShard, read_plan, write_plan
from toolkit.report.run_files import read_run
from toolkit.store import Store
from toolkit.store.files import write_atomic
from toolkit.store.format import images_path, ledger_path, masks_path, sealed, sealed_lines
from toolkit.store.verify import verify
from toolkit.store.writer import OWN, ShardWriter, read_settings, write_settings
from toolkit.training import checkpoint
from toolkit.training.config import TrainConfig
from toolkit.training.run_folder import RunFolder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    records, images, masks = crops(4)
    Store.create(tmp_path / "store", records, images, masks, spacing_mm=1.0)
    write_plan(tmp_path / "store", [PlannedShard("00000", ("c0",))])
    (tmp_path / "store" / "log").mkdir()
    return tmp_path / "store"


def moved_out(path: Path) -> Path:
    """Put a file or folder elsewhere and a link in its place."""
    elsewhere = path.parents[1] / f"elsewhere-{path.name}"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    return elsewhere


def is_linked(call: Callable[[], object]) -> bool:
    with pytest.raises(ToolkitError) as told:
        call()
    return told.value.problem.code == "E-STORE-008"


@pytest.mark.parametrize("name", OWN)
def test_a_store_is_not_read_or_resumed_through_links(store: Path, name: str) -> None:
    settings = {k: v for k, v in read_settings(store).items() if k not in ("format", "config_digest")}
    elsewhere = moved_out(store / name)
    for call in (
        lambda: Store.open(store),
        lambda: list(verify(store)),
        lambda: write_settings(store, settings),
    ):
        assert is_linked(call)
    assert elsewhere.exists()


@pytest.mark.parametrize("path", [images_path, masks_path, ledger_path])
def test_a_file_of_a_shard_is_no_link(store: Path, path: Callable[[Path, str], Path]) -> None:
    moved_out(path(store, "00000"))
    assert is_linked(lambda: Store.open(store))
    assert "E-STORE-008" in {problem.code for problem in _verified(store)}


def _verified(store: Path) -> list[Problem]:
    try:
        return list(verify(store))
    except StoreError as error:
        return [error.problem]


def test_a_planted_link_is_not_written_through(store: Path, tmp_path: Path) -> None:
    """Temporary files have names that anybody can guess."""
    victim = tmp_path / "victim"
    victim.write_text("years of work")
    images_path(store, "00001").with_suffix(".npy.tmp").symlink_to(victim)
    assert is_linked(lambda: ShardWriter(store, "00001", 5))
    (store / "nodules.csv.tmp").symlink_to(victim)
    assert is_linked(lambda: write_atomic(store / "nodules.csv", b"x"))
    assert victim.read_text() == "years of work"
    (store / "qc.html").symlink_to(victim)
    write_atomic(store / "qc.html", b"page")  # the link is replaced, not what it leads to
    assert victim.read_text() == "years of work"
    assert not (store / "qc.html").is_symlink()


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "00000/../../x", "", "0", "00001", None, ["x"]])
def test_a_plan_cannot_name_files_elsewhere(store: Path, name: object) -> None:
    (store / "plan.jsonl").write_bytes(sealed_lines([{"shard": name, "cases": ["c0"]}]))
    with pytest.raises(StoreError, match="E-STORE-003"):
        read_plan(store)


@pytest.mark.parametrize("value", ["../../x", "/etc", "x"])
def test_settings_of_a_store_name_no_file(store: Path, value: str) -> None:
    """Whatever ``store.json`` says, it is a number or it is nothing."""
    settings = {**read_settings(store), "size": value}
    settings.pop("config_digest")
    (store / "store.json").write_bytes(sealed(settings))
    with pytest.raises((StoreError, ValueError)), opened() as touched:
        Store.open(store)
    assert not [path for path in touched if not path.startswith(str(store))]


class Payload:
    """Runs code where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("path", [images_path, masks_path])
def test_an_array_of_objects_is_not_unpickled(
    store: Path, tmp_path: Path, path: Callable[[Path, str], Path]
) -> None:
    array = np.empty((4, 5, 5, 5), object)
    array[:] = Payload(tmp_path / "ran")
    np.save(path(store, "00000"), array, allow_pickle=True)
    with pytest.raises(StoreError, match="E-STORE-003"):
        Store.open(store)
    assert list(verify(store))
    assert not (tmp_path / "ran").exists()
    np.load(path(store, "00000"), allow_pickle=True)  # the payload is live
    assert (tmp_path / "ran").exists()


def test_logits_of_objects_are_not_unpickled(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.config.write_text(TrainConfig().model_dump_json())
    np.save(folder.validation_logits, np.array([[Payload(tmp_path / "ran")]], object), allow_pickle=True)
    with pytest.raises(UsageError, match="E-RUN-001"):
        read_run(folder.path)
    assert not (tmp_path / "ran").exists()


def test_pickled_weights_and_checkpoints_are_not_unpickled(tmp_path: Path) -> None:
    model = tmp_path / "model"
    write_model(model, FILE, network().state_dict())
    torch.save(Payload(tmp_path / "ran"), tmp_path / "last.safetensors")
    shutil.copy(tmp_path / "last.safetensors", model / "model.safetensors")
    with pytest.raises(UsageError, match="E-MODEL-002"):
        load_model(model)
    with pytest.raises(StoreError, match="E-CKPT-001"):
        checkpoint.load(tmp_path / "last.safetensors")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_model_folder_has_no_links(tmp_path: Path, name: str) -> None:
    write_model(tmp_path / "a" / "model", FILE, network().state_dict())
    moved_out(tmp_path / "a" / "model" / name)
    with pytest.raises(UsageError, match=r"E-MODEL-002 a link"):
        load_model(tmp_path / "a" / "model")


def test_an_ensemble_has_no_links(tmp_path: Path) -> None:
    write_model(tmp_path / "one", FILE, network().state_dict())
    calibration = Calibration(1.0, 0.0, 0.1, "none")
    file = replace(FILE, architecture={}, members=("fold-0",), calibration=calibration)
    write_ensemble(tmp_path / "a" / "all", file, {"fold-0": tmp_path / "one"})
    moved_out(tmp_path / "a" / "all" / "fold-0")
    with pytest.raises(UsageError, match=r"E-MODEL-002 a link"):
        load_members(tmp_path / "a" / "all")


def test_every_byte_of_a_model_folder_is_under_a_digest(tmp_path: Path) -> None:
    """Each byte of the description, and every 9973rd of the weights."""
    folder = tmp_path / "model"
    write_model(folder, FILE, network().state_dict())
    (folder / "pickle.pt").write_bytes(b"foreign")  # not read, and no harm
    load_model(folder)
    for name, step in (("model.json", 1), ("model.safetensors", 9973)):
        whole = (folder / name).read_bytes()
        for at in range(0, len(whole), step):
            spoiled = bytearray(whole)
            spoiled[at] ^= 1 << at % 8
            (folder / name).write_bytes(spoiled)
            with pytest.raises(UsageError, match="E-MODEL-002"):
                load_model(folder)
        (folder / name).write_bytes(whole)
    load_model(folder)

"""What the long forms found, each kept small."""

from pathlib import Path

import pytest

from tests.preprocess.archives import run as preprocess
from tests.training.runs import Killed, Watcher, config, make_store
from tests.training.runs import run as train
from toolkit.store import writer
from toolkit.training import run as training
from toolkit.training import saver


def test_a_resumed_run_makes_durable_what_it_takes_as_committed(
    phantom_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # preprocess, seed 210: the sync of ledger/ failed behind the last shard's rename
    store = tmp_path / "store"
    preprocess(phantom_archive, store)
    synced: list[Path] = []
    monkeypatch.setattr(writer, "sync_folder", synced.append)
    assert preprocess(phantom_archive, store).resumed == 6
    assert synced == [store / "shards", store / "ledger"]


def test_a_resumed_training_makes_its_checkpoint_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # training, seed 39: the sync of checkpoints/ failed behind the last epoch's rename
    make_store(tmp_path / "store")
    settings = config(epochs=1, selection={"min_epochs": 1, "smoothing": 1})
    synced: list[Path] = []
    monkeypatch.setattr(saver, "SAVE_EVERY_S", 0.0)
    with pytest.raises(Killed):
        train(tmp_path / "store", tmp_path / "run", settings, Watcher(die_at=2))
    monkeypatch.setattr(saver, "sync_folder", synced.append)
    monkeypatch.setattr(training, "sync_folder", synced.append)
    train(tmp_path / "store", tmp_path / "run", settings)
    assert synced == [tmp_path / "run" / "checkpoints"]
    train(tmp_path / "store", tmp_path / "run", settings)
    assert synced[1:] == [tmp_path / "run"]

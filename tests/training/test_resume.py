"""Kill it anywhere: what is resumed equals what was never interrupted, bit for bit."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.runs import Killed, Watcher, config, files, make_store, run
from toolkit.errors import StoreError, ToolkitError
from toolkit.training import checkpoint, saver
from toolkit.training.requests import stop_requests

SETTINGS = config(epochs=3, model={"name": "densenet-small", "dropout": 0.3})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "store"
    make_store(path)
    return path


@pytest.fixture(scope="module")
def uninterrupted(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("runs") / "run"
    run(store, out, SETTINGS)
    return files(out)


def test_the_fast_network_resumes_as_itself(store: Path, tmp_path: Path) -> None:
    """Asked for once and then left to auto, which would take the plain one here."""
    fast = config(epochs=2, model=SETTINGS.model.model_dump(), compute={"impl": "fast"})
    run(store, tmp_path / "whole", fast)
    with pytest.raises(Killed):
        run(store, tmp_path / "run", fast, Watcher(die_at=12))
    watcher = Watcher()
    told = run(store, tmp_path / "run", config(epochs=2, model=SETTINGS.model.model_dump()), watcher)
    assert told["decided"].endswith("fast network (was asked for)")  # what it began with
    assert not [note for note in watcher.notes if "last bits" in note]
    mine, theirs = files(tmp_path / "run"), files(tmp_path / "whole")
    assert mine.keys() == theirs.keys()
    settings = {"config.json", "model/model.json"}  # which say what was asked for
    assert {name for name in mine if mine[name] != theirs[name]} == settings


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("every_s", "longest"),
    [(0.0, 9), (600.0, 25)],
    ids=["saved after every batch", "saved after every epoch"],
)
def test_ended_at_random_batches_and_resumed(
    store: Path,
    uninterrupted: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    every_s: float,
    longest: int,
) -> None:
    monkeypatch.setattr(saver, "SAVE_EVERY_S", every_s)
    chance = random.Random(seed)
    ended = 0
    while True:
        watcher = Watcher(die_at=chance.randint(1, longest))
        try:
            run(store, tmp_path / "run", SETTINGS, watcher)
            break
        except Killed:
            ended += 1
            assert ended < 100
    assert ended > 0
    assert files(tmp_path / "run") == uninterrupted


@pytest.mark.slow
def test_killed_and_terminated_for_real(store: Path, uninterrupted: dict[str, bytes], tmp_path: Path) -> None:
    out, toml = tmp_path / "run", tmp_path / "settings.toml"
    toml.write_text(
        'epochs = 3\nbatch = 8\ninput.size = 16\naugment.preset = "light"\noptimizer.lr = 2e-3\n'
        'model = {name = "densenet-small", dropout = 0.3}\nselection = {min_epochs = 2, smoothing = 2}\n'
        'compute = {threads = 1, amp = "float32"}\nlogging.tensorboard = false\n'
    )
    command = [sys.executable, "-m", "toolkit", "train", str(store), str(out), "--config", str(toml)]
    chance, ends = random.Random(0), []
    for each in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, None):
        process = subprocess.Popen([*command, "--device", "cpu"], stderr=subprocess.PIPE)
        if each is not None:
            assert process.stderr is not None
            process.stderr.readline()  # the first note: it trains
            time.sleep(chance.uniform(0.0, 0.4))  # a fast machine is through in 1.4 s
            process.send_signal(each)
        _, told = process.communicate(timeout=300)
        ends.append(process.returncode)
    assert ends[-1] == 0, told.decode()
    assert ends[0] == -signal.SIGKILL
    assert ends[1] in (75, 0)  # 0: it was done already
    assert files(out) == uninterrupted


def test_sigterm_saves_the_step_and_ends_with_75(
    store: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    class Asks(Watcher):
        def batch(self, samples: int, waited_s: float) -> None:
            super().batch(samples, waited_s)
            if self.batches == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    asked = Asks()
    with pytest.raises(KeyboardInterrupt):  # which the command line turns into 75
        run(store, tmp_path / "run", SETTINGS, asked)
    assert asked.batches == 3
    again = Watcher()
    run(store, tmp_path / "run", SETTINGS, again)
    assert "resumes at epoch 1, step 3" in again.notes
    assert files(tmp_path / "run") == uninterrupted


def test_killed_behind_the_last_checkpoint(
    store: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    run(store, tmp_path / "run", SETTINGS)
    lost = ["metrics.jsonl", "validation_logits.npy", "predictions_val.csv", "model/model.json"]
    for name in lost:
        (tmp_path / "run" / name).unlink()
    watcher = Watcher()
    run(store, tmp_path / "run", SETTINGS, watcher)
    assert watcher.batches == 0
    assert files(tmp_path / "run") == uninterrupted


def test_nothing_is_saved_whose_loss_was_not_looked_at(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the time to save comes between any two looks at the clock
    monkeypatch.setattr(saver.Saver, "due", property(lambda self: next(turns) % 2 == 1))
    turns = iter(range(10**6))
    settings = config(epochs=3, optimizer={"lr": 1e25, "clip_norm": 0.0, "warmup_epochs": 0.0})
    with pytest.raises(ToolkitError, match="E-TRAIN-004"):
        run(store, tmp_path / "run", settings)
    last = tmp_path / "run" / "checkpoints" / "last.safetensors"
    if last.exists():
        tensors, _ = checkpoint.load(last)
        assert tensors["losses"].isinf().sum() == 0
        assert all(tensors[name].isfinite().all() for name in tensors if name.startswith("model."))


def test_a_second_interrupt_does_not_wait() -> None:
    with stop_requests() as request:
        os.kill(os.getpid(), signal.SIGINT)
        assert request.made
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_another_machine_is_told(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Killed):
        run(store, tmp_path / "run", SETTINGS, Watcher(die_at=12))
    monkeypatch.setattr("toolkit.training.environment.cpu_name", lambda: "another processor")
    watcher = Watcher()
    run(store, tmp_path / "run", SETTINGS, watcher)
    assert any("another processor" in note and "last bits may differ" in note for note in watcher.notes)


def test_checkpoint_of_other_nodules_is_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(store, tmp_path / "run", SETTINGS, Watcher(die_at=12))
    foreign = tmp_path / "other"
    with pytest.raises(Killed):
        run(store, foreign, config(epochs=3, seed=4), Watcher(die_at=12))
    (tmp_path / "run/checkpoints/last.safetensors").write_bytes(
        (foreign / "checkpoints/last.safetensors").read_bytes()
    )
    with pytest.raises(StoreError, match="E-CKPT-002"):
        run(store, tmp_path / "run", SETTINGS)


def test_damaged_checkpoint_is_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(store, tmp_path / "run", SETTINGS, Watcher(die_at=12))
    path = tmp_path / "run/checkpoints/last.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"E-CKPT-001.*--no-resume"):
        run(store, tmp_path / "run", SETTINGS)


def test_a_loss_that_is_no_number_ends_the_run_and_names_the_batch(store: Path, tmp_path: Path) -> None:
    import json

    settings = config(epochs=3, optimizer={"lr": 1e25, "clip_norm": 0.0, "warmup_epochs": 0.0})
    with pytest.raises(ToolkitError, match="E-TRAIN-004") as caught:
        run(store, tmp_path / "run", settings)
    told = json.loads((tmp_path / "run" / "bad_batch.json").read_text())
    assert len(told["nodule_ids"]) == 8
    assert told["nodule_ids"][0] in str(caught.value)
    assert not (tmp_path / "run" / "checkpoints" / "last.safetensors").exists()

"""What other programs read back is what the records say, also after a crash and a resume."""

import json
import math
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training.curves import records
from toolkit.errors import ResourceError, UsageError
from toolkit.evaluation.results import Interval
from toolkit.training.config import TrainConfig, from_table
from toolkit.training.loggers import open_loggers, scalars
from toolkit.training.record import EpochRecord
from toolkit.training.run_folder import RunFolder


@pytest.fixture
def made() -> list[EpochRecord]:
    rng = np.random.default_rng(0)
    label = (np.arange(60) < 15).astype(np.float64)
    found = records(rng.normal(size=(6, 60)) + label, label, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    return [replace(each, lr=1e-3 / each.epoch, selected=0.8 + each.epoch / 100) for each in found]


def log(
    config: TrainConfig,
    folder: RunFolder,
    done: list[EpochRecord],
    new: list[EpochRecord],
    close: bool = True,
) -> None:
    loggers = open_loggers(config, folder, done)
    for record in new:
        for logger in loggers:
            logger.epoch(record, 12.5, 640.0)
    for logger in loggers:
        if close:
            logger.close()


def events(folder: RunFolder) -> EventAccumulator:
    found = EventAccumulator(str(folder.tensorboard), size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    return found


def test_names_are_curves_with_the_ends_of_their_intervals(made: list[EpochRecord]) -> None:
    found = scalars(made[2])
    val = made[2].val
    assert found["val/auroc"] == val.auroc.value
    assert found["val/auroc/low"] == val.auroc.low
    assert found["train/at_threshold/recall/high"] == made[2].train.at_threshold.recall.high
    assert found["val/at_threshold/threshold"] == 0.3
    assert found["val/loss_positive"] == val.loss_positive
    assert "selection/noise" not in found, "what is not defined is left out"
    gone = replace(made[2], val=replace(val, auroc=Interval(math.nan, math.nan, math.nan)))
    assert found.keys() - scalars(gone).keys() == {"val/auroc", "val/auroc/low", "val/auroc/high"}


def test_tensorboard_shows_the_records(tmp_path: Path, made: list[EpochRecord]) -> None:
    folder = RunFolder(tmp_path)
    log(TrainConfig(), folder, [], made)
    found = events(folder)
    assert set(found.Tags()["scalars"]) == scalars(made[0]).keys() | {"speed/seconds", "speed/samples_per_s"}
    for name in scalars(made[0]):
        told = [(each.step, each.value) for each in found.Scalars(name)]
        # events hold float32
        assert told == [(each.epoch, np.float32(scalars(each)[name])) for each in made], name
    text = found.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    shown = json.loads("".join(line for line in text.splitlines() if line.startswith("    ")))
    assert from_table(shown) == TrainConfig()
    assert "custom_scalars__config__" in found.Tags()["tensors"]


def test_tensorboard_holds_each_epoch_as_soon_as_it_is_over(tmp_path: Path, made: list[EpochRecord]) -> None:
    folder = RunFolder(tmp_path)
    log(TrainConfig(), folder, [], made[:2], close=False)
    assert [each.step for each in events(folder).Scalars("lr")] == [1, 2]


@pytest.mark.parametrize("known", [2, 3, 4])
def test_tensorboard_has_no_duplicates_after_a_crash(
    tmp_path: Path, made: list[EpochRecord], known: int
) -> None:
    """Four epochs were logged; of them the records know two, three or all."""
    folder = RunFolder(tmp_path)
    wrong = [replace(each, lr=7.0) if each.epoch > known else each for each in made[:4]]
    log(TrainConfig(), folder, [], wrong, close=False)
    log(TrainConfig(), folder, made[:known], made[known:])
    told = events(folder).Scalars("lr")
    assert [each.step for each in told] == [1, 2, 3, 4, 5, 6]
    assert [each.value for each in told] == [np.float32(each.lr) for each in made]


def test_nothing_is_opened_that_is_not_asked_for(tmp_path: Path) -> None:
    assert open_loggers(from_table({"logging": {"tensorboard": False}}), RunFolder(tmp_path), []) == []
    assert not list(tmp_path.iterdir())
    heavy = "('torch', 'wandb', 'tensorboard')"
    code = f"import sys, toolkit.training.loggers; print([m for m in {heavy} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


OFFLINE = {"logging": {"wandb": "offline", "wandb_project": "nodules", "tensorboard": False}}


def wandb_items(path: Path) -> Iterator[Any]:
    """The records of an offline file: LevelDB's log, blocks of 32 KiB after a head of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # the only part, or the last one
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No address that answers, no key, and a private home."""
    for name in [each for each in os.environ if each.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


LOG = """
import pickle, sys
from pathlib import Path
from toolkit.training.config import from_table
from toolkit.training.loggers import open_loggers
from toolkit.training.run_folder import RunFolder
table, folder, done, new = pickle.loads(Path(sys.argv[1]).read_bytes())
loggers = open_loggers(from_table(table), RunFolder(folder), done)
for record in new:
    for logger in loggers:
        logger.epoch(record, 12.5, 640.0)
for logger in loggers:
    logger.close()
"""


def log_apart(tmp_path: Path, table: Any, folder: Path, done: Any, new: Any) -> None:
    """In another process: wandb keeps threads, and a service of its own, until its process ends."""
    import pickle

    given = tmp_path / "given"
    given.write_bytes(pickle.dumps((table, folder, done, new)))
    subprocess.run([sys.executable, "-c", LOG, str(given)], check=True, timeout=120)


@pytest.mark.usefixtures("away")
def test_wandb_offline_holds_metrics_and_configuration_alone(tmp_path: Path, made: list[EpochRecord]) -> None:
    secret = tmp_path / "PATIENT_NAME"
    log_apart(tmp_path, OFFLINE, secret, [], made[:4])
    log_apart(tmp_path, OFFLINE, secret, made[:4], made[4:])
    first, second = sorted((secret / "log" / "wandb").glob("offline-run-*/*.wandb"))
    held = [[*wandb_items(path)] for path in (first, second)]
    runs = [each.run for each in held[0] + held[1] if each.HasField("run")]
    assert {each.project for each in runs} == {"nodules"}
    assert len({each.run_id for each in runs}) == 1, "a resumed run goes on"
    config = {each.key: json.loads(each.value_json) for each in runs[0].config.update if each.key != "_wandb"}
    assert from_table(config) == from_table(OFFLINE)
    told = [
        {
            item.nested_key[0] if item.nested_key else item.key: json.loads(item.value_json)
            for item in each.history.item
        }
        for each in held[0] + held[1]
        if each.HasField("history")
    ]
    assert [each["epoch"] for each in told] == [1, 2, 3, 4, 5, 6]
    for record, each in zip(made, told, strict=True):
        assert scalars(record).items() <= each.items()

    names = {each.WhichOneof("record_type") for each in held[0]}
    assert names.isdisjoint({"environment", "files", "output", "output_raw", "stats", "artifact"}), names
    assert {each.host for each in runs} == {"-"}
    sent = first.read_bytes() + second.read_bytes()
    for private in (str(tmp_path), secret.name, str(Path.cwd()), sys.executable, socket.getfqdn()):
        if len(private) > 5:
            assert private.encode() not in sent
    assert not [each for each in secret.rglob("files/*") if each.is_file()]


@pytest.mark.usefixtures("away")
def test_wandb_online_without_a_key_says_what_to_do(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from toolkit.errors import UsageError;"
        "from toolkit.training.config import from_table; from toolkit.training.run_folder import RunFolder;"
        "from toolkit.training.loggers import open_loggers\n"
        "try: open_loggers(from_table({'logging': {'wandb': 'online'}}), RunFolder(Path(sys.argv[1])), [])\n"
        "except UsageError as error: print(error)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert shown.stdout.startswith("E-WANDB-002 wandb cannot start")
    assert "logging.wandb=offline" in shown.stdout


def test_a_missing_wandb_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match=r"E-WANDB-001.*extra wandb"):
        open_loggers(from_table(OFFLINE), RunFolder(tmp_path), [])


def test_a_full_disk_is_told_once_and_as_such(
    tmp_path: Path, made: list[EpochRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    (logger,) = open_loggers(TrainConfig(), RunFolder(tmp_path), [])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tensorboard.compat.tensorflow_stub.io.gfile.LocalFileSystem._write", full)
        with pytest.raises(
            ResourceError, match="No space left"
        ) as caught:  # pytest fails on a thread's error
            logger.epoch(made[0], 1.0, 1.0)
        assert caught.value.exit_code == 75
        with pytest.raises(ResourceError):
            logger.close()

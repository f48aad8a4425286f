"""Curves for other programs: TensorBoard events, and Weights & Biases where asked for.

Both get metrics and the configuration, nothing of patients or files. Call them before the records are
written: after a crash in between, what they hold too much is dropped on resume, and nothing is missing.
"""

import json
import math
import os
import secrets
import threading
from collections.abc import Sequence
from typing import Any, Protocol

from toolkit.errors import Problem, UsageError
from toolkit.evaluation.results import Interval
from toolkit.store.files import disk_errors, write_atomic
from toolkit.training.config import TrainConfig
from toolkit.training.record import EpochRecord
from toolkit.training.run_folder import RunFolder

# what wandb would collect by itself: host, user, command, git, code, packages, hardware, terminal
ONLY_WHAT_IS_LOGGED: dict[str, Any] = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "host": "-",
    "save_code": False,
    "silent": True,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}


class Logger(Protocol):
    """Takes an epoch at a time."""

    def epoch(self, record: EpochRecord, seconds: float, samples_per_s: float) -> None:
        """Write all curves of an epoch, and how long it took; NaN where that is not known."""

    def close(self) -> None:
        """Write what is left."""


def open_loggers(config: TrainConfig, folder: RunFolder, records: Sequence[EpochRecord]) -> list[Logger]:
    """Return the loggers that the configuration asks for; `records` are those of the epochs done.

    Raises `UsageError` E-WANDB-001.
    """
    loggers: list[Logger] = []
    if config.logging.wandb != "off":
        loggers.append(WandbLogger(config, folder))
    if config.logging.tensorboard:
        loggers.append(TensorBoardLogger(config, folder, len(records)))
    return loggers


def scalars(record: EpochRecord) -> dict[str, float]:
    """Return the curves of an epoch by name, intervals as ``/low`` and ``/high``; only what is defined."""
    found = {"lr": record.lr, "train_loss": record.train_loss, "best_epoch": record.best_epoch}
    found |= {"selection/smoothed": record.selected, "selection/noise": record.noise}
    for side, summary in (("val", record.val), ("train", record.train)):
        _walk(found, side, summary)
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def _speed(seconds: float, samples_per_s: float) -> dict[str, float]:
    told = {"speed/seconds": seconds, "speed/samples_per_s": samples_per_s}
    return {name: value for name, value in told.items() if math.isfinite(value)}


def _walk(found: dict[str, float], name: str, value: Any) -> None:
    if isinstance(value, Interval):
        found |= {name: value.value, f"{name}/low": value.low, f"{name}/high": value.high}
    elif hasattr(value, "__dataclass_fields__"):
        for each in value.__dataclass_fields__:
            _walk(found, f"{name}/{each}", getattr(value, each))
    else:
        found[name] = value


class TensorBoardLogger:
    """Events in the run's folder; steps are epochs, from 1 on. TensorBoard puts the host into file names."""

    def __init__(self, config: TrainConfig, folder: RunFolder, done: int) -> None:
        """Go on after `done` epochs; events of later ones, which a killed run left, are hidden."""
        from torch.utils.tensorboard import SummaryWriter

        path = str(folder.tensorboard)
        self._told, threading.excepthook = threading.excepthook, self._hush
        with disk_errors():
            self._writer: Any = SummaryWriter(path, purge_step=done + 1)
            if not done:
                told = json.dumps(config.model_dump(mode="json"), indent=2)
                self._writer.add_text("config", "\n".join("    " + line for line in told.splitlines()), 0)
                self._writer.add_custom_scalars({"with 95 % intervals": _bands()})
            self._writer.flush()

    def epoch(self, record: EpochRecord, seconds: float, samples_per_s: float) -> None:
        """Write an epoch, and see it on disk."""
        with disk_errors():
            for name, value in (scalars(record) | _speed(seconds, samples_per_s)).items():
                self._writer.add_scalar(name, value, record.epoch)
            self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        threading.excepthook = self._told
        with disk_errors():
            self._writer.close()

    def _hush(self, arguments: Any) -> None:
        """Say nothing of an error in TensorBoard's own thread: the next call raises it again."""
        if not type(arguments.thread).__module__.startswith("tensorboard."):
            self._told(arguments)


def _bands() -> dict[str, list[Any]]:
    names = ["val/auroc", "val/average_precision"]
    for at in ("at_half", "at_threshold"):
        names += [f"val/{at}/{each}" for each in ("recall", "specificity", "balanced_accuracy", "f_beta")]
    return {name: ["Margin", [name, f"{name}/low", f"{name}/high"]] for name in names}


class WandbLogger:
    """A run of Weights & Biases; its own files stay beside the times in the run's folder."""

    def __init__(self, config: TrainConfig, folder: RunFolder) -> None:
        """Start or go on.

        The environment's WANDB_MODE may keep it offline or disabled, never send it online. Raises
        `UsageError` E-WANDB-001 where the library is missing, E-WANDB-002 where it cannot start.
        """
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when it is imported
        try:
            import wandb
        except ImportError as error:
            action = "Nothing done; install the extra wandb, or set logging.wandb=off"
            raise UsageError(Problem("E-WANDB-001", "wandb is not installed", action=action)) from error
        asked, kept = config.logging.wandb, os.environ.get("WANDB_MODE")
        mode: Any = kept if kept in ("offline", "disabled") else asked
        folder.log.mkdir(parents=True, exist_ok=True)
        try:
            self._run: Any = wandb.init(
                project=config.logging.wandb_project,
                dir=str(folder.log),
                id=_run_id(folder),
                resume="allow",
                config=config.model_dump(mode="json"),
                mode=mode,
                settings=wandb.Settings(**ONLY_WHAT_IS_LOGGED),
            )
        except wandb.Error as error:
            action = "Nothing done; run wandb login, or set logging.wandb=offline"
            problem = Problem("E-WANDB-002", "wandb cannot start", type(error).__name__, action=action)
            raise UsageError(problem) from error

    def epoch(self, record: EpochRecord, seconds: float, samples_per_s: float) -> None:
        """Send an epoch; one that was sent before a crash stays as it was."""
        curves = scalars(record) | _speed(seconds, samples_per_s)
        self._run.log({"epoch": record.epoch, **curves}, step=record.epoch)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def _run_id(folder: RunFolder) -> str:
    """Return the run's id, by which a resumed run goes on; made once, of nothing but chance."""
    path = folder.log / "wandb_id"
    if not path.exists():
        write_atomic(path, secrets.token_hex(8).encode())
    return path.read_text("utf-8")

"""What is kept of a run while it trains, and how it is taken up again.

The order of writing is: selected weights, checkpoint, curves. A process killed before the checkpoint makes
the epoch again from the one before, bit for bit; one killed after it writes the curves from it.
"""

import time
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import Problem, StoreError
from toolkit.evaluation.results import from_json, to_json
from toolkit.store.files import disk_errors, sync_folder, write_atomic
from toolkit.store.format import canonical_json, digest
from toolkit.training import checkpoint
from toolkit.training.environment import differences
from toolkit.training.job import Job
from toolkit.training.learner import Learner
from toolkit.training.ranks import of_all
from toolkit.training.record import EpochRecord, write_records
from toolkit.training.stopping import Progress

if TYPE_CHECKING:
    import torch

SAVE_EVERY_S = 600.0


@dataclass
class History:
    """What happened so far; all of it is in the checkpoint.

    Attributes
    ----------
    records
        A record an epoch.
    logits
        Raw logits of the scored validation nodules after each epoch, float32.
    moves
        What each patient moves the metric of selection by, after each epoch.
    """

    records: list[EpochRecord] = field(default_factory=list)
    logits: list[NDArray[np.float32]] = field(default_factory=list)
    moves: list[NDArray[np.float64]] = field(default_factory=list)


@dataclass(frozen=True)
class Position:
    """Where to go on: epoch and step, counted from 0, and whether all is done."""

    epoch: int = 0
    step: int = 0
    finished: bool = False


class Saver:
    """Writes checkpoints and takes them up again; only rank 0 writes."""

    def __init__(self, job: Job, learner: Learner, environment: dict[str, Any]) -> None:
        self._job, self._learner, self._environment = job, learner, environment
        self._identity = identity(job)
        self._history = History()
        self._saved = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the last checkpoint is so old that one is made within the epoch."""
        return self._job.machine.ranks.first and time.monotonic() - self._saved > SAVE_EVERY_S

    def restore(self, history: History) -> tuple[Position, list[str]]:
        """Take up the newest checkpoint, if there is one, and return notes on what differs since."""
        path = self._job.folder.last
        if not path.exists():
            return Position(), []
        if self._job.machine.ranks.first:
            with disk_errors():  # whoever wrote it may have ended before its name was on disk
                sync_folder(path.parent)
        tensors, state = checkpoint.load(path)
        if state["identity"] != self._identity:
            raise StoreError(_foreign(state["identity"], self._identity, str(path)))
        logits, moves = tensors.pop("validation_logits"), tensors.pop("moves")
        try:
            self._learner.restore(tensors, state["scale"])
        except (KeyError, RuntimeError) as error:
            raise StoreError(_foreign(str(error)[:200], "the network's own tensors", str(path))) from error
        history.records += [from_json(EpochRecord, each) for each in state["records"]]
        history.logits += list(logits.numpy())
        history.moves += list(moves.numpy())
        self._history = history
        if self._job.machine.ranks.first and history.records:
            self._write_curves()
        notes = [f"resumes at epoch {state['position']['epoch'] + 1}, step {state['position']['step']}"]
        found = differences(state["environment"], self._environment)
        if found:
            notes.append(f"not as before, so last bits may differ: {'; '.join(found)}")
        return Position(**state["position"]), notes

    def within_epoch(self, at: Position) -> None:
        """Save in the middle of an epoch, after the same step on every rank."""
        self._save(at, of_all(self._learner.losses, self._job.machine.ranks))

    def end_of_epoch(self, history: History, progress: Progress, at: Position) -> None:
        """Save the selected weights if they are these, then the checkpoint, then the curves."""
        self._history = history
        folder, learner = self._job.folder, self._learner
        if not self._job.machine.ranks.first:
            return
        if progress.best_epoch == at.epoch:
            state = {"identity": self._identity, "epoch": at.epoch}
            checkpoint.save(folder.best, learner.average.module.state_dict(), state)
        self._save(at)
        self._write_curves()

    def _write_curves(self) -> None:
        write_records(self._job.folder.metrics, self._history.records)
        write_logits(self._job.folder.validation_logits, self._history.logits)

    def _save(self, at: Position, losses: "torch.Tensor | None" = None) -> None:
        import torch

        self._saved = time.monotonic()
        if not self._job.machine.ranks.first:
            return
        history = self._history
        n = len(self._job.sides.validation)
        tensors = self._learner.tensors()
        if losses is not None:
            tensors["losses"] = losses
        tensors["validation_logits"] = torch.from_numpy(np.array(history.logits, np.float32).reshape(-1, n))
        tensors["moves"] = torch.from_numpy(np.array(history.moves, np.float64))
        state = {
            "identity": self._identity,
            "position": vars(at),
            "records": to_json(history.records),
            "scale": self._learner.scale(),
            "environment": self._environment,
        }
        checkpoint.save(self._job.folder.last, tensors, state)


def identity(job: Job) -> dict[str, str]:
    """Return digests of what must not change in a run: settings, nodules and labels, network."""
    sides = job.sides
    fixed = job.config.model_dump(mode="json", exclude={"logging", "compute"})
    who = [np.ascontiguousarray(each).tobytes() for each in (sides.teaching, sides.validation, sides.target)]
    return {
        "configuration": digest(canonical_json(fixed)),
        "nodules": digest(b"".join(who)),
        "store": str(job.store.settings["config_digest"]),
    }


def _foreign(measured: object, expected: object, path: str) -> Problem:
    if isinstance(measured, dict) and isinstance(expected, dict):
        other = [name for name in expected if measured.get(name) != expected[name]]
        measured, expected = f"another {', '.join(other)}", "those of this run"
    what = "the checkpoint is of another model or configuration"
    return Problem("E-CKPT-002", what, str(measured), str(expected), checkpoint.ACTION, (path,))


def write_logits(path: Path, logits: list[NDArray[np.float32]]) -> None:
    """Write ``validation_logits.npy`` in one step."""
    file = BytesIO()
    np.save(file, np.array(logits, np.float32), allow_pickle=False)
    write_atomic(path, file.getvalue())

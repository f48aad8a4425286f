"""All that the page of a run is made from, read at one moment; what is missing is told, not guessed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import Problem, StoreError, UsageError
from toolkit.evaluation.evaluation import Evaluation, read_evaluation
from toolkit.evaluation.predictions import Predictions, read_predictions
from toolkit.evaluation.results import from_json
from toolkit.store import Store
from toolkit.training.config import TrainConfig, from_table
from toolkit.training.record import EpochRecord, read_records
from toolkit.training.run_folder import RunFolder

SEAL = ("digest", "format", "kind")  # of a file, not of what it tells


@dataclass(frozen=True, eq=False)
class RunFiles:
    """A run as its files tell it; None or empty where a file is missing.

    Attributes
    ----------
    name
        Of the partition, as its predictions have it; else of the folder.
    logits
        float32 (epochs, n), of the scored lines of `val`, in their order.
    looks
        How often the test side was looked at.
    folds
        Of a cross-validation.
    """

    name: str
    folder: RunFolder
    config: TrainConfig
    environment: Mapping[str, Any]
    split: Mapping[str, Any]
    records: tuple[EpochRecord, ...]
    logits: NDArray[np.float32] | None
    val: Predictions | None
    test: Predictions | None
    evaluation: Evaluation | None
    model: Mapping[str, Any]
    looks: int
    folds: tuple["RunFiles", ...] = ()

    @property
    def selected(self) -> EpochRecord | None:
        """The epoch that is kept."""
        return self.records[self.records[-1].best_epoch - 1] if self.records else None


def read_run(path: Path) -> RunFiles:
    """Read a run, and its folds.

    Raises `UsageError` E-RUN-001 where there is none or a file of it is damaged, and what the readers of
    predictions and evaluation raise.
    """
    folder = RunFolder(path)
    if not folder.config.is_file():
        what, action = "no such run", "Nothing written; toolkit train makes one"
        raise UsageError(Problem("E-RUN-001", what, "", "a folder with a config.json", action, (str(path),)))
    return _read(folder, None)


def _read(folder: RunFolder, config: TrainConfig | None) -> RunFiles:
    if config is None or folder.config.is_file():
        told = _json(folder.config)
        config = from_table({name: value for name, value in told.items() if name not in SEAL})
    val = _predictions(folder, "val")
    return RunFiles(
        name=str(val.partition[0]) if val is not None and len(val) else folder.path.name,
        folder=folder,
        config=config,
        environment=_json(folder.environment),
        split=_json(folder.split),
        records=tuple(read_records(folder.metrics)) if folder.metrics.is_file() else (),
        logits=_array(folder.validation_logits),
        val=val,
        test=_predictions(folder, "test"),
        evaluation=_evaluation(folder.evaluation),
        model=_json(folder.model / "model.json"),
        looks=_lines(folder.log / "looks.jsonl"),
        folds=tuple(_read(fold, config) for fold in folder.folds()),
    )


def _predictions(folder: RunFolder, side: str) -> Predictions | None:
    path = folder.predictions(side)
    return read_predictions(path) if path.is_file() else None


def _evaluation(path: Path) -> Evaluation | None:
    if not path.is_file():
        return None
    told = {name: value for name, value in read_evaluation(path).items() if name not in SEAL}
    try:
        return from_json(Evaluation, told)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, "fields are missing or wrong") from error


def _json(path: Path) -> Mapping[str, Any]:
    """Return an object of JSON; empty where there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(path, "it is no JSON") from error
    if not isinstance(value, dict):
        raise _damaged(path, "it is no table")
    return value


def _array(path: Path) -> NDArray[np.float32] | None:
    if not path.is_file():
        return None
    try:
        value = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(path, "it is no array") from error
    if value.ndim != 2 or value.dtype.kind != "f":
        raise _damaged(path, f"{value.dtype} with {value.ndim} dimensions")
    return np.asarray(value, np.float32)


def _lines(path: Path) -> int:
    return len(path.read_bytes().splitlines()) if path.is_file() else 0


def _damaged(path: Path, measured: str) -> UsageError:
    what, action = "a file of the run cannot be read", "Nothing written; mend or remove it"
    return UsageError(Problem("E-RUN-001", what, measured, "", action, (str(path),)))


def open_store(run: RunFiles, named: Path | None) -> tuple[Store | None, str]:
    """Return the run's store, or why there is none.

    A store that was `named` must be there and be the run's: raises `StoreError` E-STORE-001 to E-STORE-003.
    """
    path = named or _told_store(run)
    if path is None:
        return None, "the run does not say where its store is"
    try:
        store = Store.open(path)
        _same(store, run, path)
    except StoreError as error:
        if named is not None:
            raise
        return None, error.problem.what
    return store, ""


def _told_store(run: RunFiles) -> Path | None:
    told = _json(run.folder.log / "where.json").get("store")
    return Path(told) if isinstance(told, str) else None


def _same(store: Store, run: RunFiles, path: Path) -> None:
    wanted, found = run.split.get("store"), store.settings.get("config_digest")
    if wanted is not None and wanted != found:
        what, action = "the store is not that of the run", "Nothing written; --store names the run's"
        raise StoreError(
            Problem("E-STORE-002", what, f"settings {found!s:.8}", f"{wanted!s:.8}", action, (str(path),))
        )

"""A run folder before the first epoch: new, or the same run again, or refused."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from toolkit.device import Device
from toolkit.errors import Problem, UsageError
from toolkit.loading.split import Split, cross_validation, from_store, holdout
from toolkit.loading.split_file import check_crops, check_ids, read_split, write_split
from toolkit.store import Store
from toolkit.store.files import write_atomic
from toolkit.training.config import TrainConfig
from toolkit.training.run_folder import RunFolder

HOLDOUT = (0.15, 0.15)
INNER_VAL = 0.15
FREE = {"logging", "compute"}
"""Settings that may change when a run is resumed: they decide neither what is learned nor from what."""
SHOWN = 4


@dataclass(frozen=True)
class Asked:
    """What the command line says besides the configuration.

    Attributes
    ----------
    split
        A file of `toolkit.loading.split_file`; one is made when None.
    folds, repeats
        Of cross-validation; 0 folds for none.
    allow_similar
        Let crops of two sides of a given split show the same thing.
    dry_run
        Check everything, write nothing, train nothing.
    """

    split: Path | None = None
    folds: int = 0
    repeats: int = 1
    device: Device = "auto"
    loader: Literal["auto", "fused", "dali"] = "auto"
    resume: bool = True
    allow_similar: bool = False
    dry_run: bool = False


def check_folder(folder: RunFolder, config: TrainConfig, *, resume: bool) -> None:
    """Check that a run folder is new, or holds this very run; nothing is written.

    Raises `UsageError` E-TRAIN-003 where it holds another run, or files that are no run.
    """
    if folder.config.exists():
        if resume:
            _same(folder, config)
    elif folder.path.exists() and any(folder.path.iterdir()):
        action = "Nothing trained; name a new folder"
        what = "the run folder holds files that are no run"
        raise UsageError(Problem("E-TRAIN-003", what, "", "", action, (str(folder.path),)))


def begin_folder(folder: RunFolder, config: TrainConfig, split: Split, store: Store, *, resume: bool) -> None:
    """Write what a run begins with, once everything was checked: a refused run leaves nothing behind."""
    if not resume:
        _clear(folder)
    write_json(folder.config, config.model_dump(mode="json"))
    write_split(folder.split, split, store)
    write_json(folder.log / "where.json", {"store": str(store.path.resolve())})


def _same(folder: RunFolder, config: TrainConfig) -> None:
    try:
        before = json.loads(folder.config.read_text("utf-8"))
    except (OSError, ValueError) as error:
        problem = Problem(
            "E-TRAIN-003", "the run's configuration cannot be read", str(error), files=(str(folder.config),)
        )
        raise UsageError(problem) from error
    now = config.model_dump(mode="json")
    changed = [
        f"{name} {_short(was)} before, {_short(value)} now"
        for name, was, value in _leaves(before, now)
        if was != value and name.split(".")[0] not in FREE
    ]
    if changed:
        more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        action = "Nothing trained; name a new folder, give the same settings, or --no-resume to begin anew"
        what = "the run folder holds a run with other settings"
        measured = "; ".join(changed[:SHOWN]) + more
        raise UsageError(Problem("E-TRAIN-003", what, measured, "", action, (str(folder.path),)))


def _short(value: Any) -> str:
    return f"{value!r:.40}"


def _leaves(before: Any, now: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """Return (dotted name, value before, value now) of all settings of either."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [(name, before, now)]
    found = []
    for key in sorted({*before, *now}):
        found += _leaves(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    return found


def _clear(folder: RunFolder) -> None:
    """Remove what a run wrote, and nothing else; looks at a test side stay counted."""
    for each in (folder.path / "checkpoints", folder.path / "folds", folder.tensorboard, folder.model):
        shutil.rmtree(each, ignore_errors=True)
    files = [folder.metrics, folder.validation_logits, folder.evaluation, folder.split, folder.report]
    files += [folder.bad_batch, folder.predictions("val"), folder.predictions("test")]
    for file in (*files, folder.log / "times.jsonl", folder.log / "wandb_id"):
        file.unlink(missing_ok=True)


def take_split(folder: RunFolder, store: Store, config: TrainConfig, asked: Asked) -> Split:
    """Return the split of a run: its own where it has one, the one given, or one that is made.

    One that is made has the folds that were asked for, or is that of the manifest where all nodules have a
    side there, or holds out 15 % for validation and 15 % for testing.

    Raises `UsageError` of the split's own codes: a leak is refused here.
    """
    given, folds, repeats = asked.split, asked.folds, asked.repeats
    if folder.split.exists() and asked.resume:
        split = read_split(folder.split, store, compare_crops=False)
        _refuse_other(split, folds, repeats, folder)
        return split
    if given is not None:
        split = read_split(given, store, compare_crops=not asked.allow_similar)
        if folds and len(split.partitions) != folds * repeats:
            measured = f"{len(split.partitions)} partitions, {folds} folds x {repeats} repeats asked for"
            action = "Nothing trained; leave --folds out, or make that split"
            raise UsageError(Problem("E-SPLIT-006", "the split has other folds", measured, "", action))
    elif folds:
        split = cross_validation(store, folds, repeats, INNER_VAL, config.seed)
    elif all(nodule.split for nodule in store.nodules):
        split = from_store(store)
        check_ids(split, store)
        if not asked.allow_similar:
            from toolkit.loading.alike import alike

            check_crops(split, store, alike(store))
    else:
        split = holdout(store, *HOLDOUT, config.seed)
    return split


def _refuse_other(split: Split, folds: int, repeats: int, folder: RunFolder) -> None:
    if folds and len(split.partitions) != folds * repeats:
        measured = f"{len(split.partitions)} partitions before, {folds} folds x {repeats} repeats now"
        action = "Nothing trained; name a new folder, or --no-resume to begin anew"
        what = "the run folder holds a run with another split"
        raise UsageError(Problem("E-TRAIN-003", what, measured, "", action, (str(folder.path),)))


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people and programs, in one step."""
    write_atomic(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())

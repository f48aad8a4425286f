"""A small store whose malignant nodules are denser, and runs on it, for tests of training."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tests.loading.split_stores import texture
from toolkit.store import Nodule, Store
from toolkit.training.config import TrainConfig, from_table
from toolkit.training.job import Job
from toolkit.training.prepare import Asked
from toolkit.training.record import EpochRecord
from toolkit.training.run import train
from toolkit.training.stopping import Progress

SIDE = 20

SETTINGS: dict[str, Any] = {
    "epochs": 3,
    "batch": 8,
    "model": {"name": "densenet-small"},
    "input": {"size": 16},
    "augment": {"preset": "light"},
    "optimizer": {"lr": 2e-3},
    "selection": {"min_epochs": 2, "smoothing": 2},
    "compute": {"threads": 1, "amp": "float32"},  # whatever the processor would take
    "logging": {"tensorboard": False},
}


def nodule(
    k: int, label: float | None, *, patient: int | None = None, split: str = "", rating: float | None = None
) -> Nodule:
    return Nodule(
        nodule_id=f"nodule-{k:04d}",
        case_id=f"case-{k // 2 if patient is None else patient:04d}",
        patient_id=f"patient-{k // 2 if patient is None else patient:04d}",
        label=label,
        diameter_mm=6.0 + k % 5,
        volume_mm3=300.0,
        center_lps_mm=(0.0, 0.0, 0.0),
        occupancy=0.1,
        mask_source="volume",
        rating=rating,
        split=split,
    )


def make_store(path: Path, count: int = 72, nodules: Sequence[Nodule] | None = None) -> Store:
    """Make a store; a third of the nodules is malignant, and a sphere in the middle tells which."""
    if nodules is None:
        nodules = [nodule(k, float(k // 2 % 3 == 0)) for k in range(count)]
    middle = (np.indices((SIDE,) * 3) - (SIDE - 1) / 2) ** 2
    ball = middle.sum(axis=0) < 5**2
    images = np.stack([texture(int(each.nodule_id[-4:]), SIDE) for each in nodules])
    for image, each in zip(images, nodules, strict=True):
        image[ball] = 150 if each.label and each.label >= 0.5 else -250
    masks = np.broadcast_to(np.uint8(255) * ball, images.shape).astype(np.uint8)
    return Store.create(path, list(nodules), images, masks, 1.0, margin=2)


def config(**changes: Any) -> TrainConfig:
    """Return the settings of these tests; a table replaces keys of its group, a value the whole."""
    table = {name: dict(value) if isinstance(value, dict) else value for name, value in SETTINGS.items()}
    for name, value in changes.items():
        table[name] = {**table.get(name, {}), **value} if isinstance(value, dict) else value
    return from_table(table)


class Watcher:
    """Keeps what it is shown; ends the training at a batch as a kill would, with nothing saved."""

    def __init__(self, die_at: int | None = None) -> None:
        self.records: list[EpochRecord] = []
        self.notes: list[str] = []
        self.batches, self.die_at = 0, die_at

    def batch(self, samples: int, waited_s: float) -> None:
        self.batches += 1
        if self.batches == self.die_at:
            raise Killed

    def epoch(self, record: EpochRecord, progress: Progress) -> None:
        self.records.append(record)

    def note(self, text: str) -> None:
        self.notes.append(text)


class Killed(BaseException):
    """As sudden as SIGKILL."""


def run(
    store: Path, out: Path, settings: TrainConfig | None = None, watcher: Watcher | None = None, **asked: Any
) -> dict[str, Any]:
    """Train, and return what `toolkit.training.run.train` told."""
    shown = watcher or Watcher()

    @contextmanager
    def watch(job: Job, records: Sequence[EpochRecord]) -> Iterator[Watcher]:
        yield shown

    return train(store, out, settings or config(), Asked(**{"device": "cpu", **asked}), watch)


def files(run_folder: Path) -> dict[str, bytes]:
    """Return what must be equal in equal runs: all but times, paths and checkpoints."""
    return {
        str(path.relative_to(run_folder)): path.read_bytes()
        for path in sorted(run_folder.rglob("*"))
        if path.is_file()
        and not {"log", "checkpoints", "tensorboard"} & {*path.relative_to(run_folder).parts}
    }

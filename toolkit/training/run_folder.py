"""Where everything of a run lies.

A run::

    config.json            the resolved configuration; fixed once training began
    environment.json       versions, device, threads, what the probes decided
    split.json             who is on which side
    metrics.jsonl          a line an epoch; holds no times, so that equal runs have equal files
    validation_logits.npy  float32 (epochs, n): of every scored validation nodule after every epoch
    tensorboard/           events
    checkpoints/           last.safetensors, best.safetensors
    model/                 what predict reads (toolkit/models/folder.py)
    predictions_val.csv    of the selected epoch
    predictions_test.csv   written by evaluate; for cross-validation by train: out of fold
    evaluation.json        written by evaluate
    report.html            written by report
    bad_batch.json         only where a loss was no number: the nodules of that batch
    log/                   times.jsonl, where.json (path of the store), looks.jsonl (looks at the test side)

Cross-validation has ``folds/<partition>/``, each such a run, and at the top config, environment, split, the
pooled out-of-fold predictions as ``predictions_test.csv`` and the ensemble as ``model/``.

A line of ``metrics.jsonl`` (null where not defined)::

    epoch                  counted from 1
    lr                     of the last step
    train_loss             mean of the objective over the epoch's batches, augmented, as optimised
    val, train             `toolkit.evaluation.results.Summary`: all scored validation nodules, and an equal
                           number of scored training nodules, both without augmentation, averaged weights
    selected               the metric of selection on validation, smoothed (higher is better)
    best_epoch             selected so far
    noise                  least gain of `selected` that would have counted
    why                    what selection says, a sentence
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """Paths within a run."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.json"

    @property
    def environment(self) -> Path:
        """Versions, device, threads."""
        return self.path / "environment.json"

    @property
    def split(self) -> Path:
        """Who is on which side."""
        return self.path / "split.json"

    @property
    def metrics(self) -> Path:
        """A line an epoch."""
        return self.path / "metrics.jsonl"

    @property
    def validation_logits(self) -> Path:
        """float32 (epochs, n)."""
        return self.path / "validation_logits.npy"

    @property
    def tensorboard(self) -> Path:
        """Folder of events."""
        return self.path / "tensorboard"

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.path / "checkpoints" / "last.safetensors"

    @property
    def best(self) -> Path:
        """Weights of the selected epoch."""
        return self.path / "checkpoints" / "best.safetensors"

    @property
    def model(self) -> Path:
        """What predict reads."""
        return self.path / "model"

    def predictions(self, side: str) -> Path:
        """Predictions of ``val`` or ``test``."""
        return self.path / f"predictions_{side}.csv"

    @property
    def evaluation(self) -> Path:
        """What evaluate found."""
        return self.path / "evaluation.json"

    @property
    def report(self) -> Path:
        """The page."""
        return self.path / "report.html"

    @property
    def bad_batch(self) -> Path:
        """The nodules of a batch whose loss was no number."""
        return self.path / "bad_batch.json"

    @property
    def log(self) -> Path:
        """Times, the store's path, looks at the test side."""
        return self.path / "log"

    def folds(self) -> list["RunFolder"]:
        """Return the runs of a cross-validation in order; empty for a single run."""
        return [RunFolder(each) for each in sorted((self.path / "folds").glob("*")) if each.is_dir()]

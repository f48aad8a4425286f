"""Who watches a training: the display, TensorBoard and W&B, and a log of times."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from toolkit.store.files import disk_errors
from toolkit.training.display import Display, display
from toolkit.training.job import Job
from toolkit.training.loggers import Logger, open_loggers
from toolkit.training.record import EpochRecord
from toolkit.training.stopping import Progress


class Watcher:
    """Passes on to the display, to every logger, and to ``log/times.jsonl``."""

    def __init__(self, job: Job, shown: Display, loggers: Sequence[Logger]) -> None:
        self._shown, self._loggers = shown, loggers
        self._times = job.folder.log / "times.jsonl"
        self._begun, self._samples = time.monotonic(), 0

    def batch(self, samples: int, waited_s: float) -> None:
        """Count a batch."""
        self._samples += samples
        self._shown.step(samples, waited_s)

    def epoch(self, record: EpochRecord, progress: Progress) -> None:
        """Show and log an epoch."""
        seconds, rate = time.monotonic() - self._begun, self._shown.rate
        self._shown.epoch(record, progress)
        for logger in self._loggers:
            logger.epoch(record, seconds, rate)
        line = {"epoch": record.epoch, "seconds": seconds, "samples": self._samples, "samples_per_s": rate}
        with disk_errors():
            self._times.parent.mkdir(parents=True, exist_ok=True)
            with self._times.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        self._begun, self._samples = time.monotonic(), 0

    def note(self, text: str) -> None:
        """Show a line."""
        self._shown.note(text)


class Unwatched:
    """For the ranks that neither write nor show."""

    def batch(self, samples: int, waited_s: float) -> None:
        """Do nothing."""

    def epoch(self, record: EpochRecord, progress: Progress) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""


def watching(
    *, verbose: bool
) -> Callable[[Job, Sequence[EpochRecord]], AbstractContextManager[Watcher | Unwatched]]:
    """Return what opens the watchers of a partition; only rank 0 has any."""

    @contextmanager
    def watch(job: Job, records: Sequence[EpochRecord]) -> Iterator[Watcher | Unwatched]:
        if not job.machine.ranks.first:
            yield Unwatched()
            return
        config, steps = job.config, job.sampler.steps(0)
        # the newest epoch is logged once more: the last process may have ended before it was
        loggers = open_loggers(config, job.folder, records[:-1])
        try:
            for logger in loggers if records else ():
                logger.epoch(records[-1], float("nan"), float("nan"))
            with display(config, steps, config.epochs, len(records) + 1, records, verbose=verbose) as shown:
                yield Watcher(job, shown, loggers)
        finally:
            for logger in loggers:
                logger.close()

    return watch

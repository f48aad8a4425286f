"""What is seen while training: a live panel on a terminal, nothing where there is none.

Who keeps stderr as a log may ask for a plain line an epoch. Only numbers that are on the host already are
shown, so that no GPU waits for the panel.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from toolkit.evaluation.results import AtThreshold, Interval, Summary
from toolkit.training.config import TrainConfig
from toolkit.training.record import EpochRecord, selection_value
from toolkit.training.sparkline import sparklines
from toolkit.training.stopping import WORDS, Progress

REFRESH_HZ = 2
WIDEST, MARGIN = 120, 10
GB = 1e9


class Display:
    """What is known at the moment; `display` makes it."""

    def __init__(
        self,
        config: TrainConfig,
        steps_per_epoch: int,
        epochs: int,
        records: Sequence[EpochRecord],
        console: Console,
        *,
        verbose: bool,
        clock: Callable[[], float],
    ) -> None:
        self.selection, self.beta = config.selection, config.threshold.beta
        self.steps, self.epochs = steps_per_epoch, epochs
        self.records, self.done_before = list(records), len(records)
        self.why = records[-1].why if records else ""
        self.console, self.verbose, self.clock = console, verbose, clock
        self.live = (
            Live(self, console=console, refresh_per_second=REFRESH_HZ) if console.is_terminal else None
        )
        self.over, self.rate_before = False, 0.0
        self.began = self.epoch_began = clock()
        self.step_done, self.samples, self.waited, self.stepping = 0, 0, 0.0, 0.0

    def step(self, samples: int, waited_s: float = 0.0) -> None:
        """Tell that a step of so many samples was made, and how long it had waited for the loader."""
        self.step_done += 1
        self.samples += samples
        self.waited += waited_s
        self.stepping = self.clock() - self.epoch_began

    def epoch(self, record: EpochRecord, progress: Progress) -> None:
        """Show an epoch; the next one begins."""
        self.records.append(record)
        self.why = progress.why
        if self.live is None and self.verbose:
            self.console.print(Text(plain_line(record, progress, self.epochs, self.rate)), soft_wrap=True)
        self.rate_before = self.rate
        self.step_done, self.samples, self.waited, self.stepping = 0, 0, 0.0, 0.0
        self.epoch_began = self.clock()
        if self.live is not None:
            self.live.refresh()

    def note(self, text: str) -> None:
        """Print a line that stays, terminal or not."""
        self.console.print(Text(text), soft_wrap=True)

    @property
    def rate(self) -> float:
        """Samples a second of this epoch's steps; until there are some, of the epoch before."""
        return self.samples / self.stepping if self.stepping > 0 else self.rate_before

    @property
    def left_s(self) -> float | None:
        """Seconds until the last epoch, were all of them made."""
        now, done = self.clock(), len(self.records) - self.done_before
        if done:
            return max((self.epoch_began - self.began) / done * (self.epochs - len(self.records)), 0.0)
        if not self.step_done:
            return None
        each = (now - self.epoch_began) / self.step_done
        return each * (self.steps * (self.epochs - len(self.records)) - self.step_done)

    def __rich__(self) -> RenderableType:
        records = list(self.records)  # another thread draws
        parts: list[RenderableType] = [self._bar(len(records)), Text(self._speed())]
        if records:
            newest = records[-1]
            parts += [_losses(newest), _table(newest.val, self.beta), *self._curves(records)]
        return Group(*parts)

    def _bar(self, done: int) -> RenderableType:
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1)
        grid.add_column(no_wrap=True)
        if self.over:
            bar = ProgressBar(total=self.epochs, completed=done)
            grid.add_row("ended", bar, f"epoch {done}/{self.epochs}")
        else:
            bar = ProgressBar(total=self.steps, completed=self.step_done)
            grid.add_row(f"epoch {done + 1}/{self.epochs}", bar, f"step {self.step_done}/{self.steps}")
        return grid

    def _speed(self) -> str:
        told = [f"{self.rate:,.0f} nodules/s"]
        if self.stepping > 0:
            told.append(f"{self.waited / self.stepping:.0%} waiting for the loader")
        told.append(memory())
        left = None if self.over else self.left_s
        return "  ".join(told if left is None else [*told, f"at most {_clock(left)} left"])

    def _curves(self, records: Sequence[EpochRecord]) -> list[RenderableType]:
        metric, best = self.selection.metric, records[-1].best_epoch
        raw = [selection_value(each.val, metric) for each in records]
        width = max(min(self.console.width, WIDEST) - MARGIN - len(" 9999"), 8)
        ascii_only = not self.console.encoding.lower().startswith("utf")
        lines = sparklines([raw, [each.selected for each in records]], best - 1, width, ascii_only=ascii_only)
        known = [abs(each) for each in raw if not math.isnan(each)]
        span = f"{min(known):.3f} to {max(known):.3f}" if known else "not defined"
        told = [Text(f"{WORDS[metric]} on validation, epochs 1 to {len(raw)}: {span}", "dim")]
        lines[-1] += f" {best}"
        for name, line in zip(("each", "smoothed", "kept"), lines, strict=True):
            told.append(Text(f"{name:<{MARGIN}}{line}", no_wrap=True))
        return [*told, Text(self.why)]


@contextmanager
def display(
    config: TrainConfig,
    steps_per_epoch: int,
    epochs: int,
    first_epoch: int = 1,
    records: Sequence[EpochRecord] = (),
    *,
    verbose: bool = False,
    console: Console | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Display]:
    """Show a training on stderr; the last panel stays.

    Parameters
    ----------
    first_epoch, records
        Where a resumed run goes on, and the epochs before; `first_epoch` counts from 1.
    verbose
        Print a plain line an epoch where stderr is no terminal.
    """
    shown = Display(
        config,
        steps_per_epoch,
        epochs,
        records[: first_epoch - 1],
        console or Console(stderr=True),
        verbose=verbose,
        clock=clock,
    )
    if shown.live is None:
        yield shown
    else:
        with shown.live:
            try:
                yield shown
            finally:
                shown.over = True


def plain_line(record: EpochRecord, progress: Progress, epochs: int, rate: float) -> str:
    """Return an epoch in one line."""
    at = record.val.at_threshold
    told = [
        f"epoch {record.epoch}/{epochs}",
        f"lr {record.lr:.1e}",
        f"loss {record.train_loss:.3f} train {record.val.loss:.3f} val",
        f"AUROC {_interval(record.val.auroc)}",
        f"recall {_interval(at.recall)}",
        f"specificity {_interval(at.specificity)}",
        f"{rate:,.0f}/s",
        f"kept {progress.best_epoch}",
        progress.why,
    ]
    return "; ".join(told)


def memory() -> str:
    """Return the memory of this process, and of its GPU where torch uses one, in words."""
    told = f"{resident_bytes() / GB:.1f} GB"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        told += f", GPU {torch.cuda.max_memory_reserved() / GB:.1f} GB"
    return told


def resident_bytes() -> int:
    """Return the resident memory of this process; its peak where the system tells no more."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        import resource

        return int(statm.read_text().split()[1]) * resource.getpagesize()
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _losses(record: EpochRecord) -> Text:
    val = record.val
    classes = f"malignant {val.loss_positive:.3f}, benign {val.loss_negative:.3f}"
    return Text(f"lr {record.lr:.1e}  loss: train {record.train_loss:.3f}, val {val.loss:.3f} ({classes})")


def _table(val: Summary, beta: float) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(f"{val.nodules} nodules, {val.positives} malignant", no_wrap=True)
    table.add_column("at 0.5", no_wrap=True)
    table.add_column("at the threshold", no_wrap=True)

    def row(name: str, of: Callable[[AtThreshold], Interval]) -> None:
        table.add_row(name, _interval(of(val.at_half)), _interval(of(val.at_threshold)))

    table.add_row("AUROC", _interval(val.auroc), "")
    table.add_row("average precision", _interval(val.average_precision), "")
    row("recall", lambda at: at.recall)
    row("specificity", lambda at: at.specificity)
    row("precision", lambda at: at.precision)
    row("balanced accuracy", lambda at: at.balanced_accuracy)
    row(f"F-beta, beta {beta:g}", lambda at: at.f_beta)
    return table


def _interval(value: Interval) -> str:
    if math.isnan(value.value):
        return "not defined"
    if math.isnan(value.low):
        return f"{value.value:.3f} (no interval)"
    return f"{value.value:.3f} ({value.low:.2f} to {value.high:.2f})"


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"

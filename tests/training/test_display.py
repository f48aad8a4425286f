"""What a terminal shows, line by line; what a log holds; and that nothing else is printed."""

import io
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from tests.training.curves import records
from toolkit.evaluation.influence import influence
from toolkit.evaluation.results import Interval
from toolkit.training.config import TrainConfig, from_table
from toolkit.training.display import Display, display, memory
from toolkit.training.record import EpochRecord, selection_value
from toolkit.training.sparkline import BLOCKS, sparklines
from toolkit.training.stopping import Progress, judge

STEPS, EPOCHS = 50, 60


@pytest.fixture(scope="module")
def made() -> list[tuple[EpochRecord, Progress]]:
    """Thirty epochs of a plausible run."""
    rng = np.random.default_rng(0)
    label = (np.arange(200) < 30).astype(np.float64)
    latent = rng.normal(size=200)
    logits = [latent + label * 2 * (1 - np.exp(-t / 6)) + rng.normal(size=200) for t in range(30)]
    found, values, moves = [], [], []
    for record, logit in zip(records(np.array(logits), label), logits, strict=True):
        values.append(selection_value(record.val, "auroc"))
        moves.append(influence("auroc", logit, label, np.arange(200)))
        progress = judge(values, moves, TrainConfig().selection)
        told = {"selected": progress.selected, "best_epoch": progress.best_epoch, "why": progress.why}
        found.append((replace(record, noise=progress.noise, **told), progress))
    return found


class Clock:
    """Seconds that pass when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def run(shown: Display, clock: Clock, made: list[tuple[EpochRecord, Progress]], more: int = 20) -> None:
    """Steps of 0.1 s with 32 nodules, a fifth of it waiting; 5 s of validation."""
    for record, progress in made:
        for _ in range(STEPS):
            clock.now += 0.1
            shown.step(32, 0.02)
        clock.now += 5
        shown.epoch(record, progress)
    for _ in range(more):
        clock.now += 0.1
        shown.step(32, 0.02)


def panel(shown: Display, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(shown)
    return [line.rstrip() for line in console.export_text().splitlines()]


def terminal(width: int = 80) -> Console:
    return Console(width=width, height=40, file=io.StringIO(), force_terminal=True)


@pytest.mark.parametrize("width", [80, 120])
def test_every_line_fits(made: list[tuple[EpochRecord, Progress]], width: int) -> None:
    clock = Clock()
    with display(TrainConfig(), STEPS, EPOCHS, console=terminal(width), clock=clock) as shown:
        assert len(panel(shown, width)) == 2, "before the first epoch there is a bar and a rate"
        run(shown, clock, made)
        lines = panel(shown, width)
    assert all(len(line) <= width for line in lines)
    assert len(lines) == 16, "one line each: nothing wraps"
    assert lines[0].startswith("epoch 31/60 ")
    assert lines[0].endswith("step 20/50")
    # 30 epochs of 10 s are behind, 30 before us
    assert lines[1].startswith("320 nodules/s  20% waiting for the loader")
    assert lines[1].endswith("at most 0:05:00 left")
    newest, progress = made[-1]
    at = newest.val.at_half.recall
    assert f"recall {at.value:.3f} ({at.low:.2f} to {at.high:.2f})" in re.sub(" +", " ", "\n".join(lines))
    assert f"loss: train 0.500, val {newest.val.loss:.3f}" in lines[2]
    assert lines[-1] == f"epoch {progress.best_epoch} is kept; {progress.why}"
    each, smoothed, kept = lines[-4:-1]
    assert each[10:12].strip(), "a curve starts below its name"
    assert len(each) == len(smoothed) == 10 + 30
    assert kept.index("▲") == 10 + progress.best_epoch - 1


def test_a_narrow_terminal_keeps_its_width(made: list[tuple[EpochRecord, Progress]]) -> None:
    clock = Clock()
    with display(TrainConfig(), STEPS, EPOCHS, console=terminal(50), clock=clock) as shown:
        run(shown, clock, made)
        assert all(len(line) <= 50 for line in panel(shown, 50))


def test_the_last_panel_stays(made: list[tuple[EpochRecord, Progress]]) -> None:
    clock, console = Clock(), terminal()
    with display(TrainConfig(), STEPS, 30, console=console, clock=clock) as shown:
        run(shown, clock, made, more=0)
        shown.note("a word that stays")
    assert panel(shown, 80)[0].startswith("ended ")
    assert "left" not in panel(shown, 80)[1]
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "a word that stays" in text
    assert "ended" in text[text.rindex("a word that stays") :]


def test_a_log_gets_notes_alone(made: list[tuple[EpochRecord, Progress]]) -> None:
    clock, out = Clock(), io.StringIO()
    with display(TrainConfig(), STEPS, EPOCHS, console=Console(file=out), clock=clock) as shown:
        shown.note("bfloat16: " + "measured " * 20)
        run(shown, clock, made)
    assert out.getvalue() == "bfloat16: " + "measured " * 20 + "\n"


def test_a_log_gets_a_line_an_epoch_where_asked(made: list[tuple[EpochRecord, Progress]]) -> None:
    clock, out = Clock(), io.StringIO()
    with display(TrainConfig(), STEPS, EPOCHS, console=Console(file=out), clock=clock, verbose=True) as shown:
        run(shown, clock, made)
    lines = out.getvalue().splitlines()
    assert len(lines) == 30
    record, progress = made[16]
    assert lines[16].startswith(
        f"epoch 17/60; lr 1.0e-03; loss 0.500 train {record.val.loss:.3f} val; AUROC "
    )
    assert lines[16].endswith(f"320/s; kept {progress.best_epoch}; {progress.why}")
    assert "\x1b" not in out.getvalue()


def test_a_resumed_run_shows_the_epochs_before(made: list[tuple[EpochRecord, Progress]]) -> None:
    clock = Clock()
    before = [record for record, _ in made]
    with display(TrainConfig(), STEPS, EPOCHS, 31, before, console=terminal(), clock=clock) as shown:
        first = panel(shown, 80)
        assert first[0].startswith("epoch 31/60")
        assert before[-1].why in first[-1]
        clock.now = 5
        shown.step(32)
        # 49 steps of this epoch and 29 epochs of 50, 5 s each
        assert shown.left_s == 5 * (49 + 29 * 50)


def test_no_color_means_none(
    made: list[tuple[EpochRecord, Progress]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def colours() -> set[str]:
        clock, console = Clock(), terminal()
        with display(TrainConfig(), STEPS, EPOCHS, console=console, clock=clock) as shown:
            run(shown, clock, made)
        text: str = console.file.getvalue()  # type: ignore[attr-defined]
        return set(re.findall(r"\x1b\[(?:3[0-8]|9[0-7])[0-9;]*m", text))

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert colours()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colours()


def test_a_terminal_without_blocks_gets_letters(made: list[tuple[EpochRecord, Progress]]) -> None:
    clock = Clock()
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=file, width=80, height=40, force_terminal=True)
    with display(TrainConfig(), STEPS, EPOCHS, console=console, clock=clock) as shown:
        run(shown, clock, made)  # a character that ASCII lacks would raise
    assert not set(BLOCKS) & set("".join(panel(shown, 80)))


@pytest.mark.parametrize("metric", ["auroc", "average_precision", "balanced_accuracy", "f_beta", "loss"])
def test_what_is_not_defined_is_said(made: list[tuple[EpochRecord, Progress]], metric: str) -> None:
    nothing = Interval(math.nan, math.nan, math.nan)
    record, progress = made[0]
    val = replace(record.val, auroc=nothing, average_precision=nothing)
    clock = Clock()
    config = from_table({"selection": {"metric": metric}})
    with display(config, STEPS, EPOCHS, console=terminal(), clock=clock) as shown:
        shown.epoch(replace(record, val=val, selected=math.nan), progress)
        lines = panel(shown, 80)
    assert re.match(r"AUROC +not defined$", lines[4])
    assert not re.search(r"\bnan\b", "\n".join(lines))


def numbers() -> Iterator[tuple[list[float], int]]:
    yield [0.0, 1.0], 10
    yield [math.nan, 0.5, math.nan, 0.7], 4
    yield [0.5] * 7, 3
    yield [math.nan] * 5, 5
    yield [float(i) for i in range(1000)], 60


@pytest.mark.parametrize(("values", "width"), list(numbers()))
def test_sparklines_have_a_column_for_each_value_or_fit(values: list[float], width: int) -> None:
    line, mark = sparklines([values], len(values) - 1, width)
    assert len(line) == len(mark) <= width
    shown = [BLOCKS.index(each) for each in line if each != " "]
    if len(values) <= width:
        assert [each == " " for each in line] == [math.isnan(value) for value in values]
    if values == sorted(values):
        assert shown == sorted(shown)


def test_sparklines_share_a_scale_and_a_steep_start_does_not_flatten_the_rest() -> None:
    values = [0.0, 0.3, 0.80, 0.82, 0.84, 0.86, 0.88, 0.90]
    line = sparklines([values, [0.90] * 8], 0, 40)
    assert line[0][0] == line[0][1] == line[0][2] == BLOCKS[0]
    assert line[0][2:] == "".join(sorted(set(line[0][2:]))), "all later values differ"
    assert line[1] == BLOCKS[-1] * 8


def test_memory_is_that_of_this_process() -> None:
    import psutil

    told = float(memory().split(" GB")[0])
    assert told == pytest.approx(psutil.Process().memory_info().rss / 1e9, abs=0.11)


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, toolkit.training.display; print([m for m in ('torch', 'scipy') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"

"""The loop of one partition: steps, an honest look after every epoch, checkpoints, an end."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from toolkit.errors import Problem, ToolkitError
from toolkit.evaluation.influence import influence
from toolkit.evaluation.metrics import summarize
from toolkit.evaluation.thresholds import choose, explain_goal
from toolkit.loading.batch import on_device
from toolkit.store.files import write_atomic
from toolkit.training.feed import of_epoch
from toolkit.training.job import Job
from toolkit.training.learner import Learner
from toolkit.training.ranks import Agreement, Next, lowest, mean, same_buffers
from toolkit.training.record import EpochRecord, selection_value
from toolkit.training.requests import Request
from toolkit.training.saver import History, Position, Saver
from toolkit.training.stopping import Progress, judge

if TYPE_CHECKING:
    from toolkit.loading.batch import Loader
    from toolkit.training.view import View

CHECK_EVERY = 100  # steps between two looks at whether the loss is still a number


class Shown(Protocol):
    """Whoever watches."""

    def batch(self, samples: int, waited_s: float) -> None:
        """Count a batch that was taught; the loader was waited for so long."""

    def epoch(self, record: EpochRecord, progress: Progress) -> None:
        """Show and log a finished epoch."""

    def note(self, text: str) -> None:
        """Show a line."""


Watch = Callable[[Job, Sequence[EpochRecord]], AbstractContextManager[Shown]]
"""Opens whoever watches a partition; told the epochs that were made before."""


def train_partition(
    job: Job, loader: "Loader", environment: dict[str, Any], request: Request, watch: Watch, *, resume: bool
) -> None:
    """Train on one partition until it is finished.

    Raises
    ------
    KeyboardInterrupt
        Where a stop was requested, after all was saved.
    ToolkitError
        E-TRAIN-004 where the loss is no number; the nodules of that batch are in ``bad_batch.json``.
    StoreError
        E-CKPT-001, E-CKPT-002 on a checkpoint that cannot be gone on with.
    """
    learner, history = job.learner(), History()
    saver = Saver(job, learner, environment)
    at, notes = saver.restore(history) if resume else (Position(), [])

    def wish() -> Next:
        return Next.STOP if request.made else Next.SAVE if saver.due else Next.GO_ON

    agreement = Agreement(job.machine.ranks, wish)
    both = np.concatenate([job.sides.validation, job.sides.probe])
    with watch(job, history.records) as shown, job.view(both) as view:
        if at.finished:  # all but what comes after the last epoch: the watchers have seen that one now
            return
        for note in (*_opening(job, environment), *notes):
            shown.note(note)
        for epoch in range(at.epoch, job.config.epochs):
            first = at.step if epoch == at.epoch else 0
            if not first:
                learner.begin_epoch()
            _teach(job, learner, loader, epoch, first, saver, agreement, shown)
            progress = _close_epoch(job, learner, view, epoch, history)
            finished = progress.stop or epoch + 1 == job.config.epochs
            saver.end_of_epoch(history, progress, Position(epoch + 1, 0, finished))
            shown.epoch(history.records[-1], progress)
            if finished:
                return
            if agreement.after_epoch() is Next.STOP:
                raise KeyboardInterrupt


def _opening(job: Job, environment: dict[str, Any]) -> list[str]:
    """Return what is said before the first epoch."""
    threshold = job.config.threshold
    against = explain_goal(threshold.rule, threshold.wish, job.balance.plain_prior)
    told = [f"{job.sides.partition.name}: {job.balance.words}"]
    told += [f"{environment['decided']}; loader {environment['loader']}"]
    return told if against is None else [*told, against]


def _teach(
    job: Job,
    learner: Learner,
    loader: "Loader",
    epoch: int,
    first: int,
    saver: Saver,
    agreement: Agreement,
    shown: Shown,
) -> None:
    """Make the steps of an epoch from `first` on."""
    target = of_epoch(job.sampler, epoch, job.sides.target, learner.device)
    measured = None
    if job.measured is not None:
        measured = of_epoch(job.sampler, epoch, job.measured, learner.device)
    begun = time.monotonic()
    for batch, image in on_device(loader.epoch(epoch, first), learner.device):
        waited = time.monotonic() - begun
        step = batch.step
        learner.step(epoch, step, image, target[step], None if measured is None else measured[step])
        if learner.calls == 1 and job.machine.decision.compile != "off":
            shown.note(f"compiled in {time.monotonic() - begun - waited:.0f} s")
        shown.batch(job.config.batch, waited)
        done = step + 1
        last = done == learner.steps
        following = Next.GO_ON if last else agreement.after_step(done)
        if following or last or done % CHECK_EVERY == 0:  # nothing is saved whose loss was not looked at
            _refuse_bad_loss(job, learner, epoch, done)
        if following:
            saver.within_epoch(Position(epoch, done))
        if following is Next.STOP:
            raise KeyboardInterrupt
        begun = time.monotonic()


def _refuse_bad_loss(job: Job, learner: Learner, epoch: int, steps: int) -> None:
    own = learner.first_bad_step(steps)
    bad = lowest(own, job.machine.ranks)  # of all: none may go on and wait for one that does not
    if bad is None:
        return
    index, _ = job.sampler.batch(epoch, bad)
    ids = [job.store.nodules[i].nodule_id for i in index.tolist()]
    path = job.folder.bad_batch
    value = {"epoch": epoch + 1, "step": bad, "nodule_ids": ids, "rank": job.machine.ranks.rank}
    if own == bad:
        write_atomic(path, json.dumps(value, indent=2).encode())
    measured = f"epoch {epoch + 1}, step {bad}, {len(ids)} nodules, first {ids[0]}"
    action = (
        "Stopped; the last checkpoint is from before. Look at the nodules of the batch, lower optimizer.lr, "
        "or set compute.amp to float32"
    )
    raise ToolkitError(Problem("E-TRAIN-004", "the loss is not a number", measured, "", action, (str(path),)))


def _close_epoch(job: Job, learner: Learner, view: "View", epoch: int, history: History) -> Progress:
    """Look at validation and at the probe with the averaged network, judge, and add to the history."""
    config, sides, ranks = job.config, job.sides, job.machine.ranks
    same_buffers(learner.average.module, ranks)
    # as float32, which is how they are kept: a resumed run judges what it read
    both = view.logits(learner.average.module, learner.device).astype(np.float32)
    val, probe = both[: len(sides.validation)], both[len(sides.validation) :]
    label, patient = sides.label[sides.validation], sides.patient[sides.validation]
    goal, logit = config.threshold.rule, val.astype(np.float64)
    threshold = choose(goal, logit, label, patient, config.prevalence, draws=0).threshold
    given: dict[str, Any] = {"threshold": threshold, "prior": job.balance.prior, "beta": goal.beta}
    summary = summarize(logit, label, patient, **given)
    moves = influence(config.selection.metric, logit, label, patient, **given)
    history.logits.append(val)
    history.moves.append(moves)
    metric = config.selection.metric
    values = [selection_value(each.val, metric) for each in history.records]
    values.append(selection_value(summary, metric))
    progress = judge(values, np.array(history.moves), config.selection)
    of_probe = (probe.astype(np.float64), sides.label[sides.probe], sides.patient[sides.probe])
    record = EpochRecord(
        epoch=epoch + 1,
        lr=learner.lr((epoch + 1) * learner.steps - 1),
        train_loss=mean(learner.losses, ranks),
        val=summary,
        train=summarize(*of_probe, **given),
        selected=progress.selected,
        best_epoch=progress.best_epoch,
        noise=progress.noise,
        why=progress.why,
    )
    history.records.append(record)
    return progress

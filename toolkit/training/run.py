"""``toolkit train``: a store and a configuration become a run folder, once or fold by fold."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolkit.device import resolve
from toolkit.evaluation.results import to_json
from toolkit.loading.split import Split
from toolkit.loading.split_file import write_split
from toolkit.store import Store
from toolkit.store.files import disk_errors, sync_folder
from toolkit.training.balance import balancing
from toolkit.training.config import TrainConfig
from toolkit.training.ensemble import write_folds_as_one
from toolkit.training.environment import describe
from toolkit.training.finish import finish
from toolkit.training.graph import with_graph
from toolkit.training.implementation import Trial, agreed, choose, race, taken_before
from toolkit.training.job import Job, Machine
from toolkit.training.loop import Watch, train_partition
from toolkit.training.precision import Decision, Impl, decide
from toolkit.training.prepare import Asked, begin_folder, check_folder, take_split, write_json
from toolkit.training.ranks import barrier, joined
from toolkit.training.record import read_records
from toolkit.training.requests import Request, stop_requests
from toolkit.training.run_folder import RunFolder
from toolkit.training.sides import make_sides

if TYPE_CHECKING:
    from toolkit.models.measured import Scaling


def train(
    store_path: Path, run_path: Path, config: TrainConfig, asked: Asked, watch: Watch
) -> dict[str, Any]:
    """Train, calibrate and freeze; goes on by itself where a run was interrupted.

    Returns what became of it as plain JSON.

    Raises
    ------
    UsageError
        On settings, labels, splits and folders that cannot be trained with, before any epoch.
    KeyboardInterrupt
        On SIGTERM or Ctrl-C, after all was saved.
    """
    import torch

    kind = resolve(asked.device)
    decision = decide(config.compute, kind)
    if config.compute.threads:
        torch.set_num_threads(config.compute.threads)
    torch.backends.cudnn.benchmark = True  # shapes are fixed; only GPUs see it
    store, run = Store.open(store_path), RunFolder(run_path)
    with joined(kind) as ranks, stop_requests() as request:
        machine = Machine(kind, with_graph(config.compute, kind, decision, ranks.ranks), asked.loader, ranks)
        check_folder(run, config, resume=asked.resume)
        split = take_split(run, store, config, asked)
        jobs = _jobs(store, run, config, split, machine)
        decision = _with_impl(jobs[0], run if asked.resume else None, trial=not asked.dry_run)
        jobs = [replace(job, machine=replace(machine, decision=decision)) for job in jobs]
        if asked.dry_run:
            return {
                "run": str(run_path),
                "decided": decision.why,
                "partitions": [_planned(job) for job in jobs],
            }
        barrier(ranks)
        if ranks.first:
            begin_folder(run, config, split, store, resume=asked.resume)
        barrier(ranks)
        for job in jobs:
            _one(job, split, asked, request, watch, of_folds=len(jobs) > 1)
        if len(jobs) > 1 and ranks.first:
            write_folds_as_one(run, config.prevalence)
        return {"run": str(run_path), "decided": decision.why, "partitions": [_told(job) for job in jobs]}


def _with_impl(job: Job, run: RunFolder | None, *, trial: bool) -> Decision:
    """Return the decision with the way that the network is computed, the same on all ranks."""
    machine, before = job.machine, None if run is None else taken_before(run)
    shown: Trial = partial(race, job) if trial else _later
    return agreed(choose(job.config, machine.kind, machine.decision, before, shown), machine.ranks)


def _later(decision: Decision) -> tuple[Impl, str]:
    return "plain", "a trial decides when training begins"


def _jobs(store: Store, run: RunFolder, config: TrainConfig, split: Split, machine: Machine) -> list[Job]:
    """Return a job for each partition, all of them checked before the first is trained."""
    measured = _measure(store, config)
    jobs = []
    for number, partition in enumerate(split.partitions, start=1):
        sides = make_sides(store, partition, config.labels.rule, config.seed)
        balance = balancing(config, *sides.counts)
        folder = run if len(split.partitions) == 1 else RunFolder(run.path / "folds" / f"fold-{number:03d}")
        values, scaling = _scale(measured, config.model.measured, sides.teaching)
        job = Job(store, config, sides, balance, folder, machine, values, scaling)
        _ = job.sampler
        jobs.append(job)
    jobs[0].check()
    return jobs


def _measure(store: Store, config: TrainConfig) -> NDArray[np.float64] | None:
    if not config.model.measured:
        return None
    from toolkit.models.measured import measure

    return measure(store, np.arange(len(store)), config.model.measured)


def _scale(
    measured: NDArray[np.float64] | None, names: tuple[str, ...], teaching: NDArray[np.int64]
) -> "tuple[NDArray[np.float32] | None, Scaling | None]":
    if measured is None:
        return None, None
    from toolkit.models.measured import Scaling

    scaling = Scaling.fit(names, measured[teaching])
    return scaling.apply(measured), scaling


def _one(job: Job, split: Split, asked: Asked, request: Request, watch: Watch, *, of_folds: bool) -> None:
    """Train on a partition, unless all of it is there already."""
    folder, ranks = job.folder, job.machine.ranks
    last = folder.predictions("test" if of_folds else "val")
    if last.exists():
        if ranks.first:
            with disk_errors():
                sync_folder(folder.path)  # as in `Saver.restore`
        return
    with job.open_loader() as loader:
        environment = describe(job.machine.device, job.machine.decision, loader.reason, ranks.ranks)
        if ranks.first:
            write_json(folder.environment, environment)
            if of_folds:
                write_json(folder.config, job.config.model_dump(mode="json"))
                part = Split(split.rule, split.seed, split.store, (job.sides.partition,), split.tied)
                write_split(folder.split, part, job.store)
        train_partition(job, loader, environment, request, watch, resume=asked.resume)
        barrier(ranks)  # the selected weights are written by one and read by all
        finish(job, test=of_folds)
    barrier(ranks)


def _planned(job: Job) -> dict[str, Any]:
    """Return what would be trained on."""
    sides = job.sides
    malignant, benign = sides.counts
    label = sides.label[sides.validation]
    return {
        "partition": sides.partition.name,
        "training": {"nodules": len(sides.teaching), "malignant": malignant, "benign": benign},
        "validation": {"malignant": int((label == 1).sum()), "benign": int((label == 0).sum())},
        "test_nodules": len(sides.partition.test),
        "balance": job.balance.words,
        "training_prior": job.balance.prior,
        "steps_per_epoch": job.sampler.steps(0),
        "weights": sum(each.numel() for each in job.network().parameters()),
    }


def _told(job: Job) -> dict[str, Any]:
    """Return what became of a partition."""
    records = read_records(job.folder.metrics)
    best = records[records[-1].best_epoch - 1]
    return {
        "partition": job.sides.partition.name,
        "epochs": len(records),
        "best_epoch": best.epoch,
        "why": records[-1].why,
        "validation": to_json(best.val),
        "training_prior": job.balance.prior,
    }

"""A trained model, opened: from the nodules of a store to probabilities and decisions."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.device import Device, resolve
from toolkit.errors import Problem, UsageError
from toolkit.inference.contract import check_nodules, check_store, inputs
from toolkit.inference.domain import domain_notes
from toolkit.inference.scores import Scores
from toolkit.loading.batch import Batch
from toolkit.loading.open import open_loader
from toolkit.loading.plan import Plan
from toolkit.loading.sampler import Members, SequentialSampler, members
from toolkit.models.folder import ModelFile
from toolkit.progress import Advance
from toolkit.store import Store
from toolkit.store.format import digest
from toolkit.store.scans import scan_notes

if TYPE_CHECKING:
    import torch

Amp = Literal["auto", "bfloat16", "float16", "float32"]
LoaderName = Literal["auto", "fused", "dali"]
Indices = NDArray[np.int64]
Floats = NDArray[np.float64]
BATCH = 32


@dataclass(frozen=True, eq=False)
class Predictor:
    """A model, or the members of an ensemble, on a device.

    Attributes
    ----------
    file
        What ``model.json`` says; of an ensemble, the whole's.
    models
        Each single model's file and network, in evaluation mode.
    digest
        Of the model folder: another one for other weights, thresholds or calibration.
    """

    file: ModelFile
    models: tuple[tuple[ModelFile, "torch.nn.Module"], ...]
    device: Literal["cpu", "cuda"]
    amp_dtype: "torch.dtype"
    digest: str


def open_predictor(
    folder: Path, device: Device = "auto", amp: Amp = "auto", *, allow_import: bool = False
) -> Predictor:
    """Open a model folder.

    Parameters
    ----------
    amp
        Precision of the forward pass; ``auto`` is float32 on the CPU, and bfloat16 on a GPU that has it.
    allow_import
        Let the folder name a network by any import path; importing runs code of that package.

    Raises
    ------
    UsageError
        E-DEV-001 where a GPU is asked for and there is none, E-MODEL-002 and E-MODEL-003 where the folder is
        damaged or holds members of another input than the whole's.
    """
    from toolkit.models.folder import load_members

    where = resolve(device)
    file, models = load_members(folder, where, allow_import=allow_import)
    for member, _ in models:
        if member.input != file.input:
            what = "a member of the ensemble takes another input"
            raise UsageError(Problem("E-MODEL-003", what, action="Nothing predicted", files=(str(folder),)))
    return Predictor(file, models, where, _precision(amp, where), model_digest(folder))


def model_digest(folder: Path) -> str:
    """Return the digest of a model folder: its ``model.json`` holds those of weights and members."""
    return digest((folder / "model.json").read_bytes())


def _precision(amp: Amp, device: str) -> "torch.dtype":
    import torch

    if amp == "auto":
        amp = "bfloat16" if device == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    dtype: torch.dtype = getattr(torch, amp)
    return dtype


def predict_store(
    predictor: Predictor,
    store: Store,
    index: Indices | None = None,
    *,
    loader: LoaderName = "auto",
    threads: int | None = None,
    batch: int = BATCH,
    prevalence: float | None = None,
    progress: Advance | None = None,
) -> Scores:
    """Predict nodules of a store.

    Parameters
    ----------
    index
        int64 (n,), which nodules; all when None.
    loader, threads
        As `toolkit.loading.open.open_loader` has them.
    prevalence
        Share of malignant nodules where the model is used, in (0, 1); probabilities follow it, decisions do
        not. The model's own when None.

    Raises
    ------
    UsageError
        E-PRED-001 and E-PRED-002 where model and store do not fit, E-PRED-003 where there is no nodule,
        E-PRED-004 where the prevalence is impossible.
    """
    file = predictor.file
    declared = file.prevalence if prevalence is None else prevalence
    check_prevalence(declared)
    check_store(file.input, store)
    index = np.arange(len(store)) if index is None else np.asarray(index, np.int64)
    if not len(index):
        raise UsageError(Problem("E-PRED-003", "there is no nodule to predict", "0 nodules", "at least 1"))
    features = measured_features(file, store, index)
    check_nodules(file.input, store, index, features)
    sampler = SequentialSampler(unlabelled(store, index), batch=batch)
    plan = Plan(store, sampler, inputs(file.input), file.input.size)
    raw = []
    with open_loader(plan, loader, predictor.device, threads) as source:
        for member, network in predictor.models:
            batches = _counted(source.epoch(0), progress)
            raw.append(_forward(predictor, member, network, batches, store, index, features))
    logit, each = _combined(predictor, np.stack(raw))
    calibration = file.calibration
    return Scores(
        index=index,
        nodules=tuple(store.nodules[i] for i in index.tolist()),
        logit=logit,
        calibrated=calibration.logit(logit, file.plain_prior),
        probability=calibration.probability(logit, declared),
        prevalence=declared,
        threshold=file.threshold,
        decision=(logit >= file.threshold).astype(np.int64),
        members=each,
        notes=_notes(file, store, index, features),
        scan_notes=_scan_notes(store, index),
    )


def unlabelled(store: Store, index: Indices) -> Members:
    """Return nodules for a sampler without what anybody says of them."""
    return replace(members(store.nodules, index), label=np.full(len(index), np.nan))


def measured_features(file: ModelFile, store: Store, index: Indices) -> Floats:
    """Return the features that a model fuses at its last layer, float64 (n, k), unscaled; NaN if unknown."""
    if not file.input.measured:
        return np.empty((len(index), 0))
    from toolkit.models.measured import measure

    return measure(store, index, file.input.measured)


def _forward(
    predictor: Predictor,
    file: ModelFile,
    network: "torch.nn.Module",
    batches: Iterable[Batch],
    store: Store,
    index: Indices,
    features: Floats,
) -> Floats:
    """Return the raw logits of one network in the order of `index`, float64 (n,)."""
    from toolkit.models.forward import logits

    table: NDArray[np.float32] | None = None
    if file.input.measured:
        table = np.zeros((len(store), len(file.input.measured)), np.float32)
        table[index] = _scaled(file, features)
    read, logit = logits(
        network, batches, measured=table, device=predictor.device, amp_dtype=predictor.amp_dtype
    )
    if not np.array_equal(read, index):
        raise AssertionError("the loader read other nodules than it was told")
    if not np.isfinite(logit).all():
        measured = f"{np.count_nonzero(~np.isfinite(logit))} of {len(logit)} logits are no numbers"
        action = "Nothing predicted; try --amp float32"
        raise UsageError(Problem("E-MODEL-003", "the model gives no number", measured, "", action))
    return logit


def scaled_features(file: ModelFile, store: Store, index: Indices) -> NDArray[np.float32]:
    """Return the features that a network fuses, as it takes them, float32 (n, k)."""
    return _scaled(file, measured_features(file, store, index))


def _scaled(file: ModelFile, features: Floats) -> NDArray[np.float32]:
    from toolkit.models.measured import Scaling

    return Scaling.of(file.input.measured, file.measured).apply(features)


def _combined(predictor: Predictor, raw: Floats) -> tuple[Floats, Floats]:
    """Return the raw logit of the whole, (n,), and calibrated logits of its members, (m, n)."""
    file = predictor.file
    if not file.members:
        return raw[0], np.empty((0, raw.shape[1]))
    each = [
        member.calibration.logit(row, file.plain_prior)
        for (member, _), row in zip(predictor.models, raw, strict=True)
    ]
    return np.mean(each, axis=0), np.stack(each)


def _notes(
    file: ModelFile, store: Store, index: Indices, measured: Floats
) -> tuple[tuple[Problem, ...], ...]:
    """Return what is to be said of each nodule."""
    from toolkit.models.seen import features

    told = domain_notes(file.seen, features(store, index))
    what = "no {}, which the model is fed"
    missing = [
        tuple(
            Problem("W-PRED-003", what.format(name), action="That of a typical nodule stands in")
            for name, value in zip(file.input.measured, row, strict=True)
            if np.isnan(value)
        )
        for row in measured
    ]
    return tuple((*a, *b) for a, b in zip(told, missing, strict=True))


def _scan_notes(store: Store, index: Indices) -> tuple[tuple[str, ...], ...]:
    noted = scan_notes(store)
    return tuple(noted.get(store.nodules[i].case_id, ()) for i in index.tolist())


def _counted(batches: Iterable[Batch], progress: Advance | None) -> Iterator[Batch]:
    for batch in batches:
        yield batch
        if progress is not None:
            progress(len(batch.index))


def check_prevalence(value: float) -> None:
    """Raise `UsageError` E-PRED-004 where a share is not above 0 and below 1."""
    if not 0 < value < 1:
        action = "Nothing predicted; give the share of malignant nodules where the model is used"
        raise UsageError(
            Problem("E-PRED-004", "prevalence is impossible", f"{value:g}", "above 0, below 1", action)
        )

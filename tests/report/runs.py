"""Synthetic runs, as plausible as simulation makes them: a network that learns, then grows too sure.

Scores of nodules are drawn, not learned; every figure of the files is computed from them by the project's own
evaluation, so that pages hold what real pages hold.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tests.report.stores import SIZE, ball, nodule
from toolkit.evaluation.baseline import fit_diameter
from toolkit.evaluation.calibration import Calibration, fit
from toolkit.evaluation.evaluate import evaluate
from toolkit.evaluation.evaluation import write_evaluation
from toolkit.evaluation.metrics import summarize
from toolkit.evaluation.predictions import Predictions, write_predictions
from toolkit.evaluation.thresholds import choose
from toolkit.loading.split import Partition, Split
from toolkit.loading.split_file import write_split
from toolkit.models.folder import (
    InputContract,
    ModelFile,
    Range,
    read_model_file,
    write_ensemble,
    write_model,
)
from toolkit.models.registry import build
from toolkit.store import Nodule, Store
from toolkit.training.config import TrainConfig, from_table
from toolkit.training.record import EpochRecord, write_records
from toolkit.training.run_folder import RunFolder

Floats = NDArray[np.float64]
COUNT, EPOCHS, KEPT = 300, 30, 17
PRIOR = 0.5
DRAWS = 60


def make_store(path: Path, count: int = COUNT, **changes: object) -> Store:
    """A store of balls, a quarter malignant and larger, two nodules a patient."""
    rng = np.random.default_rng(5)
    label = (np.arange(count) % 8 < 2).astype(float)  # both nodules of a patient alike
    diameter = np.clip(np.exp(rng.normal(np.where(label == 1, 2.45, 2.0), 0.35)), 4, 20)
    pairs = [ball(SIZE, d / 2, at_mm=tuple(rng.uniform(-1, 1, 3))) for d in diameter]
    noise = rng.normal(0, 60, (count, SIZE, SIZE, SIZE))
    images = np.stack([i for i, _ in pairs]) + noise.astype(np.int16)
    records = [
        nodule(k, float(diameter[k]), label=float(label[k]), patient_id=f"{k // 2:016x}", **changes)
        for k in range(count)
    ]
    return Store.create(path, records, images, np.stack([m for _, m in pairs]), 1.0)


@dataclass(frozen=True, eq=False)
class Simulated:
    """Scores of nodules: what they truly say, and what the network says after each epoch."""

    nodules: Sequence[Nodule]
    logits: Floats  # (epochs, n)

    @property
    def label(self) -> Floats:
        return np.array([np.nan if n.label is None else n.label for n in self.nodules])

    @property
    def patient(self) -> NDArray[np.str_]:
        return np.array([n.patient_id for n in self.nodules])


def simulate(nodules: Sequence[Nodule], seed: int, epochs: int = EPOCHS, spread: float = 1.0) -> Simulated:
    """Ranking rises, then stays; logits drift down and apart, so that recall at 0.5 falls."""
    rng = np.random.default_rng(seed)
    label = np.array([0.0 if n.label is None else n.label for n in nodules])
    size = np.log([n.diameter_mm or 8.0 for n in nodules]) - 2.1
    truth = 1.0 * size + 1.3 * (label - 0.5) + spread * rng.normal(0, 0.9, len(nodules))
    logits = []
    for epoch in range(1, epochs + 1):
        learned = 1 - np.exp(-epoch / 5)
        sure = learned * (1 + 0.05 * epoch)
        wobble = rng.normal(0, 0.35, len(nodules)) + rng.normal(0, 0.15)
        logits.append(sure * (truth + 0.4 - 0.04 * epoch) + wobble)
    return Simulated(nodules, np.array(logits))


def make_run(
    path: Path,
    store: Store,
    split: Split | None = None,
    *,
    part: Partition | None = None,
    evaluated: bool = True,
    seed: int = 0,
    config: dict[str, object] | None = None,
) -> RunFolder:
    """Write a whole single run, or one fold of a cross-validation."""
    folder = RunFolder(path)
    (path / "log").mkdir(parents=True)
    table: dict[str, object] = {"epochs": EPOCHS, "model": {"name": "densenet-small"}, **(config or {})}
    settings = from_table(table)
    split = split or divide(store, 1)
    part = part or split.partitions[0]
    _json(folder.config, settings.model_dump(mode="json"))
    _json(
        folder.environment, {"toolkit": "0.0", "packages": {"torch": "2.13.0"}, "device": "cpu", "threads": 2}
    )
    _json(folder.log / "where.json", {"store": str(store.path)})
    write_split(folder.split, split, store)
    sides = {side: _nodules(store, part.side(side)) for side in ("train", "val", "test")}
    val, train = simulate(sides["val"], seed + 1), simulate(sides["train"], seed + 2, spread=0.7)
    np.save(folder.validation_logits, val.logits.astype(np.float32))
    write_records(folder.metrics, _records(val, train, settings))
    kept = val.logits[KEPT - 1]
    plain = float(train.label.mean())
    threshold = choose(settings.threshold.rule, kept, val.label, val.patient, draws=DRAWS).threshold
    calibration = fit(kept, val.label, plain, PRIOR)
    _write_model(folder.model, settings, calibration, threshold, plain, store)
    write_predictions(folder.predictions("val"), predict(part.name, val, calibration, threshold))
    test = predict(part.name, simulate(sides["test"], seed + 3), calibration, threshold)
    if evaluated:
        write_predictions(folder.predictions("test"), test)
        write_evaluation(folder.evaluation, _evaluated(test, train, settings, plain))
        (folder.log / "looks.jsonl").write_text('{"look": 1}\n')
    return folder


def make_folds(path: Path, store: Store, folds: int = 3) -> RunFolder:
    """Write a cross-validation: its folds, the pooled predictions and their evaluation."""
    split = divide(store, folds)
    folder = RunFolder(path)
    made = [
        make_run(
            path / "folds" / f"fold-{k + 1:03d}",
            store,
            split,
            part=part,
            evaluated=False,
            seed=10 * k,
        )
        for k, part in enumerate(split.partitions)
    ]
    (path / "log").mkdir()
    for name in ("config", "environment", "split"):
        getattr(folder, name).write_bytes(getattr(made[0], name).read_bytes())
    (folder.log / "where.json").write_bytes((made[0].log / "where.json").read_bytes())
    models = [read_model_file(one.model) for one in made]
    pooled = []
    for k, (part, model) in enumerate(zip(split.partitions, models, strict=True)):
        test = simulate(_nodules(store, part.test), 10 * k + 3)
        pooled.append(predict(part.name, test, model.calibration, model.threshold))
    test = Predictions(
        *(np.concatenate([getattr(p, f) for p in pooled]) for f in Predictions.__dataclass_fields__)
    )
    members = {one.path.name: one.model for one in made}
    plain = models[0].plain_prior
    none = Calibration(1.0, 0.0, plain, "none")
    whole = replace(models[0], architecture={}, calibration=none, members=tuple(members))
    write_ensemble(folder.model, whole, members)
    write_predictions(folder.predictions("test"), test)
    everyone = simulate(store.nodules, 1)
    write_evaluation(folder.evaluation, _evaluated(test, everyone, from_table({}), plain))
    return folder


def divide(store: Store, folds: int) -> Split:
    """Put patients onto sides in turn; balls look too much alike for the real split, which ties them."""
    patients = sorted({n.patient_id for n in store.nodules})
    turn = {patient: k for k, patient in enumerate(np.random.default_rng(0).permutation(patients))}
    parts = []
    for fold in range(folds):
        sides: dict[str, list[str]] = {"train": [], "val": [], "test": []}
        for n in store.nodules:
            place = (turn[n.patient_id] + fold) % max(3, folds)
            sides["test" if place == 0 else "val" if place == 1 else "train"].append(n.nodule_id)
        name = "holdout" if folds == 1 else f"repeat 1 fold {fold + 1}"
        parts.append(Partition(name, *(tuple(sorted(sides[side])) for side in ("train", "val", "test"))))
    return Split("in turn, for tests", 0, str(store.settings["config_digest"]), tuple(parts))


def predict(name: str, side: Simulated, calibration: Calibration, threshold: float) -> Predictions:
    """Return predictions of the kept epoch."""
    n, raw = len(side.nodules), side.logits[KEPT - 1]
    return Predictions(
        partition=np.full(n, name),
        nodule_id=np.array([each.nodule_id for each in side.nodules]),
        case_id=np.array([each.case_id for each in side.nodules]),
        patient_id=side.patient,
        target=side.label,
        label=side.label,
        logit=raw,
        calibrated=calibration.logit(raw),
        probability=calibration.probability(raw, 0.1),
        threshold=np.full(n, threshold),
        decision=(raw >= threshold).astype(np.int64),
        diameter_mm=np.array([each.diameter_mm or np.nan for each in side.nodules]),
    )


def _records(val: Simulated, train: Simulated, config: TrainConfig) -> list[EpochRecord]:
    records = []
    for k, (ours, theirs) in enumerate(zip(val.logits, train.logits, strict=True)):
        threshold = choose(config.threshold.rule, ours, val.label, val.patient, draws=2).threshold
        how = {"threshold": threshold, "prior": PRIOR, "beta": config.threshold.beta, "draws": DRAWS}
        shown, learned = (
            summarize(z, side.label, side.patient, **how) for z, side in ((ours, val), (theirs, train))
        )
        lr = 3e-4 * 0.5 * (1 + np.cos(np.pi * k / len(val.logits)))
        records.append(
            EpochRecord(k + 1, lr, 1.1 * learned.loss, shown, learned, shown.auroc.value, min(k + 1, KEPT))
        )
    return records


def _evaluated(test: Predictions, train: Simulated, config: TrainConfig, plain: float):
    diameter = np.array([n.diameter_mm for n in train.nodules])
    baseline = fit_diameter(diameter, train.label).logit(test.diameter_mm)
    return evaluate(
        test, baseline=baseline, goal=config.threshold.rule, beta=config.threshold.beta, prevalence=0.1,
        plain_prior=plain, prior=PRIOR, draws=DRAWS,
    )  # fmt: skip


def _write_model(
    folder: Path, config: TrainConfig, calibration: Calibration, threshold: float, plain: float, store: Store
) -> None:
    """Write a model of this run: a network with its first weights, since the scores are simulated."""
    name = config.model.name
    file = ModelFile(
        architecture={"name": name, "options": {}, "dropout": 0.0, "stem_stride": 2},
        input=InputContract(1, store.spacing_mm, store.size, (-1000.0, 400.0), "none", 0.0, 1),
        labels=config.labels.rule,
        prior=PRIOR,
        plain_prior=plain,
        calibration=calibration,
        threshold=threshold,
        goal=config.threshold.rule,
        prevalence=0.1,
        seen={"diameter_mm": Range(4.0, 4.1, 8.2, 19.0, 20.0)},
        provenance={"seed": 0, "epoch": KEPT},
    )
    torch.manual_seed(0)
    write_model(folder, file, build(name, 1).state_dict())


def _nodules(store: Store, ids: Sequence[str]) -> list[Nodule]:
    wanted = {*ids}
    return [n for n in store.nodules if n.nodule_id in wanted]


def _json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")

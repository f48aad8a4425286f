"""Finished runs without training: a store whose crops tell the class, splits, models of chance."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.inference.model_folders import CONTRACT, FILE, network, write_model
from tests.loading.records import nodule
from tests.loading.split_stores import SIDE, make_store, texture
from toolkit.evaluation.predictions import write_predictions
from toolkit.inference.predictor import open_predictor, predict_store
from toolkit.inference.test_side import as_predictions
from toolkit.loading.split import Split, cross_validation, holdout, indices
from toolkit.loading.split_file import write_split
from toolkit.store import Store
from toolkit.training.run_folder import RunFolder

NODULES = 90
INPUT = replace(CONTRACT, size=SIDE)


def make_cohort(path: Path) -> Store:
    """90 nodules of 45 patients, 30 malignant, 6 without a label, 6 without a diameter."""
    rng = np.random.default_rng(0)
    records = []
    for i in range(NODULES):
        label = float(i % 3 == 0)
        size = float(np.exp(rng.normal(2 + 0.4 * label, 0.5)))
        record = nodule(f"n{i:02}", f"p{i // 2:02}", label, None if i % 15 == 7 else size)
        records.append(replace(record, label=None) if i % 15 == 4 else record)
    images = np.stack([texture(i) + np.int16(60 * (records[i].label or 0)) for i in range(NODULES)])
    return make_store(path, records, images)


def write_run(path: Path, store: Store, split: Split, seed: int = 0) -> RunFolder:
    """A run of one partition."""
    run = RunFolder(path)
    file = replace(FILE, input=INPUT)
    weights = network(file, seed).state_dict()
    write_model(run.model, file, weights)
    middle = float(np.median(predict_store(open_predictor(run.model, "cpu"), store).logit))
    write_model(run.model, replace(file, threshold=middle), weights)  # so that decisions differ
    write_split(run.split, split, store)
    run.log.mkdir()
    (run.log / "where.json").write_text(json.dumps({"store": str(store.path)}))
    return run


def single(path: Path, store: Store, seed: int = 0) -> RunFolder:
    return write_run(path, store, holdout(store, 0.2, 0.4), seed)


def crossed(path: Path, store: Store, folds: int = 3) -> RunFolder:
    """A cross-validation as training leaves it: folds, pooled predictions, an ensemble's file at the top."""
    split = cross_validation(store, folds)
    run = write_run(path, store, split)
    parts = []
    for k, part in enumerate(split.partitions):
        fold = write_run(
            path / "folds" / part.name.replace(" ", "-"), store, replace(split, partitions=(part,)), k
        )
        scores = predict_store(open_predictor(fold.model, "cpu"), store, indices(store, part.test))
        parts.append(as_predictions(scores, part.name, FILE.labels))
    whole = {name: np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])}
    write_predictions(run.predictions("test"), replace(parts[0], **whole))
    return run

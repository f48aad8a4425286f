"""134 real nodules: `toolkit train` against the diameter and against a plain MONAI script, on the same folds.

``python -m benchmarks.lidc134 --data FOLDER --work FOLDER [--repeats 3] [--only monai] [--out FILE]``

The split is made once and given to both. MONAI's script trains on the training and the validation side of a
fold, since it selects and calibrates nothing; ours keeps the validation side for that. Both are judged on the
outer fold, which nothing has seen. A run that was interrupted goes on.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.lidc134_scores import Column, compare
from benchmarks.lidc134_store import make_store
from benchmarks.peers.monai_classifier import Nodules, train_and_predict
from toolkit.bench import record
from toolkit.evaluation.predictions import read_predictions
from toolkit.loading.split import Split, cross_validation, indices
from toolkit.loading.split_file import read_split, write_split
from toolkit.store import Store

CONFIG = Path(__file__).parent / "configs" / "lidc134.toml"
FOLDS, INNER_VAL, SEED = 5, 0.15, 0


def main() -> None:
    """Parse, train both, compare, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    data = os.environ.get("TOOLKIT_TEST_DATA")
    parser.add_argument("--data", type=Path, default=data, required=not data, help="folder of the two files")
    parser.add_argument("--work", type=Path, required=True, help="folder for store, split and runs")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=("toolkit", "monai"), help="train one of the two")
    parser.add_argument("--config", type=Path, default=CONFIG, help="settings of toolkit train")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    store, split = prepare(args.data, args.work, args.repeats)
    columns = [diameter(store, split)]
    if args.only != "monai":
        columns.append(toolkit(args.work, store, split, args.config))
    if args.only != "toolkit":
        columns.append(monai(args.work, store, split))
    figures = compare(columns)
    for found in figures:
        print(record.line(found))
    if args.out:
        record.append(figures, args.out)


def prepare(data: Path, work: Path, repeats: int) -> tuple[Store, Split]:
    """Return the store and the split, made where they are missing."""
    path, split = work / "store", work / f"split-{repeats}x{FOLDS}.json"
    store = Store.open(path) if (path / "nodules.csv").exists() else make_store(data, path)
    if not split.exists():
        write_split(split, cross_validation(store, FOLDS, repeats, INNER_VAL, SEED), store)
    return store, read_split(split, store)


def diameter(store: Store, split: Split) -> Column:
    """Return the diameter itself as a score: it needs no fold."""
    values = np.array([nodule.diameter_mm or np.nan for nodule in store.nodules])
    tests = [indices(store, part.test) for part in split.partitions]
    return Column.of("diameter", store, split, [values[index] for index in tests])


def toolkit(work: Path, store: Store, split: Split, config: Path) -> Column:
    """Train by the command and return the calibrated out-of-fold logits."""
    run = work / f"run-{len(split.partitions)}"
    path = work / f"split-{len(split.partitions) // FOLDS}x{FOLDS}.json"
    call = ["train", work / "store", run, "--config", config, "--split", path]
    subprocess.run([sys.executable, "-m", "toolkit", *map(str, call)], check=True)
    told = read_predictions(run / "predictions_test.csv")
    logit = {
        (str(p), str(i)): float(z)
        for p, i, z in zip(told.partition, told.nodule_id, told.calibrated, strict=True)
    }
    ids = np.array([nodule.nodule_id for nodule in store.nodules])
    return Column.of(
        "toolkit",
        store,
        split,
        [
            np.array([logit[part.name, i] for i in ids[indices(store, part.test)]])
            for part in split.partitions
        ],
    )


def monai(work: Path, store: Store, split: Split) -> Column:
    """Train the plain script on every fold and return its logits; a fold that is there is not repeated."""
    hu = np.concatenate([shard.images for shard in store.shards])
    mask = np.concatenate([shard.masks for shard in store.shards])
    label = np.array([np.nan if nodule.label is None else nodule.label for nodule in store.nodules])
    nodules, scores = Nodules(hu, mask, label), []
    for number, part in enumerate(split.partitions):
        kept = work / f"monai-{len(split.partitions)}" / f"{number:03d}.json"
        test = indices(store, part.test)
        if not kept.exists():
            train = indices(store, part.train + part.val)
            logit = train_and_predict(nodules[train[~np.isnan(label[train])]], nodules[test], seed=number)
            kept.parent.mkdir(exist_ok=True)
            kept.write_text(json.dumps(logit.tolist()))
            print(f"MONAI: {part.name} of {len(split.partitions)}", file=sys.stderr, flush=True)
        scores.append(np.array(json.loads(kept.read_text())))
    return Column.of("monai", store, split, scores)


if __name__ == "__main__":
    main()

"""What each way to balance does at 10 benign to 1 malignant, on the phantom.

``python -m benchmarks.imbalance --work FOLDER [--patients 1000] [--seeds 0 1] [--out FILE]``

Arms: ``none``; ``sampler`` (half of each batch malignant); ``weight`` (malignant nodules count 10 times);
``both`` (what is refused otherwise); ``logit-adjust``. Each without and with augmentation, with several
seeds, all on one split with as many steps. The test side is judged by the raw logit at 0 (a raw probability
of a half), by the threshold frozen on validation, and by its calibration before and after. A run that is
there is not repeated.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.imbalance_scores import Outcome, differences, estimates, table
from benchmarks.imbalance_store import imbalanced_store, phantom_store
from toolkit.bench import record
from toolkit.evaluation.predictions import read_predictions
from toolkit.loading.numbered import count
from toolkit.loading.split import Partition, holdout
from toolkit.loading.split_file import read_split, write_split
from toolkit.store import Store

CONFIG = Path(__file__).parent / "configs" / "imbalance.toml"
RATIO, VAL, TEST, BATCH, SPLIT_SEED = 10, 0.2, 0.35, 32, 0
ARMS: Mapping[str, Sequence[str]] = {
    "none": ['balance="none"'],
    "sampler": ['balance="sampler"'],
    "weight": ['balance="weight"'],
    "both": ['balance="sampler"', f"loss.pos_weight={RATIO}.0", "force_double_balance=true"],
    "logit-adjust": ['balance="logit-adjust"'],
}
AUGMENTATION = {"plain": "none", "augmented": "default"}


def main() -> None:
    """Parse, train all arms, print the table, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for archive, stores and runs")
    parser.add_argument("--source", type=Path, help="a store of the phantom, instead of a new one")
    parser.add_argument("--patients", type=int, default=1000, help="of the phantom")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=1200, help="optimizer steps of every run, about")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    source = Store.open(args.source) if args.source else phantom_store(args.work, args.patients)
    store = imbalanced_store(source, args.work / "store", RATIO, SPLIT_SEED)
    split = args.work / "split.json"
    if not split.exists():
        write_split(split, holdout(store, VAL, TEST, SPLIT_SEED), store)
    (partition,) = read_split(split, store).partitions
    outcomes = [
        run(args.work, split, augmentation, arm, seed, epochs(store, partition, arm, args.steps))
        for augmentation in AUGMENTATION
        for arm in args.arms
        for seed in args.seeds
    ]
    found = estimates(outcomes)
    for each in found:
        print(record.line(each))
    print(table(found))
    apart = differences(outcomes)
    for each in apart:
        print(record.line(each))
    if args.out:
        record.append([*found, *apart], args.out)


def epochs(store: Store, partition: Partition, arm: str, steps: int) -> int:
    """Return how many epochs make about as many steps: an epoch of the sampler is longer than a plain one."""
    train = count(store, partition)["train"]
    sampled = any("sampler" in text for text in ARMS[arm])
    benign, all_of_them = train["benign"], train["benign"] + train["malignant"]
    each = -(-benign // (BATCH // 2)) if sampled else -(-all_of_them // BATCH)
    return max(1, round(steps / each))


def run(work: Path, split: Path, augmentation: str, arm: str, seed: int, epochs: int) -> Outcome:
    """Train one arm once and look at its test side."""
    folder = work / "runs" / f"{augmentation}_{arm}_{seed}"
    predicted = folder / "predictions_test.csv"
    if not predicted.exists():
        sets = [*ARMS[arm], f'augment.preset="{AUGMENTATION[augmentation]}"']
        options = [word for text in sets for word in ("--set", text)]
        options += ["--epochs", str(epochs), "--seed", str(seed), "--split", str(split)]
        _toolkit("train", work / "store", folder, "--config", CONFIG, *options)
        _toolkit("evaluate", folder)
    return Outcome(augmentation, arm, seed, read_predictions(predicted))


def _toolkit(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "toolkit", *map(str, words)], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()

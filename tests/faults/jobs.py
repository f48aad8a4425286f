"""What is put to the test: a preprocessing of a few shards, and a training with all that follows it."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.faults.harness import UNNOTICED, Files, Job

CASES_PER_SHARD = 2


class InThisProcess:
    """Stands for the pool of workers, which write no files: everything happens where the shim listens."""

    def __init__(self, workers: int, memory: int | None = None) -> None:
        pass

    def map(self, function: Callable[[Any], Any], tasks: Any) -> Iterator[tuple[int, Any]]:
        """Do one task after the other."""
        for number, task in enumerate(tasks):
            yield number, function(task)

    def __enter__(self) -> "InThisProcess":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def preprocessing(place: Path) -> Job:
    """Six patients in three shards; `place` is where the archive may lie."""
    import toolkit.preprocess.run
    import toolkit.preprocess.warm
    from toolkit.phantom.archive import write_archive

    archive = place / "archive"
    write_archive(archive, patients=6, seed=11, formats=("dicom", "nifti", "mhd"))
    toolkit.preprocess.run.Pool = toolkit.preprocess.pool.Pool = InThisProcess
    toolkit.preprocess.plan.CASES_PER_SHARD = CASES_PER_SHARD

    def commands(root: Path) -> list[list[str]]:
        crops = ["--spacing", "2", "--size", "16", "--margin", "2", "--id-key", "test"]
        more = ["--cases", str(archive / "cases.csv"), "--index-cache", str(root / "index")]
        return [["preprocess", str(archive), str(root / "store"), *crops, *more]]

    def same(path: str, content: bytes) -> bytes | None:
        return None if {"log", "index"} & {*path.split("/")[:-1]} else content

    return Job("preprocess", commands, same, ("log", "index"), _damaged, _flipped_in_store)


def indexing(place: Path) -> Job:
    """The manifest of an archive, the outcome of its files, and the page of a store."""
    made = preprocessing(place)
    archive, store = place / "archive", place / "store"
    from toolkit.preprocess.identity import IdKey
    from toolkit.preprocess.plan import Settings
    from toolkit.preprocess.run import Job as Task
    from toolkit.preprocess.run import preprocess

    settings = Settings(spacing_mm=2.0, size=16, margin=2)
    preprocess(Task(archive, store, IdKey(b"test"), manifest=archive / "cases.csv", settings=settings))

    def commands(root: Path) -> list[list[str]]:
        tables = ["--out", str(root / "cases.csv"), "--files", str(root / "files.csv")]
        return [
            ["index", str(archive), *tables, "--index-cache", str(root / "index")],
            ["inspect", str(store), "--out", str(root / "pages" / "qc.html")],
        ]

    def flipped(root: Path, path: str, expected: Files) -> str:
        for name in expected:
            (root / name).unlink(missing_ok=True)
        return "in a table or a page: nothing reads them unchecked"

    return Job("index", commands, made.same, made.exempt, lambda root: [], flipped)


def _problems(store: Path) -> list[Any]:
    from toolkit.errors import StoreError
    from toolkit.store.verify import verify

    try:
        return list(verify(store))
    except StoreError as error:
        return [] if error.problem.code == "E-STORE-001" else [error.problem]


def _damaged(root: Path) -> list[str]:
    """Return what is wrong with committed shards; what is not committed yet may be in any state."""
    fine = ("array without a ledger", "nodules.csv does not match the ledgers")
    found = [p for p in _problems(root / "store") if p.code == "E-STORE-003"]
    return [f"verify: {p}" for p in found if p.what not in fine]


def _flipped_in_store(root: Path, path: str, expected: Files) -> str:
    """Say how a wrong bit in a file of a store was noticed, and mend it as the message says."""
    name = path.removesuffix(".tmp")
    final = root / name
    if not name.startswith("store/") or "/log/" in name:
        return "in the index, the log or the crosswalk: made good by the next run"
    if not final.exists() or final.read_bytes() == expected[name]:
        return "written over"
    problems = [p for p in _problems(root / "store") if str(final) in p.files]
    if not problems:
        return f"{UNNOTICED}: verify does not name {name}"
    told, store = problems[0].action, root / "store"
    if final.parent.name in ("shards", "ledger"):
        right = "Remove the shard's file in ledger/"
        (store / "ledger" / f"{final.name.split('.')[0]}.jsonl").unlink()
    elif final.name == "store.json":
        right = "Put it back from a copy"
        final.write_bytes(expected[name])
    elif final.name == "plan.jsonl":
        right = "remove it with ledger/ and shards/"
        final.unlink()
        for folder in ("ledger", "shards"):
            shutil.rmtree(store / folder, ignore_errors=True)
    else:
        right = "Run preprocess again"
    return "named by verify" if right in told else f"{UNNOTICED}: no way out but {told!r}"


TRAINING = """
epochs = 2
batch = 8
input.size = 13
augment.preset = "light"
optimizer.lr = 2e-3
model = {name = "densenet-small", dropout = 0.3}
selection = {min_epochs = 1, smoothing = 1}
compute.threads = 1
"""


def training(place: Path) -> Job:
    """A split, a training, its evaluation, predictions and report; `place` is where the store may lie."""
    import torch

    import toolkit.inference.evidence
    import toolkit.inference.test_side
    import toolkit.report.run_page
    import toolkit.training.finish  # noqa: F401
    import toolkit.training.saver as saver
    from tests.training.runs import make_store, nodule

    torch.set_num_threads(1)
    store, settings = place / "store", place / "settings.toml"
    sides = ("train",) * 8 + ("val",) * 2 + ("test",) * 2  # both classes on each: a third is malignant
    each = [(k, float(k % 3 == 0), sides[k // 2 % 12]) for k in range(48)]
    make_store(store, nodules=[nodule(k, label, patient=k // 2, split=side) for k, label, side in each])
    settings.write_text(TRAINING)

    def commands(root: Path) -> list[list[str]]:
        run, split = str(root / "run"), str(root / "split.json")
        more = ["--allow-similar", "--device", "cpu"]  # comparing crops takes longer than all the rest
        return [
            ["split", str(store), "--out", split, "--from-store", "--allow-similar"],
            ["train", str(store), run, "--config", str(settings), "--split", split, *more],
            ["evaluate", run, "--device", "cpu"],
            ["predict", run, str(store), "--out", str(root / "scores.csv"), "--device", "cpu"],
            ["report", run],
        ]

    def prepare(chance: random.Random) -> None:
        saver.SAVE_EVERY_S = chance.choice((0.0, 600.0))  # after every batch, or after every epoch

    def same(path: str, content: bytes) -> bytes | None:
        if {"log", "tensorboard"} & {*path.split("/")[:-1]}:
            return None
        return _in_order(content) if "/checkpoints/" in path else content

    nothing = ("log", "tensorboard")
    return Job("training", commands, same, nothing, lambda root: [], _flipped_in_run, prepare)


def _in_order(content: bytes) -> bytes:
    """Return a checkpoint with its header in order: safetensors writes the parts of one in any."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    return json.dumps(header, sort_keys=True).encode() + content[8 + size :]


def _flipped_in_run(root: Path, path: str, expected: Files) -> str:
    """Say how a wrong bit in a file of a run was noticed, and begin the run anew, as the messages say."""
    name = path.removesuffix(".tmp").replace(".tmp/", "/")
    final = root / name
    told = "written over"
    if "/log/" in name or "/tensorboard/" in name:
        told = "in the log or the events"
    elif final.exists() and not _as_expected(final, expected[name]):
        told = _read_again(root, final, name)
    shutil.rmtree(root / "run", ignore_errors=True)
    (root / "split.json").unlink(missing_ok=True)
    return told


def _as_expected(final: Path, expected: bytes) -> bool:
    content = final.read_bytes()
    try:
        return (_in_order(content) if final.parent.name == "checkpoints" else content) == expected
    except ValueError:  # a header that is no JSON any more
        return False


def _read_again(root: Path, final: Path, name: str) -> str:
    from toolkit.errors import ToolkitError
    from toolkit.models.folder import load_members
    from toolkit.store.format import unseal
    from toolkit.training import checkpoint

    try:
        if "/checkpoints/" in name:
            checkpoint.load(final)
        elif "/model/" in name:
            load_members(root / "run" / "model")
        elif final.name in ("split.json", "evaluation.json"):
            unseal(final.read_bytes(), final)
        else:
            return f"in a file without a digest: {final.name}"
    except ToolkitError:
        return "refused when it is read"
    return f"{UNNOTICED}: {name} is read"

"""Looking at every byte of a store."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from toolkit.errors import Problem, StoreError
from toolkit.store.files import TEMPORARY, linked
from toolkit.store.format import (
    IMAGE_TYPE,
    MASK_TYPE,
    array_bytes,
    array_header,
    canonical_json,
    damaged,
    digest,
    images_path,
    masks_path,
    unseal_lines,
)
from toolkit.store.ledger import committed, read_ledger, render_csv
from toolkit.store.writer import read_settings


def verify(store: Path) -> Iterator[Problem]:
    """Yield a problem for every file of a store that is damaged, missing or foreign.

    Digests of all crops and lines are computed anew. Raises `StoreError` E-STORE-001 where there is
    no store at all, E-STORE-008 where a folder of it is a link.
    """
    try:
        settings = read_settings(store)
    except StoreError as error:
        if error.problem.code in ("E-STORE-001", "E-STORE-008"):
            raise
        yield error.problem
        return
    core = {name: value for name, value in settings.items() if name != "config_digest"}
    if settings.get("config_digest") != digest(canonical_json(core)):
        yield damaged(store / "store.json", "a config digest that does not match").problem
        return
    side = int(settings["size"]) + 2 * int(settings["margin"])
    sound = True
    for shard in committed(store):
        for problem in _verify_shard(store, shard, side):
            sound = False
            yield problem
    yield from _verify_plan(store)
    table = store / "nodules.csv"
    if sound and (not table.exists() or table.read_bytes() != render_csv(store, committed(store))):
        action = "Run preprocess again: it is made from the ledgers"
        yield Problem(
            "E-STORE-003", "nodules.csv does not match the ledgers", action=action, files=(str(table),)
        )
    yield from _foreign(store)


def _verify_shard(store: Path, shard: str, side: int) -> Iterator[Problem]:
    try:
        entries = read_ledger(store, shard)
    except StoreError as error:
        yield error.problem
        return
    nodules = [value for entry in entries for value in entry.nodules]
    files = ((images_path(store, shard), IMAGE_TYPE, "image"), (masks_path(store, shard), MASK_TYPE, "mask"))
    for path, dtype, field in files:
        if not nodules:
            continue
        header = array_header(dtype, len(nodules), side)
        voxels = side**3 * np.dtype(dtype).itemsize
        if path.is_symlink():
            yield linked(path).problem
            continue
        if not path.exists():
            yield damaged(path, "missing").problem
            continue
        expected = array_bytes(dtype, len(nodules), side)
        if path.stat().st_size != expected:
            yield damaged(path, f"{path.stat().st_size} bytes", f"{expected}").problem
            continue
        with path.open("rb") as file:
            if file.read(len(header)) != header:
                yield damaged(path, "a damaged array header").problem
            for row, value in enumerate(nodules):
                if digest(file.read(voxels)) != value[field]:
                    yield damaged(path, f"row {row} does not match its digest").problem


def _verify_plan(store: Path) -> Iterator[Problem]:
    path = store / "plan.jsonl"
    if not path.exists():
        return
    try:
        planned = {str(value.get("shard")) for value in unseal_lines(path)}
    except StoreError as error:
        yield error.problem
        return
    missing = sorted(planned - {*committed(store)})
    if missing:
        action = "Run preprocess again to finish"
        yield Problem(
            "E-STORE-006", "planned shards are not committed", f"{len(missing)}", "0", action, (str(store),)
        )


def _foreign(store: Path) -> Iterator[Problem]:
    """Name arrays without a ledger: what a killed run left, or what a lost ledger has orphaned."""
    known = {path(store, shard) for shard in committed(store) for path in (images_path, masks_path)}
    for path in sorted((store / "shards").glob("*")):
        if path not in known and path.suffix != TEMPORARY:
            action = "Run preprocess again: the shard is made anew"
            yield Problem("E-STORE-003", "array without a ledger", action=action, files=(str(path),))

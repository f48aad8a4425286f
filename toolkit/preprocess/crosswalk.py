"""The way back from hashes to identifiers: a private file beside the store, never in it."""

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path

from toolkit.archive.case import Case
from toolkit.preprocess.identity import IdKey
from toolkit.store.files import disk_errors


def crosswalk_path(store: Path) -> Path:
    """Return where a store's crosswalk lies: beside its folder."""
    store = store.resolve()
    return store.with_name(f"{store.name}.crosswalk.csv")


def write_crosswalk(store: Path, cases: Iterable[Case], id_key: IdKey) -> None:
    """Write which hash is whom (mode 0600), adding to what earlier runs wrote."""
    path = crosswalk_path(store)
    header = ("kind", "hash", "identifier", "image")
    rows: dict[str, tuple[str, ...]] = {header[0]: header}
    if path.exists():
        with path.open(newline="") as file:
            rows |= {f"{row[0]} {row[1]}": tuple(row) for row in csv.reader(file)}
        rows.pop("kind hash", None)
    for case in cases:
        found = [("case", id_key.hash("case", case.case_id), case.case_id, case.image)]
        found.append(("patient", id_key.hash("patient", case.patient_id), case.patient_id, ""))
        names = [name for mask in case.masks for name in mask.names.values()] + [p.name for p in case.points]
        found += [("nodule", id_key.hash("nodule", name), name, "") for name in names if name]
        rows |= {f"{row[0]} {row[1]}": row for row in found}
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows.values())
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors():
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text.getvalue())
        temporary.replace(path)


def read_crosswalk(store: Path) -> dict[tuple[str, str], tuple[str, str]]:
    """Return (kind, hash) to (identifier, image) of a store; raises `FileNotFoundError`."""
    with crosswalk_path(store).open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return {(kind, name): (identifier, image) for kind, name, identifier, image in rows}

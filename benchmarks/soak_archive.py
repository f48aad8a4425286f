"""The archive of the soak: many small series in every format, a share of them spoiled, and their fates.

A few patients are drawn in full; every series is one nodule of one of them with some room around it, under an
id and UIDs of its own. So pixels repeat, and files, headers, ids and masks do not.
"""

import csv
import itertools
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from toolkit.phantom.anatomy import PhantomPatient, make_patient
from toolkit.phantom.formats import FORMATS, Written
from toolkit.phantom.spoil import DEFECTS, around, small_patient
from toolkit.phantom.write_dicom import series_uid, write_dicom
from toolkit.phantom.write_meta import TABLES, Line

MOST_BASES = 16
"""Patients that are drawn in full; fewer for a short run."""
UNMARKED = "unmarked"
"""Series in which nothing is marked: readable, and empty."""
UNMARKED_EVERY = 40
MOST_BYTES = 4_000_000
"""Of the pixels of one series."""
MASKLESS = ("no-origin",)
"""Defects of scans in which nothing is marked."""


@dataclass(frozen=True)
class Fate:
    """What must become of a series or a file: ``done``, ``empty`` or ``refused``, and the code that says why.

    `name` is the case id, or the file's path relative to the archive where it belongs to no case. A series
    that is read in spite of a blemish has the code of the note.
    """

    name: str
    kind: str
    outcome: str
    code: str = ""
    is_case: bool = True
    spoiled: bool = False


@dataclass(frozen=True)
class _Part:
    fate: Fate
    tables: Mapping[str, list[Line]]


def write_soak(out: Path, series: int, spoiled_share: float, seed: int, workers: int) -> list[Fate]:
    """Write the archive into a new folder; return the fate of every series, sound ones first."""
    spoiled = round(series * spoiled_share)
    for name in (*FORMATS, UNMARKED, "spoiled"):
        (out / name).mkdir(parents=True, exist_ok=True)
    work = partial(_write, out, seed, series - spoiled, min(MOST_BASES, 1 + series // 100))
    if workers == 1:
        parts = [work(number) for number in range(series)]
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            parts = list(pool.map(work, range(series), chunksize=8))
    for name, columns in TABLES.items():
        with (out / "mhd" / name).open("w", encoding="utf-8", newline="") as file:
            lines = csv.writer(file, lineterminator="\n")
            lines.writerow(columns)
            lines.writerows(line for part in parts for line in part.tables.get(name, ()))
    return [part.fate for part in parts]


def _write(out: Path, seed: int, sound: int, bases: int, number: int) -> _Part:
    if number >= sound:
        return _Part(_spoiled(out, seed, number, number - sound), {})
    patient = _patient(seed, bases, number)
    if number % UNMARKED_EVERY == UNMARKED_EVERY - 1:
        folder = out / UNMARKED / patient.patient_id
        folder.mkdir()
        write_dicom(patient, seed, folder)
        return _Part(Fate(series_uid(patient, seed), UNMARKED, "empty"), {})
    kind = list(FORMATS)[number % len(FORMATS)]
    written: Written = FORMATS[kind](patient, seed, out / kind)
    name = written.case_id if written.is_series else f"{kind}/{written.case_id}"
    return _Part(Fate(name, kind, "done"), {table: [*lines] for table, lines in written.shared.items()})


def _spoiled(out: Path, seed: int, number: int, which: int) -> Fate:
    """Write one defect, all of them in turn, into a folder of its own."""
    defect = DEFECTS[which % len(DEFECTS)]
    folder = out / "spoiled" / f"{number:06d}-{defect.name}"
    folder.mkdir()
    patient = replace(_small(seed), patient_id=f"SPOILED-{number:06d}", index=number)
    defect.write(patient, seed, folder)
    path = folder.relative_to(out).as_posix()
    case = {"series": series_uid(patient, seed), "scan": f"{path}/scan"}.get(defect.case, "")
    outcome = "refused" if defect.outcome == "refused" else "empty" if defect.name in MASKLESS else "done"
    return Fate(case or f"{path}/{defect.case}", defect.name, outcome, defect.code, bool(case), True)


def _patient(seed: int, bases: int, number: int) -> PhantomPatient:
    """Return the nodule of a patient with some room, under an id of its own; at most `MOST_BYTES`."""
    rng = np.random.default_rng([seed, number, 2])
    base = _bases(seed, bases)[int(rng.integers(bases))]
    nodule = base.nodules[int(rng.integers(len(base.nodules)))]
    depth, side = int(rng.integers(6, 60)), int(rng.integers(16, 70))
    cut = around(base, nodule, (depth, side, side))
    if cut.hu.nbytes > MOST_BYTES:
        cut = around(base, nodule)
    return replace(cut, patient_id=f"SOAK-{number:06d}", index=number)


@lru_cache(maxsize=1)
def _bases(seed: int, count: int) -> tuple[PhantomPatient, ...]:
    """Return patients without padding: the circle of a scan is not that of a part of it."""
    patients = (make_patient(seed, index) for index in itertools.count())
    return tuple(itertools.islice((p for p in patients if not p.padded and p.nodules), count))


_small: Callable[[int], PhantomPatient] = lru_cache(maxsize=1)(small_patient)

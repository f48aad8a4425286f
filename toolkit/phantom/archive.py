"""A whole phantom archive on disk: patients dealt over file formats, and the truth beside them."""

import csv
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from toolkit.errors import Problem, UsageError
from toolkit.phantom.anatomy import PhantomPatient, make_patient
from toolkit.phantom.formats import FORMATS, Written
from toolkit.phantom.nodule import NoduleParams, malignancy_probability
from toolkit.phantom.spoil import SPOILED, clear_spoiled, write_spoiled
from toolkit.phantom.uids import UID_ROOT
from toolkit.phantom.write_meta import TABLES, Line

MARKER = "phantom.json"
TRUTH = "truth.csv"
MANIFEST = "cases.csv"
LABELS = "labels.csv"

_PREFIX = "PHANTOM-"
_MEASURES = ("x_mm", "y_mm", "z_mm", "diameter_mm", "volume_mm3", "label", "malignancy_probability")
# The diameter of the mask and that of the surface it samples differ by the voxels.
_PARAMS = {
    f.name: "surface_diameter_mm" if f.name == "diameter_mm" else f.name
    for f in dataclasses.fields(NoduleParams)
}
TRUTH_COLUMNS = ("patient_id", "nodule", "format", *_MEASURES, *_PARAMS.values())
MANIFEST_COLUMNS = (
    *("case_id", "patient_id", "image", "mask"),
    *("x_mm", "y_mm", "z_mm", "diameter_mm", "nodule_id", "label"),
)
LABEL_COLUMNS = ("case_id", "x_mm", "y_mm", "z_mm", "label")

Row = dict[str, object]


@dataclass(frozen=True)
class ArchiveSummary:
    """What was written."""

    patients: int
    nodules: int
    malignant: int
    formats: dict[str, int]
    spoiled: int


@dataclass(frozen=True)
class _Part:
    """What one patient adds to the tables of the archive."""

    truth: list[Row]
    cases: list[Row]
    labels: list[Row]
    shared: Mapping[str, Sequence[Line]]


def write_archive(
    out: Path,
    patients: int,
    seed: int,
    formats: Sequence[str] = tuple(FORMATS),
    workers: int = 1,
    *,
    spoil: bool = False,
) -> ArchiveSummary:
    """Write an archive; a phantom already in `out` is replaced.

    Parameters
    ----------
    out
        A folder that is new, empty or holds a phantom.
    patients, seed
        Patient i is the same for any number of patients, formats and workers.
    formats
        Keys of `FORMATS`, dealt to the patients in turn.
    workers
        Processes.
    spoil
        Whether to add a folder of cases with one defect each.

    Raises
    ------
    UsageError
        Where `out` holds anything else (E-OUT-001).
    """
    _clear(out)
    for name in formats:
        (out / name).mkdir(exist_ok=True)
    settings = {"phantom": 1, "patients": patients, "seed": seed, "formats": list(formats), "spoil": spoil}
    (out / MARKER).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    work = partial(_write_patient, out, seed, tuple(formats))
    parts = list(_run(work, patients, workers))
    _write_tables(out, formats, parts)
    spoiled = write_spoiled(out / SPOILED, seed) if spoil else 0
    dealt = {name: len(range(k, patients, len(formats))) for k, name in enumerate(formats)}
    nodules = [row for part in parts for row in part.truth]
    return ArchiveSummary(patients, len(nodules), sum(row["label"] == 1 for row in nodules), dealt, spoiled)


def _write_tables(out: Path, formats: Sequence[str], parts: Sequence[_Part]) -> None:
    """Write the truth, the manifest, the labels that masks and points do not bring, and LUNA's tables."""
    tables = {TRUTH: TRUTH_COLUMNS, MANIFEST: MANIFEST_COLUMNS, LABELS: LABEL_COLUMNS}
    for name, columns in tables.items():
        field = {TRUTH: "truth", MANIFEST: "cases", LABELS: "labels"}[name]
        with (out / name).open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, columns, lineterminator="\n")
            table.writeheader()
            table.writerows(row for part in parts for row in getattr(part, field))
    for name, columns in TABLES.items() if "mhd" in formats else ():
        with (out / "mhd" / name).open("w", encoding="utf-8", newline="") as file:
            lines = csv.writer(file, lineterminator="\n")
            lines.writerow(columns)
            lines.writerows(line for part in parts for line in part.shared.get(name, ()))


def _run(work: Callable[[int], _Part], patients: int, workers: int) -> Iterator[_Part]:
    if workers <= 1:
        yield from map(work, range(patients))
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(work, range(patients))


def _write_patient(out: Path, seed: int, formats: tuple[str, ...], index: int) -> _Part:
    name = formats[index % len(formats)]
    patient = make_patient(seed, index)
    written = FORMATS[name](patient, seed, out / name)
    truth = list(_truth(patient, name))
    labels: list[Row] = []
    if not written.labelled:
        case_id = written.case_id if written.is_series else f"{name}/{written.case_id}"
        labels = [{"case_id": case_id, **{key: row[key] for key in LABEL_COLUMNS[1:]}} for row in truth]
    return _Part(truth, _manifest(name, written, truth, patient.patient_id), labels, written.shared)


def _manifest(name: str, written: Written, truth: Sequence[Row], patient: str) -> list[Row]:
    """Return a case's lines of the manifest: one a nodule where the archive holds no labels of it."""
    line: Row = {"case_id": patient, "patient_id": patient, "image": f"{name}/{written.image}"}
    if written.mask:
        line["mask"] = f"{name}/{written.mask}"
    if written.labelled or not truth:
        return [line]
    told = ("label",) if written.mask else ("x_mm", "y_mm", "z_mm", "diameter_mm", "label")
    return [{**line, "nodule_id": row["nodule"], **{key: row[key] for key in told}} for row in truth]


def _truth(patient: PhantomPatient, name: str) -> Iterator[Row]:
    for k, nodule in enumerate(patient.nodules, start=1):
        x_mm, y_mm, z_mm = (round(v, 4) for v in nodule.center_lps_mm)
        row: Row = {"patient_id": patient.patient_id, "nodule": k, "format": name}
        row |= {"x_mm": x_mm, "y_mm": y_mm, "z_mm": z_mm, "label": nodule.label}
        row |= {"diameter_mm": round(nodule.diameter_mm, 4), "volume_mm3": round(nodule.volume_mm3, 3)}
        row["malignancy_probability"] = round(malignancy_probability(nodule.params), 6)
        for field, value in dataclasses.asdict(nodule.params).items():
            row[_PARAMS[field]] = round(value, 4) if isinstance(value, float) else value
        yield row


def _clear(out: Path) -> None:
    """Make the folder, or take an older phantom out of it; touch nothing that is not a phantom's."""
    if out.exists() and not out.is_dir():
        raise UsageError(Problem("E-OUT-001", "the output is a file, not a folder", files=(str(out),)))
    out.mkdir(parents=True, exist_ok=True)
    if not any(out.iterdir()):
        return
    if not (out / MARKER).is_file():
        raise UsageError(
            Problem(
                "E-OUT-001",
                "the output folder is not empty",
                measured=f"{sum(1 for _ in out.iterdir())} entries and no {MARKER}",
                expected="a new or empty folder, or an older phantom",
                action="Nothing was written; name another folder",
                files=(str(out),),
            )
        )
    clear_spoiled(out / SPOILED)
    for name in FORMATS:
        for entry in _own_entries(out / name):
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        if (out / name).is_dir() and not any((out / name).iterdir()):
            (out / name).rmdir()
    for name in (TRUTH, MANIFEST, LABELS):
        (out / name).unlink(missing_ok=True)


def _own_entries(folder: Path) -> list[Path]:
    """Return what a phantom wrote into the folder of a format."""
    if folder.name != "mhd":
        return sorted(folder.glob(f"{_PREFIX}*"))
    names = [*folder.glob(f"{UID_ROOT}.*hd"), *folder.glob(f"{UID_ROOT}.*raw")]
    return [*sorted(names), *(folder / name for name in TABLES if (folder / name).exists())]

"""A whole phantom archive on disk: patients dealt over file formats, and the truth beside them."""

import csv
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from toolkit.errors import Problem, UsageError
from toolkit.phantom.anatomy import PhantomPatient, make_patient
from toolkit.phantom.nodule import NoduleParams, malignancy_probability
from toolkit.phantom.write_dicom import write_dicom
from toolkit.phantom.write_lidc import write_lidc
from toolkit.phantom.write_nifti import write_nifti

MARKER = "phantom.json"
TRUTH = "truth.csv"
MANIFEST = "cases.csv"

_PREFIX = "PHANTOM-"
_MEASURES = ("x_mm", "y_mm", "z_mm", "diameter_mm", "volume_mm3", "label", "malignancy_probability")
# The diameter of the mask and that of the surface it samples differ by the voxels.
_PARAMS = {
    f.name: "surface_diameter_mm" if f.name == "diameter_mm" else f.name
    for f in dataclasses.fields(NoduleParams)
}
TRUTH_COLUMNS = ("patient_id", "nodule", "format", *_MEASURES, *_PARAMS.values())

Row = dict[str, object]


@dataclass(frozen=True)
class ArchiveSummary:
    """What was written."""

    patients: int
    nodules: int
    malignant: int
    formats: dict[str, int]


def _write_dicom_lidc(patient: PhantomPatient, seed: int, folder: Path) -> None:
    own = folder / patient.patient_id
    own.mkdir(exist_ok=True)
    write_dicom(patient, seed, own)
    write_lidc(patient, seed, own / f"{patient.patient_id}.xml")


def _write_nifti(patient: PhantomPatient, seed: int, folder: Path) -> None:
    write_nifti(patient, folder)


# A format is a folder of the archive and a function (patient, seed, folder) that fills it.
FORMATS: dict[str, Callable[[PhantomPatient, int, Path], None]] = {
    "dicom": _write_dicom_lidc,
    "nifti": _write_nifti,
}


def write_archive(
    out: Path, patients: int, seed: int, formats: Sequence[str] = tuple(FORMATS), workers: int = 1
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

    Raises
    ------
    UsageError
        Where `out` holds anything else (E-OUT-001).
    """
    _clear(out)
    for name in formats:
        (out / name).mkdir(exist_ok=True)
    settings = {"phantom": 1, "patients": patients, "seed": seed, "formats": list(formats)}
    (out / MARKER).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    work = partial(_write_patient, out, seed, tuple(formats))
    rows = [row for part in _run(work, patients, workers) for row in part]
    with (out / TRUTH).open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, TRUTH_COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    _write_manifest(out / MANIFEST, rows)
    dealt = {name: len(range(k, patients, len(formats))) for k, name in enumerate(formats)}
    return ArchiveSummary(patients, len(rows), sum(row["label"] == 1 for row in rows), dealt)


def _write_manifest(path: Path, rows: Sequence[Row]) -> None:
    """Write the manifest of the archive: NIfTI masks know no labels, readings bring their own."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("case_id", "patient_id", "image", "mask", "nodule_id", "label"))
        for row in rows:
            patient = row["patient_id"]
            if row["format"] == "nifti":
                image, mask = f"nifti/{patient}.nii.gz", f"nifti/{patient}_mask.nii.gz"
                table.writerow((patient, patient, image, mask, row["nodule"], row["label"]))
            elif row["nodule"] == 1:
                image = f"dicom/{patient}"
                table.writerow((patient, patient, image, f"{image}/{patient}.xml", "", ""))


def _run(work: Callable[[int], list[Row]], patients: int, workers: int) -> Iterator[list[Row]]:
    if workers <= 1:
        yield from map(work, range(patients))
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(work, range(patients))


def _write_patient(out: Path, seed: int, formats: tuple[str, ...], index: int) -> list[Row]:
    name = formats[index % len(formats)]
    patient = make_patient(seed, index)
    FORMATS[name](patient, seed, out / name)
    return list(_truth(patient, name))


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
    for name in FORMATS:
        for entry in sorted((out / name).glob(f"{_PREFIX}*")):
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        if (out / name).is_dir() and not any((out / name).iterdir()):
            (out / name).rmdir()
    for name in (TRUTH, MANIFEST):
        (out / name).unlink(missing_ok=True)

"""A phantom patient as NRRD, gzip: the image, and a label volume with one value a nodule."""

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.phantom.anatomy import PhantomPatient
from toolkit.phantom.write_nifti import label_volume

# How a file names its space, and the signs of LPS x, y, z in it.
_SPACES = {"left-posterior-superior": (1, 1, 1), "right-anterior-superior": (-1, -1, 1)}
_TYPES = {"int16": "int16\nendian: little", "uint8": "uint8"}


def mask_name(patient: PhantomPatient) -> str:
    """Return the name of the label volume: Slicer's for every second patient."""
    return f"{patient.patient_id}{'.seg' if patient.index % 2 else '_label'}.nrrd"


def write_nrrd(patient: PhantomPatient, folder: Path) -> None:
    """Write ``<id>.nrrd`` (int16 HU) and its label volume (uint8, value k is nodule k).

    The space is LPS for every second patient and RAS for the others, in image and labels alike.

    Raises
    ------
    OSError
        Where the disk refuses.
    """
    _save(patient, patient.hu, folder / f"{patient.patient_id}.nrrd")
    segments = range(len(patient.nodules)) if patient.index % 2 else ()
    fields = [
        f"Segment{k}_{key}:={value}"
        for k in segments
        for key, value in (("ID", f"Segment_{k + 1}"), ("LabelValue", k + 1), ("Name", f"Nodule {k + 1}"))
    ]
    _save(patient, label_volume(patient), folder / mask_name(patient), fields)


def _save(
    patient: PhantomPatient, array_zyx: NDArray[np.generic], path: Path, fields: list[str] | None = None
) -> None:
    space = list(_SPACES)[patient.index % 2]
    signs = np.array(_SPACES[space])
    steps = [patient.geometry.affine[:3, axis] * signs for axis in (2, 1, 0)]
    lines = [
        "NRRD0005",
        f"type: {_TYPES[array_zyx.dtype.name]}",
        "dimension: 3",
        f"space: {space}",
        "sizes: " + " ".join(str(n) for n in reversed(array_zyx.shape)),
        "space directions: " + " ".join(_vector(step) for step in steps),
        "kinds: domain domain domain",
        "encoding: gzip",
        f"space origin: {_vector(patient.geometry.affine[:3, 3] * signs)}",
        *(fields or []),
    ]
    # The fastest level: noise does not compress, and speed is the point of the phantom.
    data = gzip.compress(np.ascontiguousarray(array_zyx).tobytes(), compresslevel=1, mtime=0)
    path.write_bytes(("\n".join(lines) + "\n\n").encode("ascii") + data)


def _vector(values: NDArray[np.float64]) -> str:
    return "(" + ",".join(f"{v + 0.0:.10g}" for v in values) + ")"

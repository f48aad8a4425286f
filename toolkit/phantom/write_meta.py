"""A phantom patient as the LUNA16 challenge stores one: a MetaImage and lines of two tables, LPS mm."""

import zlib
from pathlib import Path

import numpy as np

from toolkit.phantom.anatomy import PhantomPatient
from toolkit.phantom.write_dicom import series_uid
from toolkit.phantom.write_nifti import label_volume

ANNOTATIONS, CANDIDATES = "annotations.csv", "candidates.csv"
TABLES = {
    ANNOTATIONS: ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm"),
    CANDIDATES: ("seriesuid", "coordX", "coordY", "coordZ", "class"),
}
_FALSE_CANDIDATES = 8
_LUNG_HU = (-950, -700)

Line = tuple[object, ...]


def write_meta(patient: PhantomPatient, seed: int, folder: Path) -> None:
    """Write ``<series UID>.mhd`` with its data: ``.raw``, or ``.zraw`` for every second patient.

    Raises
    ------
    OSError
        Where the disk refuses.
    """
    name = series_uid(patient, seed)
    data, zipped = patient.hu.astype("<i2").tobytes(), patient.index % 2 == 1
    if zipped:
        data = zlib.compress(data, 1)
    data_name = f"{name}.{'zraw' if zipped else 'raw'}"
    z_mm, y_mm, x_mm = patient.geometry.spacing_mm
    slices, rows, columns = patient.geometry.shape_zyx
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        f"CompressedData = {zipped}",
        *([f"CompressedDataSize = {len(data)}"] if zipped else []),
        "TransformMatrix = 1 0 0 0 1 0 0 0 1",
        "Offset = " + " ".join(f"{v:.10g}" for v in patient.geometry.affine[:3, 3]),
        "CenterOfRotation = 0 0 0",
        "AnatomicalOrientation = RAI",
        f"ElementSpacing = {x_mm:.10g} {y_mm:.10g} {z_mm:.10g}",
        f"DimSize = {columns} {rows} {slices}",
        "ElementType = MET_SHORT",
        f"ElementDataFile = {data_name}",
    ]
    (folder / data_name).write_bytes(data)
    (folder / f"{name}.mhd").write_text("\n".join(lines) + "\n", encoding="ascii", newline="\n")


def table_lines(patient: PhantomPatient, seed: int) -> dict[str, list[Line]]:
    """Return the patient's lines of `TABLES`: the nodules, and candidates that are or are none."""
    name = series_uid(patient, seed)
    annotations: list[Line] = []
    candidates: list[Line] = []
    for nodule in patient.nodules:
        place = tuple(round(v, 6) for v in nodule.center_lps_mm)
        annotations.append((name, *place, round(nodule.diameter_mm, 6)))
        candidates.append((name, *place, 1))
    rng = np.random.default_rng([seed, patient.index, 78])
    lung = (patient.hu > _LUNG_HU[0]) & (patient.hu < _LUNG_HU[1]) & (label_volume(patient) == 0)
    where = np.flatnonzero(lung)
    for voxel in rng.choice(where, min(_FALSE_CANDIDATES, len(where)), replace=False):
        index = np.array(np.unravel_index(voxel, patient.hu.shape), dtype=np.float64)
        candidates.append((name, *(round(float(v), 6) for v in patient.geometry.to_lps(index)), 0))
    return {ANNOTATIONS: annotations, CANDIDATES: candidates}

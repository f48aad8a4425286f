"""Scans and a table of nodules as LUNA25 hands them out: one ``.mha`` a scan, positions in LPS mm.

The scans are copies of one image, each a file of its own.
"""

import csv
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.copies import SPARE, NoRoomError
from benchmarks.peers.gate import targets
from benchmarks.peers.readers import sitk_read
from toolkit.phantom.anatomy import make_patient

MANIFEST = "cases.csv"
_COLUMNS = ("case_id", "patient_id", "image", "nodule_id", "x_mm", "y_mm", "z_mm", "diameter_mm", "label")
DIAMETER_MM = 12.0


@dataclass(frozen=True)
class Nodule:
    """A nodule: the file of its scan, its centre, and 1 for malignant or 0."""

    scan: str
    center_lps_mm: tuple[float, float, float]
    label: int


@dataclass(frozen=True, eq=False)
class Archive:
    """A folder of scans, its manifest for ``toolkit preprocess --cases``, and the same as values."""

    folder: Path
    nodules: tuple[Nodule, ...]

    @property
    def manifest(self) -> Path:
        """The table that names scans, positions and labels."""
        return self.folder / MANIFEST


def real_image(scan: Path) -> tuple[Any, tuple[float, float, float]]:
    """Return a DICOM series as SimpleITK reads it, and the centre of its first nodule."""
    import SimpleITK as sitk

    target = targets(scan, 1.0)[0]
    return sitk_read(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(target.folder)), target.center_lps_mm


def phantom_image(index: int) -> tuple[Any, tuple[float, float, float]]:
    """Return a phantom and the centre of its first nodule."""
    import SimpleITK as sitk

    patient = make_patient(0, index)
    image = sitk.GetImageFromArray(patient.hu)
    image.SetSpacing([float(mm) for mm in patient.geometry.spacing_mm[::-1]])
    image.SetOrigin(patient.geometry.affine[:3, 3].tolist())
    return image, patient.nodules[0].center_lps_mm


def write_archive(image: Any, center_lps_mm: tuple[float, float, float], count: int, folder: Path) -> Archive:
    """Write `count` copies and the manifest; every second nodule is called malignant, so classes balance.

    Uncompressed, which is the fastest to read. Raises `NoRoomError` where the disk has no room.
    """
    import SimpleITK as sitk

    folder.mkdir(parents=True)
    size = count * SPARE * image.GetNumberOfPixels() * np.dtype(np.int16).itemsize
    if size > shutil.disk_usage(folder).free:
        raise NoRoomError(f"{count} scans need {size / 1e9:.1f} GB")
    first = folder / "scan-0000.mha"
    sitk.WriteImage(image, str(first), useCompression=False)
    nodules, rows = [], []
    for k in range(count):
        path = folder / f"scan-{k:04d}.mha"
        if k:
            shutil.copyfile(first, path)
        nodules.append(Nodule(str(path), center_lps_mm, k % 2))
        x, y, z = center_lps_mm
        rows.append((f"case-{k:04d}", f"patient-{k:04d}", path.name, "1", x, y, z, DIAMETER_MM, k % 2))
    _write_table(folder / MANIFEST, rows)
    return Archive(folder, tuple(nodules))


def _write_table(path: Path, rows: Sequence[tuple[object, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(_COLUMNS)
        table.writerows(rows)

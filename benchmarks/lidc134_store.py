"""134 real nodules of LIDC-IDRI as a nodule store: 1 mm, one a scan, rated by radiologists.

Credit: LIDC-IDRI (Armato et al., The Cancer Imaging Archive, CC BY 3.0). The files are
``lidc134_hu_int16_51cube_1mm.npz`` (`hu` int16 and `mask` as packed bits, each 51^3, axes y, x, z with z from
the head down; `ids`) and ``lidc134_labels.csv`` (ratings of malignancy, 1 to 5).
"""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.store import Nodule, Store
from toolkit.store.format import digest

CROPS, LABELS = "lidc134_hu_int16_51cube_1mm.npz", "lidc134_labels.csv"
SIDE, SPACING_MM, MARGIN = 51, 1.0, 5
AIR_HU = -1024
LABEL_RULE = "malignancy 1 and 2 benign, 4 and 5 malignant, 3 left open"


def make_store(data: Path, out: Path) -> Store:
    """Make the store of the 134 nodules and open it.

    The margin of 5 voxels is what the crops have beyond 41 mm.

    Parameters
    ----------
    data
        Folder of the two files.
    out
        Folder of the store; new.

    Raises
    ------
    OSError
        Where a file is missing.
    StoreError
        E-STORE-005 where `out` holds a store.
    """
    with (data / LABELS).open(encoding="utf-8") as file:
        rows = {row["Filename"]: row for row in csv.DictReader(file)}
    with np.load(data / CROPS, allow_pickle=False) as crops:
        names = [str(name) for name in crops["ids"]]
        hu = canonical(crops["hu"])
        bits = np.unpackbits(crops["mask"], axis=1)[:, : SIDE**3].reshape(-1, SIDE, SIDE, SIDE)
    masks = canonical(bits * np.uint8(255))
    whose = patients(rows)
    records = [record(name, whose[name], rows[name], mask) for name, mask in zip(names, masks, strict=True)]
    images = np.maximum(hu, np.int16(AIR_HU))
    return Store.create(out, records, images, masks, SPACING_MM, margin=MARGIN, label_rule=LABEL_RULE)


def canonical(cubes_yxz: NDArray[Any]) -> NDArray[Any]:
    """Turn (n, y, x, z from the head down) into (n, z, y, x) towards head, back and left."""
    return np.ascontiguousarray(cubes_yxz.transpose(0, 3, 1, 2)[:, ::-1])


def patients(rows: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return the patient of each nodule.

    A name begins with the number of its scan in a list that follows the patients. Where the patient is
    known, no two nodules share one. Where not, neighbours in that list may be two scans of one patient (LIDC
    has eight of these) and count as such.
    """
    found: dict[str, str] = {}
    before = ""
    for name in sorted(rows, key=scan_number):
        told = rows[name]["patient_guess"]
        next_to_unknown = bool(before) and not rows[before]["patient_guess"]
        neighbour = next_to_unknown and scan_number(name) == scan_number(before) + 1
        found[name] = told or (found[before] if neighbour else f"scan {scan_number(name)}")
        before = name
    return found


def scan_number(name: str) -> int:
    """Return 12 of ``12_nod2_ann0``."""
    return int(name.split("_", 1)[0])


def record(name: str, patient: str, row: Mapping[str, str], mask_zyx: NDArray[np.uint8]) -> Nodule:
    """Return what the store says of a nodule; volume and diameter are those of its mask."""
    rating = int(row["malignancy"])
    inner = mask_zyx[(slice(MARGIN, SIDE - MARGIN),) * 3]
    volume = float(np.count_nonzero(mask_zyx)) * SPACING_MM**3
    return Nodule(
        nodule_id=hashed("nodule", name),
        case_id=hashed("case", name.split("_", 1)[0]),
        patient_id=hashed("patient", patient),
        label=None if rating == 3 else float(rating > 3),
        diameter_mm=(6 * volume / math.pi) ** (1 / 3),
        volume_mm3=volume,
        center_lps_mm=(0.0, 0.0, 0.0),
        occupancy=np.count_nonzero(inner) / inner.size,
        mask_source="reader",
        rating=float(rating),
        readers=1,
    )


def hashed(kind: str, name: str) -> str:
    """Return an id as stores have it; the data is public, so that no key is needed."""
    return digest(f"lidc134 {kind} {name}".encode())

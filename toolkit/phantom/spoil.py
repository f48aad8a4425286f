"""Cases that are spoiled on purpose, one defect each, and what must become of them.

`DEFECTS` is the table; ``expected.csv`` beside the cases says the same to whoever runs the archive.
"""

import csv
import itertools
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from toolkit.archive.geometry import Box, Geometry
from toolkit.phantom import spoil_dicom as dicom
from toolkit.phantom import spoil_masks as masks
from toolkit.phantom import spoil_volume as volume
from toolkit.phantom.anatomy import PhantomNodule, PhantomPatient, make_patient
from toolkit.phantom.write_dicom import series_uid

SPOILED = "spoiled"
EXPECTED = "expected.csv"
COLUMNS = ("path", "case_id", "hazard", "outcome", "code")

Outcome = Literal["read", "warning", "refused"]

_PATIENT = "SPOILED"  # one patient: no split may part what is nearly the same nodule
_FIRST_INDEX = 10_000  # of the series here: their UIDs are nobody else's
_FIRST_SEARCHED = 20_000  # of the patients who may be that one: nobody in the rest of the archive
_ROOM_ZYX = (6, 14, 14)  # voxels around the nodule that a small scan keeps
_DIAMETERS_MM = (6.0, 14.0)


@dataclass(frozen=True)
class Defect:
    """One spoiled case.

    Attributes
    ----------
    name
        Its folder.
    hazard
        What is wrong, in few words.
    outcome, code
        What must become of it; an outcome of ``read`` has no code, every other one has.
    write
        Writes it: (patient, seed, folder that exists).
    case
        What `toolkit index` calls it: ``series`` the series UID, ``scan`` the path of the volume without
        its suffix; else the name of a file that belongs to no case and is refused by itself.
    """

    name: str
    hazard: str
    outcome: Outcome
    code: str
    write: Callable[[PhantomPatient, int, Path], None]
    case: str = "series"


DEFECTS = (
    Defect("shuffled", "slice order by name and number", "read", "", dicom.shuffled),
    Defect("copied-slice", "identical copy of a slice", "warning", "W-DCM-001", dicom.copied_slice),
    Defect("doubled-slice", "two slices at one position", "refused", "E-GEO-002", dicom.doubled_slice),
    Defect("missing-slice", "missing slice", "refused", "E-GEO-003", dicom.missing_slice),
    Defect("uneven", "uneven slice spacing", "refused", "E-GEO-004", dicom.uneven),
    Defect("two-slices", "too few slices", "refused", "E-GEO-001", dicom.two_slices),
    Defect("sideways", "slices off a straight line", "refused", "E-GEO-005", dicom.sideways),
    Defect("tilted", "gantry tilt", "read", "", dicom.tilted),
    Defect("turned", "orientation changes in a series", "refused", "E-DCM-004", dicom.turned),
    Defect("skewed", "orientation is no rotation", "refused", "E-GEO-006", dicom.skewed),
    Defect("localizer", "localizer among the slices", "read", "", dicom.localizer),
    Defect("two-patients", "two patients in a series", "refused", "E-DCM-004", dicom.two_patients),
    Defect("no-spacing", "no PixelSpacing", "refused", "E-DCM-002", dicom.no_spacing),
    Defect("no-rescale", "no rescale to HU", "refused", "E-HU-001", dicom.no_rescale),
    Defect("other-unit", "RescaleType is not HU", "refused", "E-HU-002", dicom.other_unit),
    Defect("varying-rescale", "rescale varies by slice", "warning", "W-HU-001", dicom.varying_rescale),
    Defect("unsigned-padding", "padding value stored unsigned", "read", "", dicom.unsigned_padding),
    Defect("no-pixels", "a slice without pixel data", "refused", "E-DCM-006", dicom.no_pixels),
    Defect("no-decoder", "compressed, and nobody decodes it", "refused", "E-DCM-003", dicom.no_decoder),
    Defect("cut-slice", "truncated slice", "refused", "E-FILE-002", dicom.cut_slice),
    Defect("outside", "link out of the archive", "refused", "E-FILE-004", dicom.link_outside, "0001.dcm"),
    Defect("lidc-off-stack", "outline on an absent slice", "refused", "E-LIDC-002", masks.lidc_off_stack),
    Defect("lidc-broken", "annotation file cut short", "refused", "E-LIDC-001", masks.lidc_broken),
    Defect("seg-origin", "segmentation at the origin", "refused", "E-SEG-004", masks.seg_at_origin),
    Defect("seg-flipped", "segmentation upside down", "refused", "E-SEG-004", masks.seg_upside_down),
    Defect("seg-alone", "segmentation alone", "refused", "E-MASK-002", masks.seg_alone, "segmentation.dcm"),
    Defect("rt-off-stack", "contour beyond the slices", "refused", "E-RT-002", masks.rtstruct_off_stack),
    Defect("mask-other-grid", "mask on another grid", "refused", "E-MASK-001", masks.other_grid, "scan"),
    Defect("mask-mirrored", "mask with a mirrored axis", "refused", "E-MASK-001", masks.mirrored, "scan"),
    Defect("mask-alone", "mask without an image", "refused", "E-MASK-002", masks.alone, "scan_mask.nii.gz"),
    Defect("mask-shares", "mask of probabilities", "refused", "E-MASK-003", masks.probabilities, "scan"),
    Defect("mask-twice", "two masks of one nodule", "refused", "E-MASK-004", masks.twice, "scan"),
    Defect("sform-qform", "sform against qform", "refused", "E-GEO-007", volume.two_orientations, "scan"),
    Defect("no-axes", "no orientation in a NIfTI", "refused", "E-GEO-008", volume.no_orientation, "scan"),
    Defect("nan", "NaN among the values", "refused", "E-HU-002", volume.not_a_number, "scan"),
    Defect("shifted", "values from 0 to 4095", "warning", "W-HU-010", volume.shifted, "scan"),
    Defect("four-axes", "four-dimensional volume", "refused", "E-VOL-001", volume.four_axes, "scan"),
    Defect("text-data", "encoding that is not read", "refused", "E-VOL-002", volume.text_encoding, "scan"),
    Defect("bomb", "header that declares terabytes", "refused", "E-VOL-003", volume.header_bomb, "scan"),
    Defect("no-origin", "no position in a MetaImage", "warning", "W-GEO-002", volume.no_origin, "scan"),
    Defect("cut-raw", "data file cut short", "refused", "E-FILE-002", volume.cut_raw, "scan"),
    Defect("cut-gzip", "compressed data cut short", "refused", "E-FILE-002", volume.cut_gzip, "scan"),
    Defect("elsewhere", "data file in another folder", "refused", "E-FILE-004", volume.data_outside, "scan"),
)


def write_spoiled(out: Path, seed: int) -> int:
    """Write every defect of the table into a folder of its own, and ``expected.csv``; return how many.

    Raises
    ------
    OSError
        Where the disk refuses.
    """
    small = small_patient(seed)
    rows = []
    for number, defect in enumerate(DEFECTS):
        patient = replace(small, patient_id=_PATIENT, index=_FIRST_INDEX + number)
        folder = out / defect.name
        folder.mkdir(parents=True, exist_ok=True)
        defect.write(patient, seed, folder)
        path = f"{SPOILED}/{defect.name}"
        case = {"series": series_uid(patient, seed), "scan": f"{path}/scan"}.get(defect.case, "")
        path = path if case else f"{path}/{defect.case}"
        rows.append((path, case, defect.hazard, defect.outcome, defect.code))
    with (out / EXPECTED).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(rows)
    return len(rows)


def clear_spoiled(out: Path) -> None:
    """Take an older phantom's spoiled cases away."""
    for defect in DEFECTS:
        if (out / defect.name).is_dir():
            shutil.rmtree(out / defect.name)
    (out / EXPECTED).unlink(missing_ok=True)
    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()


def small_patient(seed: int) -> PhantomPatient:
    """Return the surroundings of a middle-sized nodule as a scan, of the first patient who has one."""
    for index in itertools.count(_FIRST_SEARCHED):
        patient = make_patient(seed, index)
        for nodule in patient.nodules if not patient.padded else ():
            low, high = _DIAMETERS_MM
            if low <= nodule.diameter_mm <= high:
                return around(patient, nodule)
    raise AssertionError("unreachable: patients go on for ever")


def around(
    patient: PhantomPatient, nodule: PhantomNodule, room_zyx: tuple[int, int, int] = _ROOM_ZYX
) -> PhantomPatient:
    """Cut a scan down to a nodule and so many voxels around its mask."""
    room = Box(
        tuple(a - n for a, n in zip(nodule.box.start_zyx, room_zyx, strict=True)),  # type: ignore[arg-type]
        tuple(b + n for b, n in zip(nodule.box.stop_zyx, room_zyx, strict=True)),  # type: ignore[arg-type]
    ).intersect(patient.geometry.box)
    affine = patient.geometry.affine.copy()
    affine[:3, 3] = np.round(patient.geometry.to_lps(np.array(room.start_zyx, dtype=np.float64)), 6)
    z, y, x = room.start_zyx
    moved = replace(nodule, box=nodule.box.shift((-z, -y, -x)))
    hu = patient.hu[room.slices].copy()
    return replace(patient, hu=hu, geometry=Geometry(room.shape_zyx, affine), nodules=(moved,))

"""The file formats of a phantom archive: how a patient is written in each, and what a table says of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.phantom.anatomy import PhantomPatient
from toolkit.phantom.write_dicom import series_uid, write_dicom
from toolkit.phantom.write_enhanced import write_enhanced
from toolkit.phantom.write_lidc import write_lidc
from toolkit.phantom.write_meta import Line, table_lines, write_meta
from toolkit.phantom.write_nifti import write_nifti
from toolkit.phantom.write_nrrd import mask_name, write_nrrd
from toolkit.phantom.write_rtstruct import write_rtstruct
from toolkit.phantom.write_seg import write_seg


@dataclass(frozen=True)
class Written:
    """Where the files of a patient lie, relative to the folder of the format.

    Attributes
    ----------
    image, mask
        The file or folder, and the file of the regions; empty where they are points of a table.
    case_id
        How `toolkit index` names the case without a manifest; a path is relative to the format's folder.
    is_series
        Whether that name is a series UID.
    labelled
        Whether the regions bring labels of their own.
    shared
        Lines for tables that the patients of the format share.
    """

    image: str
    mask: str
    case_id: str
    is_series: bool = False
    labelled: bool = False
    shared: Mapping[str, Sequence[Line]] = field(default_factory=dict)


def _dicom(patient: PhantomPatient, seed: int, folder: Path) -> Written:
    return _series(patient, seed, folder, f"{patient.patient_id}.xml", write_lidc, labelled=True)


def _seg(patient: PhantomPatient, seed: int, folder: Path) -> Written:
    return _series(patient, seed, folder, "segmentation.dcm", write_seg)


def _rtstruct(patient: PhantomPatient, seed: int, folder: Path) -> Written:
    return _series(patient, seed, folder, "structures.dcm", write_rtstruct)


def _series(
    patient: PhantomPatient,
    seed: int,
    folder: Path,
    mask: str,
    write_mask: Callable[[PhantomPatient, int, Path], None],
    labelled: bool = False,
) -> Written:
    """Write a series into a folder of its own, with its regions beside the slices."""
    name = patient.patient_id
    (folder / name).mkdir(exist_ok=True)
    write_dicom(patient, seed, folder / name)
    write_mask(patient, seed, folder / name / mask)
    return Written(name, f"{name}/{mask}", series_uid(patient, seed), is_series=True, labelled=labelled)


def _enhanced(patient: PhantomPatient, seed: int, folder: Path) -> Written:
    """Write one file for all slices; the readings still name the slices that it was made of."""
    name = patient.patient_id
    (folder / name).mkdir(exist_ok=True)
    write_enhanced(patient, seed, folder / name / f"{name}.dcm")
    write_lidc(patient, seed, folder / name / f"{name}.xml")
    return Written(name, f"{name}/{name}.xml", series_uid(patient, seed), is_series=True, labelled=True)


def _nifti(patient: PhantomPatient, seed: int, folder: Path) -> Written:
    write_nifti(patient, folder)
    name = patient.patient_id
    return Written(f"{name}.nii.gz", f"{name}_mask.nii.gz", name)


def _mhd(patient: PhantomPatient, seed: int, folder: Path) -> Written:
    write_meta(patient, seed, folder)
    name = series_uid(patient, seed)
    return Written(f"{name}.mhd", "", name, shared=table_lines(patient, seed))


def _nrrd(patient: PhantomPatient, seed: int, folder: Path) -> Written:
    write_nrrd(patient, folder)
    name = patient.patient_id
    return Written(f"{name}.nrrd", mask_name(patient), name)


# A format is a folder of the archive and a function (patient, seed, folder) that fills it.
FORMATS: dict[str, Callable[[PhantomPatient, int, Path], Written]] = {
    "dicom": _dicom,
    "nifti": _nifti,
    "seg": _seg,
    "rtstruct": _rtstruct,
    "mhd": _mhd,
    "nrrd": _nrrd,
    "enhanced": _enhanced,
}

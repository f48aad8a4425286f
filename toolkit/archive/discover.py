"""From folders of files to cases: series by UID, volumes with their masks by name."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path

from toolkit.archive.case import Case, MaskFile
from toolkit.archive.dicom_fields import SliceFile
from toolkit.archive.dicom_series import SeriesFiles, SeriesRules
from toolkit.archive.multi_frame import MULTI_FRAME_CT
from toolkit.archive.names import MASK_FOLDERS, common_stem, is_mask_name, volume_suffix
from toolkit.archive.scan import FileEntry, content_digest, mask_content, problem, slice_header
from toolkit.archive.slice_checks import CT_IMAGE
from toolkit.archive.volume import file_volume
from toolkit.archive.volume_header import VolumeHeader
from toolkit.errors import Problem

Folders = Mapping[Path, Sequence[FileEntry]]


@dataclass(frozen=True)
class Discovery:
    """What was found in an archive.

    Attributes
    ----------
    cases
        Sorted by case id; those with a `problem` cannot be used.
    refused
        Files that claim to be images or masks but belong to no case, each with its reason.
    ignored
        How many files are something else, by what they are.
    """

    cases: tuple[Case, ...]
    refused: tuple[Problem, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)


def discover(root: Path, folders: Folders, rules: SeriesRules) -> Discovery:
    """Make cases of the scanned folders of an archive.

    A DICOM series is one case (its files may lie in several folders); LIDC XML joins it by series
    UID. A volume file is one case; masks join it by name: ``scan_mask``, ``scan_seg``, ``scan_label``
    beside ``scan``, ``mask`` beside ``image`` in a folder of their own, or ``labelsTr/scan`` beside
    ``imagesTr/scan_0000``.
    """
    refused: list[Problem] = []
    ignored: dict[str, int] = defaultdict(int)
    series: dict[str, list[SliceFile]] = defaultdict(list)
    readings: dict[str, list[tuple[str, str]]] = defaultdict(list)
    volumes: dict[Path, FileEntry] = {}
    for folder, entries in folders.items():
        for entry in entries:
            path = folder / entry.name
            if entry.kind == "dicom":
                file = SliceFile(str(path), entry.size, entry.mtime_ns, slice_header(entry.facts))
                other = _not_a_slice(file)
                if other:
                    ignored[other] += 1
                else:
                    series[file.header.series_uid].append(file)
            elif entry.kind == "lidc":
                readings[entry.facts[0]].append((str(path), entry.facts[1]))
            elif entry.kind == "volume" or (entry.kind == "bad" and volume_suffix(entry.name)):
                volumes[path] = entry
            elif entry.kind == "bad":
                refused.append(problem(entry.facts))
            else:
                ignored["other files"] += 1
    cases = [series_case(uid, files, readings.get(uid, ()), rules) for uid, files in series.items()]
    orphans = sum(len(files) for uid, files in readings.items() if uid not in series)
    if orphans:
        ignored["LIDC readings of absent series"] += orphans
    cases += _volume_cases(root, volumes, refused)
    return Discovery(tuple(sorted(cases, key=lambda case: case.case_id)), tuple(refused), dict(ignored))


def is_ct_slice(file: SliceFile) -> bool:
    """Tell whether a DICOM file is a CT image and no localizer."""
    return not _not_a_slice(file)


def _not_a_slice(file: SliceFile) -> str:
    """Return what a DICOM file is, if it is no slice of a CT."""
    header = file.header
    if header.sop_class not in (CT_IMAGE, *MULTI_FRAME_CT):
        return f"DICOM {header.modality or 'objects'} that is no CT image"
    if "LOCALIZER" in header.image_type.upper().split("\\"):
        return "CT localizers"
    return ""


def series_case(
    uid: str, files: Sequence[SliceFile], readings: Iterable[tuple[str, str]], rules: SeriesRules
) -> Case:
    """Return the case of one DICOM series, not yet opened."""
    masks = sorted(readings)
    digests = sorted(f"{f.header.sop_uid} {f.header.digest} {f.size}" for f in files)
    patients = sorted({f.header.patient_id for f in files})
    case = Case(
        case_id=uid or "(no series UID)",
        patient_id=patients[0] or files[0].header.study_uid or uid,
        image=os.path.commonpath([Path(f.path).parent for f in files]),
        source=None,
        unopened=SeriesFiles(tuple(files), rules),
        masks=tuple(MaskFile(path, "lidc") for path, _ in masks),
        digest=digest_of([*digests, *(digest for _, digest in masks)]),
    )
    if len(patients) > 1:
        what, measured = "PatientID differs between slices", f"{len(patients)} values"
        return replace(case, problem=Problem("E-DCM-004", what, measured, "1", "Series skipped"))
    return case


def volume_case(
    case_id: str, patient_id: str, path: Path, entry: FileEntry, masks: Sequence[tuple[MaskFile, str]]
) -> Case:
    """Return the case of one volume file with its masks, each with the digest of its content."""
    case = Case(case_id, patient_id, str(path), None, masks=tuple(mask for mask, _ in masks))
    if entry.kind == "bad":
        found = problem(entry.facts)
        return replace(case, problem=found, digest=digest_of([f"{entry.size} {found.code}"]))
    header = VolumeHeader.from_json(entry.facts)
    size = (entry.facts["data_state"] or [entry.size])[0]  # of the data, where the header lies apart
    digests = [f"{header.header_digest} {size}", *(digest for _, digest in masks)]
    return replace(case, source=file_volume(header), notes=header.notes, digest=digest_of(digests))


def digest_of(parts: Iterable[str]) -> str:
    """Return the hex digest of several texts."""
    return blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def mask_digest(path: Path, entry: FileEntry) -> str:
    """Return the digest of a mask's whole content: unlike a scan, a mask is edited in place."""
    if entry.kind == "bad":
        return problem(entry.facts).code
    if entry.kind == "lidc":
        return str(entry.facts[1])
    if entry.kind == "volume":
        return str(entry.facts["content"] or mask_content(path, entry.facts))
    return content_digest(path)  # an annotation file that does not name its series


def _volume_cases(root: Path, volumes: Mapping[Path, FileEntry], refused: list[Problem]) -> list[Case]:
    """Pair volumes with their masks by folder and name."""
    folders = {(path.parent.parent, path.parent.name.lower()): path.parent for path in volumes}
    masks: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    images: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in volumes:
        if is_mask_name(path):
            partner = MASK_FOLDERS.get(path.parent.name.lower(), path.parent.name.lower())
            folder = folders.get((path.parent.parent, partner), path.parent)
            masks[folder, common_stem(path)].append(path)
        else:
            images[path.parent, common_stem(path)].append(path)
    cases = []
    for key, paths in images.items():
        found = sorted(masks.pop(key, []))
        for path in paths:
            suffix = volume_suffix(path.name)
            own = [mask for mask in found if volume_suffix(mask.name) == suffix] if len(paths) > 1 else []
            files = [
                (MaskFile(str(mask), "labels"), mask_digest(mask, volumes[mask])) for mask in own or found
            ]
            name = path.relative_to(root).as_posix()
            case_id = name if len(paths) > 1 else name[: -len(suffix)]
            cases.append(volume_case(case_id, case_id, path, volumes[path], files))
    for paths in masks.values():
        action = "File skipped; name its image in a manifest (--cases)"
        refused.extend(
            Problem("E-MASK-002", "mask without an image", action=action, files=(str(p),)) for p in paths
        )
    return cases

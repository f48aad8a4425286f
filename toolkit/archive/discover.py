"""From folders of files to cases: series by UID, volumes with their masks by name."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path

from toolkit.archive.case import Case, MaskFile
from toolkit.archive.dicom_series import CT_IMAGE, MULTI_FRAME_CT, SeriesFiles, SeriesRules, SliceFile
from toolkit.archive.luna16 import LunaRow, points_of
from toolkit.archive.names import LUNG_MASK_FOLDERS, MASK_FOLDERS, common_stem, is_mask_name, volume_suffix
from toolkit.archive.scan import (
    FileEntry,
    content_digest,
    mask_content,
    mask_head,
    problem,
    slice_header,
)
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
        The files that are something else, by what they are.
    """

    cases: tuple[Case, ...]
    refused: tuple[Problem, ...] = ()
    ignored: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def discover(root: Path, folders: Folders, rules: SeriesRules) -> Discovery:
    """Make cases of the scanned folders of an archive.

    A DICOM series is one case (its files may lie in several folders); LIDC XML joins it by series UID,
    DICOM Segmentation and RT Structure Set by the series or the images that they reference. A volume
    file is one case; masks join it by name: ``scan_mask``, ``scan_seg``, ``scan_label`` beside ``scan``,
    ``mask`` beside ``image`` in a folder of their own, or ``labelsTr/scan`` beside ``imagesTr/scan_0000``.
    LUNA16's ``annotations.csv`` gives points to scans that have no mask, by series UID or file name;
    where an archive has none, the nodules of its ``candidates.csv`` do.
    """
    refused: list[Problem] = []
    ignored: dict[str, list[str]] = defaultdict(list)
    series: dict[str, list[SliceFile]] = defaultdict(list)
    readings: dict[str, list[tuple[MaskFile, str]]] = defaultdict(list)
    objects: list[tuple[Path, FileEntry]] = []
    volumes: dict[Path, FileEntry] = {}
    tables: dict[str, list[tuple[str, FileEntry]]] = {"annotations": [], "candidates": []}
    for folder, entries in folders.items():
        base = str(folder)  # a Path for every slice of an archive would take a third of this pass
        for entry in entries:
            path = os.path.join(base, entry.name)  # noqa: PTH118
            if entry.kind == "dicom":
                file = SliceFile(path, entry.size, entry.mtime_ns, slice_header(entry.facts))
                other = _not_a_slice(file)
                if other:
                    ignored[other].append(path)
                else:
                    series[file.header.series_uid].append(file)
            elif entry.kind == "lidc":
                readings[entry.facts[0]].append((MaskFile(path, "lidc"), entry.facts[1]))
            elif entry.kind in ("seg", "rtstruct"):
                objects.append((Path(path), entry))
            elif entry.kind in tables:
                tables[entry.kind].append((path, entry))
            elif folder.name.lower() in LUNG_MASK_FOLDERS and volume_suffix(entry.name):
                ignored["lung masks"].append(path)
            elif entry.kind == "volume" or (entry.kind == "bad" and volume_suffix(entry.name)):
                volumes[folder / entry.name] = entry
            elif entry.kind == "bad":
                refused.append(problem(entry.facts))
            else:
                ignored["other files"].append(path)
    _drop_data_files(volumes, ignored)
    orphans = [mask.path for uid, files in readings.items() if uid not in series for mask, _ in files]
    ignored["LIDC readings of absent series"] = orphans
    for uid, mask, digest in join_objects(objects, series, refused):
        readings[uid].append((mask, digest))
    cases = [series_case(uid, files, readings.get(uid, ()), rules) for uid, files in series.items()]
    cases += _volume_cases(root, volumes, refused)
    points = _points(tables["annotations"] or tables["candidates"])
    cases = [_with_points(case, points) for case in cases]
    if tables["annotations"]:
        for path, _ in tables["candidates"]:
            ignored["candidates beside annotations (they have no diameter and no malignancy)"].append(path)
    plain = {what: tuple(paths) for what, paths in ignored.items() if paths}
    return Discovery(tuple(sorted(cases, key=lambda case: case.case_id)), tuple(refused), plain)


def _drop_data_files(volumes: Mapping[Path, FileEntry], ignored: dict[str, list[str]]) -> None:
    """Take out of the other files those that hold the voxels of a header beside them."""
    data = {entry.facts["stored"]["path"] for entry in volumes.values() if entry.kind == "volume"}
    ignored["other files"] = [path for path in ignored["other files"] if path not in data]


def _points(tables: Sequence[tuple[str, FileEntry]]) -> dict[str, list[LunaRow]]:
    """Return the rows of tables of positions by series UID."""
    rows: dict[str, list[LunaRow]] = defaultdict(list)
    for _, entry in tables:
        for row in entry.facts:
            rows[row[0]].append(LunaRow(*row))
    return rows


def _with_points(case: Case, rows: Mapping[str, list[LunaRow]]) -> Case:
    """Give a case without masks the positions that tables have for its series, or its file's name."""
    found = rows.get(series_uid(case)) or rows.get(case.case_id.rpartition("/")[2])
    if case.masks or not found:
        return case
    points = points_of(found)
    told = [f"{point.center_lps_mm} {point.diameter_mm}" for point in points]
    return replace(case, points=points, digest=digest_of([case.digest, *told]))


def series_uid(case: Case) -> str:
    """Return the SeriesInstanceUID of a DICOM case, an empty text for others."""
    return case.unopened.files[0].header.series_uid if isinstance(case.unopened, SeriesFiles) else ""


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
    uid: str, files: Sequence[SliceFile], masks: Iterable[tuple[MaskFile, str]], rules: SeriesRules
) -> Case:
    """Return the case of one DICOM series with its masks, each with the digest of its content, not opened."""
    masks = sorted(masks, key=lambda found: found[0].path)
    digests = sorted(f"{f.header.sop_uid} {f.header.digest} {f.size}" for f in files)
    patients = sorted({f.header.patient_id for f in files})
    case = Case(
        case_id=uid or "(no series UID)",
        patient_id=patients[0] or files[0].header.study_uid or uid,
        image=os.path.commonpath({os.path.dirname(f.path) for f in files}),  # noqa: PTH120
        source=None,
        unopened=SeriesFiles(tuple(files), rules),
        masks=tuple(mask for mask, _ in masks),
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
    if entry.kind in ("lidc", "seg", "rtstruct"):
        return str(entry.facts[-1])
    if entry.kind == "volume":
        return str(entry.facts["content"] or mask_content(path, entry.facts))
    return content_digest(path)  # an annotation file that does not name its series


def join_objects(
    objects: Iterable[tuple[Path, FileEntry]],
    series: Mapping[str, Sequence[SliceFile]],
    refused: list[Problem],
) -> Iterator[tuple[str, MaskFile, str]]:
    """Yield the series that each DICOM mask object belongs to, the mask, and the digest of its content.

    It is the series that the object names, else the one that holds the images that it references. None
    of them here is E-MASK-002, several are E-MASK-005, added to `refused`.
    """
    owner: dict[str, str] = {}
    for path, entry in objects:
        head = mask_head(entry.facts)
        if not head.series_uids and not owner:
            owner = {f.header.sop_uid: uid for uid, files in series.items() for f in files}
        named = head.series_uids or {owner[uid] for uid in head.sop_uids if uid in owner}
        here = [uid for uid in named if uid in series]
        action = "File skipped; name its image in a manifest (--cases)"
        if len(here) == 1:
            mask = MaskFile(str(path), "seg" if entry.kind == "seg" else "rtstruct", regions=head.regions)
            yield here[0], mask, mask_digest(path, entry)
        elif here:
            what, measured = "mask of several series", f"{len(here)} of them in the archive"
            refused.append(Problem("E-MASK-005", what, measured, "1", action, (str(path),)))
        else:
            measured = f"references {len(head.series_uids)} series, {len(head.sop_uids)} images, none here"
            refused.append(Problem("E-MASK-002", "mask without an image", measured, "", action, (str(path),)))


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

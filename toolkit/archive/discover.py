"""From folders of files to cases: series by UID, volumes with their masks by name."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path

from toolkit.archive.case import Case, MaskFile
from toolkit.archive.dicom_series import SeriesFiles, SeriesRules
from toolkit.archive.names import MASK_FOLDERS, common_stem, is_mask_name, volume_suffix
from toolkit.archive.scan import FileEntry, content_digest, mask_content, problem
from toolkit.archive.series import Folders, Series, Slices, all_series
from toolkit.archive.volume import file_volume
from toolkit.archive.volume_header import VolumeHeader
from toolkit.errors import Problem


@dataclass(frozen=True)
class Discovery:
    """What was found in an archive.

    Attributes
    ----------
    cases
        Sorted by case id; those with a `problem` cannot be used.
    refused
        Files that claim to be images or masks but belong to no case, each with its reason.
    skipped
        Files that are something else, by what they are.
    """

    cases: tuple[Case, ...]
    refused: tuple[Problem, ...] = ()
    skipped: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def ignored(self) -> dict[str, int]:
        """How many files are something else, by what they are."""
        return {what: len(files) for what, files in self.skipped.items()}


def discover(root: Path, folders: Folders, rules: SeriesRules) -> Discovery:
    """Make cases of the scanned folders of an archive.

    A DICOM series is one case (its files may lie in several folders); LIDC XML joins it by series
    UID. A volume file is one case; masks join it by name: ``scan_mask``, ``scan_seg``, ``scan_label``
    beside ``scan``, ``mask`` beside ``image`` in a folder of their own, or ``labelsTr/scan`` beside
    ``imagesTr/scan_0000``.
    """
    refused: list[Problem] = []
    skipped: dict[str, list[str]] = defaultdict(list)
    slices = Slices()
    readings: dict[str, list[tuple[str, str]]] = defaultdict(list)
    volumes: dict[Path, FileEntry] = {}
    for folder, entries in folders.items():
        for entry in entries:
            path = folder / entry.name
            if entry.kind in ("dicom", "frames", "broken"):
                slices.add(path, entry)
            elif entry.kind == "lidc":
                readings[entry.facts[0]].append((str(path), entry.facts[1]))
            elif entry.kind == "volume" or (entry.kind == "bad" and volume_suffix(entry.name)):
                volumes[path] = entry
            elif entry.kind == "bad":
                refused.append(problem(entry.facts))
            else:
                skipped["other files"].append(str(path))
    found, unread = all_series(slices, rules)
    refused += unread
    for path, what in slices.other:
        if str(path) not in skipped[what][-1:]:  # of a multi-frame file, every frame
            skipped[what].append(str(path))
    cases = [series_case(series, readings.get(series.uid, ()), rules) for series in found]
    for uid, files in readings.items():
        if uid not in slices.by_uid:
            skipped["LIDC readings of absent series"] += [path for path, _ in files]
    cases += _volume_cases(root, volumes, refused)
    return Discovery(tuple(sorted(cases, key=lambda case: case.case_id)), tuple(refused), dict(skipped))


def series_case(series: Series, readings: Iterable[tuple[str, str]], rules: SeriesRules) -> Case:
    """Return the case of one DICOM series, not yet opened."""
    masks = sorted(readings)
    files = series.files
    by_path = {f.path: f"{f.header.sop_uid} {f.header.digest} {f.size}" for f in files}
    patients = sorted({f.header.patient_id for f in files})
    case = Case(
        case_id=series.name,
        patient_id=patients[0] or files[0].header.study_uid or series.uid,
        image=os.path.commonpath({os.path.dirname(path) for path in by_path}),  # noqa: PTH120
        source=None,
        unopened=SeriesFiles(files, rules),
        masks=tuple(MaskFile(path, "lidc") for path, _ in masks),
        digest=digest_of([*sorted(by_path.values()), *(digest for _, digest in masks)]),
        notes=series.notes,
        problem=series.problem,
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

"""One case of its files: a series or a volume, with its masks and the digest of it all."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from toolkit.archive.case import Case, MaskFile
from toolkit.archive.dicom_series import SeriesFiles, SeriesRules
from toolkit.archive.entries import FileEntry
from toolkit.archive.scan import content_digest, mask_content, problem
from toolkit.archive.series import Series, hash_of
from toolkit.archive.volume import file_volume
from toolkit.archive.volume_header import VolumeHeader
from toolkit.errors import Problem


def series_case(series: Series, masks: Iterable[tuple[MaskFile, str]], rules: SeriesRules) -> Case:
    """Return the case of one DICOM series with its masks, each with the digest of its content, not opened."""
    masks = sorted(masks, key=lambda found: found[0].path)
    content = series.content.copy()
    for _, digest in masks:
        content.update(f"\n{digest}".encode(errors="surrogateescape"))
    case = Case(
        case_id=series.name,
        patient_id=series.patients[0] or series.study or series.uid,
        image=os.path.commonpath(series.files.folders()),
        source=None,
        unopened=SeriesFiles(series.uid, series.files, rules),
        masks=tuple(mask for mask, _ in masks),
        digest=content.hexdigest(),
        notes=series.notes,
        problem=series.problem,
    )
    if len(series.patients) > 1:
        what, measured = "PatientID differs between slices", f"{len(series.patients)} values"
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
    return hash_of(parts).hexdigest()


def mask_digest(path: Path, entry: FileEntry) -> str:
    """Return the digest of a mask's whole content: unlike a scan, a mask is edited in place."""
    if entry.kind == "bad":
        return problem(entry.facts).code
    if entry.kind in ("lidc", "seg", "rtstruct"):
        return str(entry.facts[-1])
    if entry.kind == "volume":
        return str(entry.facts["content"] or mask_content(path, entry.facts))
    return content_digest(path)  # an annotation file that does not name its series


def series_uid(case: Case) -> str:
    """Return the SeriesInstanceUID of a DICOM case, an empty text for others."""
    return case.unopened.uid if isinstance(case.unopened, SeriesFiles) else ""

"""From scanned DICOM files to series: what is a slice, what belongs together, what stands in the way."""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from pathlib import Path

from toolkit.archive.dicom_fields import SliceFile
from toolkit.archive.dicom_series import MIN_SLICES, SeriesRules, build_series
from toolkit.archive.entries import FileEntry, frame_headers, slice_header
from toolkit.archive.files import shown
from toolkit.archive.multi_frame import MULTI_FRAME_CT
from toolkit.archive.packed import PackedSlices
from toolkit.archive.scan import broken
from toolkit.archive.slice_checks import CT_IMAGE
from toolkit.errors import InputError, Problem

# ImageType values (PS3.3 C.7.6.1.1.2, C.8.16.1) of pictures that are no cross-sections of a patient,
# as scanners and workstations write them; all else, reformatted planes too, is read.
_PICTURES = {
    "LOCALIZER": "CT localizers",
    **dict.fromkeys(("SCREEN SAVE", "SCREENSAVE", "SCREEN", "CAPTURE"), "CT screen saves"),
    **dict.fromkeys(("DOSE", "DOSE_INFO", "DOSE INFO", "DOSE REPORT", "DOSE_REPORT"), "CT dose reports"),
    **dict.fromkeys(
        (
            "MIP",
            "MAX_IP",
            "MINIP",
            "MIN_IP",
            "MAXIMUM",
            "MINIMUM",
            "PROJECTION IMAGE",
            "VRT",
            "VOLREN",
            "SSD",
        ),
        "CT projections",
    ),
}
# What tells reconstructions, phases and repeats of one series apart, in the order in which it is tried.
_SPLITS = (("acquisition",), ("kernel",), ("image_type",), ("acquisition", "kernel", "image_type"))


@dataclass(frozen=True)
class Series:
    """The slices of one volume, not yet judged.

    Attributes
    ----------
    name
        The series UID, with what tells its parts apart where one series holds several volumes.
    study
        UID of the study, and patient id, of the first slice.
    kernel
        As the first slice has it.
    z_mm
        Least and largest z (LPS) of its slices; None where fewer than a volume needs have a position.
    problem
        Why it must not be read, whatever its slices say.
    """

    name: str
    uid: str
    files: PackedSlices
    study: tuple[str, str] = ("", "")
    kernel: str = ""
    z_mm: tuple[float, float] | None = None
    notes: tuple[Problem, ...] = ()
    problem: Problem | None = None


SLICE_KINDS = ("dicom", "frames", "broken")


@dataclass
class Slices:
    """The CT slices of some folders by series UID, what cannot be read, and what is something else.

    Folders may come in any order.
    """

    by_uid: dict[str, list[tuple[str, PackedSlices]]] = field(default_factory=lambda: defaultdict(list))
    unread: list[tuple[str, str, Problem]] = field(default_factory=list)
    other: list[tuple[str, str]] = field(default_factory=list)

    def add_folder(self, folder: str, entries: Iterable[FileEntry]) -> None:
        """Take what is DICOM of the scanned files of a folder: `SLICE_KINDS`."""
        here: dict[str, list[SliceFile]] = defaultdict(list)
        for entry in entries:
            if entry.kind in SLICE_KINDS:
                self._add(os.path.join(folder, entry.name), entry, here)  # noqa: PTH118
        for uid, files in here.items():
            self.by_uid[uid].append((folder, PackedSlices(files)))

    def files_of(self, uid: str) -> PackedSlices:
        """Return the slices of a series, in the order of their folders."""
        found = sorted(self.by_uid[uid], key=lambda part: Path(part[0]))
        return PackedSlices.joined(files for _, files in found)

    def owners(self, sop_uids: set[str]) -> dict[str, str]:
        """Return the series of those of some images that are here."""
        if not sop_uids:
            return {}
        of_all = ((f.header.sop_uid, uid) for uid in sorted(self.by_uid) for f in self.files_of(uid))
        return {image: uid for image, uid in of_all if image in sop_uids}

    def _add(self, path: str, entry: FileEntry, here: dict[str, list[SliceFile]]) -> None:
        if entry.kind == "broken":
            uid, problem = broken(entry.facts)
            self.unread.append((path, uid, problem))
            return
        headers = frame_headers(entry.facts) if entry.kind == "frames" else [slice_header(entry.facts)]
        for header in headers:
            file = SliceFile(path, entry.size, entry.mtime_ns, header)
            other = not_a_slice(file)
            if other == MULTI_FRAME:
                measured = f"{header.frames} frames of another class than Enhanced CT"
                action = "File skipped; only Enhanced and Legacy Converted Enhanced CT are read"
                problem = Problem("E-DCM-005", "multi-frame object", measured, "", action, (path,))
                self.unread.append((path, header.series_uid, problem))
            elif other:
                self.other.append((path, other))
            elif not header.series_uid:  # a header that ends early looks like this
                what, measured = "header incomplete", "no usable SeriesInstanceUID"
                problem = Problem("E-DCM-002", what, measured, "", "File skipped", (path,))
                self.unread.append((path, "", problem))
            else:
                here[header.series_uid].append(file)


MULTI_FRAME = "multi-frame CT of another class"


def not_a_slice(file: SliceFile) -> str:
    """Return what a DICOM file is, if it is no slice of a CT."""
    header = file.header
    if header.sop_class not in (CT_IMAGE, *MULTI_FRAME_CT):
        if header.modality == "CT" and (header.frames or 1) > 1:
            return MULTI_FRAME
        return f"DICOM {shown(header.modality) or 'objects'} that is no CT image"
    values = header.image_type.upper().split("\\")
    return next((_PICTURES[value] for value in values if value in _PICTURES), "")


def all_series(slices: Slices, rules: SeriesRules) -> tuple[list[Series], list[Problem]]:
    """Return the series of some folders, and the problems of files that belong to none of them."""
    found = [part for uid in slices.by_uid for part in _split(uid, slices.files_of(uid), rules)]
    refused = []
    of_uid: dict[str, list[int]] = defaultdict(list)
    for k, series in enumerate(found if slices.unread else ()):
        of_uid[series.uid].append(k)
    in_folder = _by_folder(found) if any(not uid for _, uid, _ in slices.unread) else {}
    for path, uid, problem in sorted(slices.unread, key=itemgetter(0)):
        owners = of_uid.get(uid, []) if uid else in_folder.get(os.path.dirname(path), [])  # noqa: PTH120
        certain = uid or len({found[k].uid for k in owners}) == 1
        for k in owners:
            found[k] = _refused(found[k], path, problem) if certain else _noted(found[k], path)
        if not owners or not uid:
            refused.append(problem)
    return _with_siblings(found), refused


def _by_folder(found: Sequence[Series]) -> dict[str, list[int]]:
    """Return the numbers of the series that have slices in a folder."""
    folders: dict[str, list[int]] = defaultdict(list)
    for k, series in enumerate(found):
        for folder in {os.path.dirname(file.path) for file in series.files}:  # noqa: PTH120
            folders[folder].append(k)
    return folders


def _refused(series: Series, path: str, problem: Problem) -> Series:
    """Refuse a series that a file without readable header is, or must be taken for, a slice of."""
    if series.problem is not None:
        files = (*series.problem.files, path)
        return replace(series, problem=replace(series.problem, files=files))
    action = "Series skipped; copy the file anew, or take it out of the folder if it is no slice"
    measured = f"{problem.code} {problem.what}"
    return replace(
        series,
        problem=Problem(
            "E-DCM-008",
            "a file of the series cannot be read",
            measured,
            "",
            action,
            (path,),
            problem.transient,
        ),
    )


def _noted(series: Series, path: str) -> Series:
    """Note a file that may be a slice of any of several series in its folder."""
    what, action = "an unreadable file lies beside the series", "Read; the file may be one of its slices"
    return replace(series, notes=(*series.notes, Problem("W-DCM-006", what, "", "", action, (path,))))


def series_of(
    name: str, uid: str, packed: PackedSlices, files: Sequence[SliceFile], notes: tuple[Problem, ...] = ()
) -> Series:
    """Return a series of its slices, packed and as they are."""
    first = files[0].header
    z = [file.header.position[2] for file in files if len(file.header.position) == 3]
    z_mm = (min(z), max(z)) if len(z) >= MIN_SLICES else None
    return Series(name, uid, packed, (first.study_uid, first.patient_id), first.kernel, z_mm, notes)


def _split(uid: str, packed: PackedSlices, rules: SeriesRules) -> list[Series]:
    """Return one series, or several where slices share their places and the header tells them apart.

    A series is split only if each part is a sound volume by itself; otherwise it is left to be refused.
    """
    files = tuple(packed)
    own = {(f.header.sop_uid, f.header.frame): f for f in files}
    if len({f.header.position for f in own.values()}) == len(own):
        return [series_of(uid, uid, packed, files)]
    for fields in _SPLITS:
        parts: dict[tuple[object, ...], list[SliceFile]] = defaultdict(list)
        for file in files:
            parts[tuple(getattr(file.header, f) for f in fields)].append(file)
        if len(parts) < 2 or not all(_sound(part, rules) for part in parts.values()):
            continue
        measured = f"{len(parts)} volumes by " + " and ".join(fields)
        note = Problem("W-DCM-005", "series split", measured, "1", "Each is a case of its own")
        return [
            series_of(f"{uid}#{label}", uid, PackedSlices(parts[key]), parts[key], (note,))
            for label, key in _labels(list(parts)).items()
        ]
    return [series_of(uid, uid, packed, files)]


def _sound(files: Sequence[SliceFile], rules: SeriesRules) -> bool:
    try:
        build_series(files, rules)
    except InputError:
        return False
    return True


def _labels(keys: Sequence[tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """Return a short distinct name for each part, which does not depend on the order of files."""
    labels: dict[str, tuple[object, ...]] = {}
    for key in sorted(keys, key=lambda k: tuple(map(str, k))):
        label = "+".join(shown("" if value is None else value).replace("\\", "-") or "none" for value in key)
        labels[label if label not in labels else f"{label}~{len(labels)}"] = key
    return labels


def _with_siblings(found: Sequence[Series]) -> list[Series]:
    """Note series of one study that show the same part of the patient: a person should choose."""
    studies: dict[tuple[str, str], list[tuple[Series, float, float]]] = defaultdict(list)
    for series in found:
        if series.study[0] and series.z_mm is not None and series.problem is None:
            studies[series.study].append((series, *series.z_mm))
    notes: dict[str, Problem] = {}
    for members in studies.values():
        for series, low, high in members:
            others = [
                other
                for other, first, last in members
                if other is not series
                and min(high, last) - max(low, first) > 0.5 * min(high - low, last - first)
            ]
            if others:
                notes[series.name] = _sibling_note(series, others)
    return [replace(s, notes=(*s.notes, notes[s.name])) if s.name in notes else s for s in found]


def _sibling_note(series: Series, others: Sequence[Series]) -> Problem:
    def told(one: Series) -> str:
        kernel = shown(one.kernel)
        return f"{len(one.files)} slices" + (f" by {kernel}" if kernel else "")

    measured = f"{told(series)} here, " + ", ".join(map(told, others[:3])) + " there"
    action = "All are read; --series-uid chooses"
    return Problem("W-DCM-007", "other series of the same part of the patient", measured, "", action)

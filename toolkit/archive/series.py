"""From slices to series: what belongs together, and what stands in the way."""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from operator import itemgetter

from toolkit.archive.dicom_fields import SliceFile
from toolkit.archive.dicom_series import MIN_SLICES, SeriesRules, build_series
from toolkit.archive.entries import SliceTable
from toolkit.archive.files import shown
from toolkit.archive.packed import PackedSlices
from toolkit.archive.slices import Slices
from toolkit.errors import InputError, Problem

# What tells reconstructions, phases and repeats of one series apart, in the order in which it is tried.
_SPLITS = (("acquisition",), ("kernel",), ("image_type",), ("acquisition", "kernel", "image_type"))


@dataclass(frozen=True)
class Series:
    """The slices of one volume, not yet judged.

    Attributes
    ----------
    name
        The series UID, with what tells its parts apart where one series holds several volumes.
    patients
        Patient ids of its slices.
    study, kernel
        UID of the study, and the convolution kernel, of the first slice.
    z_mm
        Least and largest z (LPS) of its slices; None where fewer than a volume needs have a position.
    content
        BLAKE2b that has seen what its files are.
    problem
        Why it must not be read, whatever its slices say.
    """

    name: str
    uid: str
    files: PackedSlices
    patients: tuple[str, ...]
    study: str
    kernel: str
    z_mm: tuple[float, float] | None
    content: blake2b
    notes: tuple[Problem, ...] = ()
    problem: Problem | None = None


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
        for folder in series.files.folders():
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
    name: str, uid: str, files: PackedSlices, table: SliceTable, notes: tuple[Problem, ...] = ()
) -> Series:
    """Return a series of its slices, packed and by column."""
    z = [place[2] for place in table.column("position") if len(place) == 3]
    z_mm = (min(z), max(z)) if len(z) >= MIN_SLICES else None
    said = zip(table.names, table.column("sop_uid"), table.column("digest"), table.sizes, strict=True)
    lines = {path: f"{sop_uid} {digest} {size}" for path, sop_uid, digest, size in said}
    content = hash_of(sorted(lines.values()))
    study, kernel = (table.column(field)[0] for field in ("study_uid", "kernel"))
    patients = tuple(sorted({*table.column("patient_id")}))
    return Series(name, uid, files, patients, study, kernel, z_mm, content, notes)


def hash_of(parts: Iterable[str]) -> blake2b:
    """Return the hash of several texts, a line each, to which others may be added."""
    return blake2b("\n".join(parts).encode(errors="surrogateescape"), digest_size=16)


def _split(uid: str, packed: PackedSlices, rules: SeriesRules) -> list[Series]:
    """Return one series, or several where slices share their places and the header tells them apart.

    A series is split only if each part is a sound volume by itself; otherwise it is left to be refused.
    """
    table = packed.table()
    own = dict(
        zip(
            zip(table.column("sop_uid"), table.column("frame"), strict=True),
            table.column("position"),
            strict=True,
        )
    )
    whole = [series_of(uid, uid, packed, table)]
    if len({*own.values()}) == len(own):
        return whole
    for fields in _SPLITS:
        parts: dict[tuple[object, ...], list[SliceFile]] = defaultdict(list)
        for file in packed:
            parts[tuple(getattr(file.header, f) for f in fields)].append(file)
        if len(parts) < 2 or not all(_sound(part, rules) for part in parts.values()):
            continue
        measured = f"{len(parts)} volumes by " + " and ".join(fields)
        note = Problem("W-DCM-005", "series split", measured, "1", "Each is a case of its own")
        return [
            series_of(f"{uid}#{label}", uid, part := PackedSlices(parts[key]), part.table(), (note,))
            for label, key in _labels(list(parts)).items()
        ]
    return whole


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
        if series.study and series.z_mm is not None and series.problem is None:
            studies[series.study, series.patients[0]].append((series, *series.z_mm))
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

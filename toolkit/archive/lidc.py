"""LIDC-IDRI annotation files (XML): what each reader outlined, exactly as written.

Format: "LIDC XML read message", readingSession / unblindedReadNodule / roi / edgeMap. Outlines are in
pixels of the CT slice that `sop_uid` names, (column, row) from 0. The outline is the first pixel OUTSIDE
the nodule. What readings mean together is decided in `toolkit.archive.consensus`.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, fromstring  # safe after refuse_doctype
from xml.parsers.expat import ExpatError

import numpy as np
from numpy.typing import NDArray

from toolkit.archive.files import number, whole
from toolkit.archive.lidc_head import CT_ROOT, MalformedError, local_name, refuse_doctype
from toolkit.errors import InputError, Problem

_MAX_BYTES = 16 << 20  # the largest of the 1,318 published files has 2.2 MB


POINTS_TAG = "toolkit-points"

_POINTS = b"<toolkit-points>%b</toolkit-points>"
_DIGITS_ONLY = bytes(c if c in b"0123456789" else 32 for c in range(256))
_RUN_OF_POINTS = re.compile(
    rb"(?:<edgeMap>\s*<xCoord>\s*\d+\s*</xCoord>\s*<yCoord>\s*\d+\s*</yCoord>\s*</edgeMap>\s*)+"
)


@dataclass(frozen=True, eq=False)
class Outline:
    """One closed outline on one slice.

    Attributes
    ----------
    sop_uid
        SOP instance UID of the slice; empty where the file has none.
    z_mm
        World z of the slice.
    inclusion
        False where the outline bounds a hole.
    points_xy
        int32 (n, 2): column and row of each outline pixel.
    """

    sop_uid: str
    z_mm: float
    inclusion: bool
    points_xy: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Reading:
    """One nodule of 3 mm or more as one reader saw it.

    Attributes
    ----------
    reader
        Ordinal of the reading session in its file; the readers themselves are anonymous.
    nodule_id
        The reader's own mark, unique within the session only.
    malignancy
        1 to 5; None where the reader gave none.
    """

    reader: int
    nodule_id: str
    malignancy: int | None
    outlines: tuple[Outline, ...]


@dataclass(frozen=True, eq=False)
class LidcRead:
    """All readings of one CT series.

    Attributes
    ----------
    readings
        Nodules of 3 mm or more, in the order of the file.
    small_nodules, non_nodules, exclusions, duplicate_sessions
        How many nodules under 3 mm (marked by one point), non-nodules, outlines of holes (kept in the
        readings) and repeated sessions (dropped) the file holds.
    """

    series_uid: str
    study_uid: str
    readings: tuple[Reading, ...]
    small_nodules: int = 0
    non_nodules: int = 0
    exclusions: int = 0
    duplicate_sessions: int = 0
    notes: tuple[Problem, ...] = ()


def read_lidc(path: Path) -> LidcRead:
    """Read one LIDC annotation file.

    A session that repeats another one in every mark, rating and outline is dropped (W-LIDC-002). A
    rating of 0 or none at all becomes None (W-LIDC-001). Raises `InputError` E-LIDC-001 where the file
    is not a well-formed LIDC reading of a CT, has more than 16 MB, or declares a document type (no LIDC
    file does, and entity bombs need one).
    """
    try:
        return _message(_root(path))
    except (OSError, ValueError, OverflowError, ParseError, ExpatError, LookupError) as error:
        problem = Problem(
            "E-LIDC-001",
            "the annotation file cannot be read",
            measured=_reason(error),
            expected="an LIDC reading of a CT series",
            action="The annotations of this series were refused",
            files=(str(path),),
        )
        raise InputError(problem) from error


def combine_reads(reads: Sequence[LidcRead]) -> LidcRead:
    """Join the annotation files of one series, of which LIDC-IDRI has up to six identical copies.

    Copies are dropped (W-LIDC-002). Raises `InputError` E-LIDC-004 where two files differ: nothing in
    them says which readers are the same person, and to count one twice would weight the consensus.
    """
    first, copies = reads[0], reads[1:]
    content = _content(first.readings)
    for other in copies:
        if (other.series_uid, _content(other.readings)) != (first.series_uid, content):
            raise InputError(
                Problem(
                    "E-LIDC-004",
                    "annotation files of one series contradict each other",
                    measured=f"{len(first.readings)} and {len(other.readings)} readings, not the same",
                    expected="identical copies",
                    action="The annotations of this series were refused; keep one of the files",
                )
            )
    if not copies:
        return first
    dropped = sum(len({reading.reader for reading in other.readings}) for other in copies)
    note = _duplicate_note(f"{len(copies)} more files with the same readings")
    counts = (first.small_nodules, first.non_nodules, first.exclusions, first.duplicate_sessions + dropped)
    return LidcRead(first.series_uid, first.study_uid, first.readings, *counts, (*first.notes, note))


def _reason(error: Exception) -> str:
    """Say what is wrong without quoting the file: it may hold identifiers."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, MalformedError | ParseError | ExpatError):
        return str(error)
    return "a number or an encoding that cannot be read"


def _root(path: Path) -> Element:
    """Parse a file that holds no document type declaration."""
    if (size := path.stat().st_size) > _MAX_BYTES:
        raise MalformedError(f"{size} bytes, at most {_MAX_BYTES} are read")
    data = path.read_bytes()
    refuse_doctype(data)
    root = fromstring(compact(data))  # noqa: S314 - see refuse_doctype
    if local_name(root.tag) != CT_ROOT:
        raise MalformedError("another root element")
    return root


def compact(data: bytes) -> bytes:
    """Replace runs of well-formed points by one element that lists their numbers.

    Points are nearly all of a file, and building an element for each is nearly all of its parsing.
    A point that is written in any other way stays as it is and means the same.
    """
    return _RUN_OF_POINTS.sub(lambda run: _POINTS % run[0].translate(_DIGITS_ONLY), data)


def _message(root: Element) -> LidcRead:
    header = {local_name(e.tag).lower(): _text(e) for part in _children(root, "ResponseHeader") for e in part}
    series = header.get("seriesinstanceuid", "")
    if not series:
        raise MalformedError("no SeriesInstanceUid")
    sessions = list(_children(root, "readingSession"))
    kept: dict[object, list[Reading]] = {}
    small = repeated = 0
    for reader, session in enumerate(sessions):
        readings, points = _session(session, reader)
        small += points
        key = _content(readings, reader_free=True) if readings else reader
        repeated += key in kept
        kept.setdefault(key, readings)
    return LidcRead(
        series,
        header.get("studyinstanceuid", ""),
        tuple(flat := [reading for readings in kept.values() for reading in readings]),
        small,
        sum(1 for session in sessions for _ in _children(session, "nonNodule")),
        sum(not outline.inclusion for reading in flat for outline in reading.outlines),
        repeated,
        tuple(_notes(flat, repeated)),
    )


def _session(session: Element, reader: int) -> tuple[list[Reading], int]:
    """Return the outlined nodules of one session and the number of those marked by a point.

    Two of the published readers outlined a nodule without rating it and marked the same nodule by a
    point, which stands for less than 3 mm. The point counts, as it does in the Cornell list.
    """
    outlined, pointed, rated = [], [], set()
    for nodule in _children(session, "unblindedReadNodule"):
        name = "".join(_text(e) for e in _children(nodule, "noduleID"))
        outlines = tuple(_outline(roi) for roi in _children(nodule, "roi"))
        if all(len(outline.points_xy) < 2 for outline in outlines):
            pointed.append(name)
            continue
        if any(True for part in _children(nodule, "characteristics") for _ in part):
            rated.add(name)
        outlined.append(Reading(reader, name, _malignancy(nodule), outlines))
    readings = [r for r in outlined if r.nodule_id in rated or r.nodule_id not in pointed]
    return readings, len(pointed) + len(outlined) - len(readings)


def _malignancy(nodule: Element) -> int | None:
    found = [
        whole(_text(e))
        for part in _children(nodule, "characteristics")
        for e in _children(part, "malignancy")
    ]
    if len(found) > 1 or any(not 0 <= value <= 5 for value in found):
        raise MalformedError("malignancy is not one number from 1 to 5")
    return found[0] or None if found else None


def _outline(roi: Element) -> Outline:
    fields: dict[str, str] = {}
    numbers: list[str] = []
    for part in roi:
        if part.tag.endswith("edgeMap"):
            x, y = part
            if not (x.tag.endswith("xCoord") and y.tag.endswith("yCoord")):
                raise MalformedError("an edgeMap without xCoord and yCoord")
            numbers += (str(whole(x.text or "")), str(whole(y.text or "")))
        elif part.tag.endswith(POINTS_TAG):
            numbers += (part.text or "").split()
        else:
            fields[local_name(part.tag)] = _text(part)
    z_mm = number(fields.get("imageZposition", "nan"))
    inclusion = fields.get("inclusion", "").upper()
    if not math.isfinite(z_mm) or inclusion not in ("TRUE", "FALSE") or not numbers:
        raise MalformedError("a roi without imageZposition, inclusion or edgeMap")
    points = np.array([int(text) for text in numbers], dtype=np.int32).reshape(-1, 2)
    return Outline(fields.get("imageSOP_UID", ""), z_mm, inclusion == "TRUE", points)


def _notes(readings: Sequence[Reading], repeated: int) -> Iterator[Problem]:
    unrated = sum(reading.malignancy is None for reading in readings)
    if unrated:
        yield Problem(
            "W-LIDC-001",
            "readings without a malignancy rating",
            measured=f"{unrated} of {len(readings)}",
            action="They count for the outline and not for the rating",
        )
    if repeated:
        yield _duplicate_note(f"{repeated} repeated sessions")


def _duplicate_note(measured: str) -> Problem:
    return Problem(
        "W-LIDC-002", "repeated readings", measured, "each reader once", "The repetitions were dropped"
    )


def _content(readings: Iterable[Reading], reader_free: bool = False) -> object:
    """Return all that readings say, for comparison: equal outlines alone may be two readers who agree."""
    return tuple(
        (
            None if reader_free else reading.reader,
            reading.nodule_id,
            reading.malignancy,
            tuple((o.sop_uid, o.z_mm, o.inclusion, o.points_xy.tobytes()) for o in reading.outlines),
        )
        for reading in readings
    )


def _text(element: Element) -> str:
    return (element.text or "").strip()


def _children(element: Element, name: str) -> Iterator[Element]:
    return (child for child in element if local_name(child.tag) == name)

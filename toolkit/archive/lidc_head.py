"""What the first bytes of an XML file tell: whether it is an LIDC reading of a CT, and of which series."""

from pathlib import Path
from xml.parsers import expat

from toolkit.errors import InputError, Problem

CT_ROOT = "LidcReadMessage"  # IdriReadMessage is a reading of a projection x-ray
_HEAD_BYTES = 64 << 10  # the headers of the 1,318 published files end within 2 kB


class MalformedError(ValueError):
    """An annotation file is not what it claims to be; the message quotes nothing of it."""


def sniff_lidc(path: Path) -> str | None:
    """Return the series UID of an LIDC reading of a CT, or None where the file is anything else.

    Reads no further than the header. A projection x-ray reading is None. Raises `InputError`
    E-FILE-005 where the system refuses the file.
    """
    try:
        with path.open("rb") as file:
            head = _Head()
            left = _HEAD_BYTES
            while left > 0 and not head.done and (chunk := file.read(min(left, 4096))):
                left -= len(chunk)
                head.feed(chunk)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(Problem("E-FILE-005", "cannot read a file", reason, files=(str(path),))) from error
    return head.series_uid or None


def refuse_doctype(data: bytes) -> None:
    """Refuse a document type declaration: without one XML has no entities to expand or fetch.

    It can stand before the root element only, so the parser looks no further than that. The tree is
    then built by the same parser in C; defusedxml checks every element in Python and takes twice as
    long. Raises `MalformedError`, or ExpatError where the head is not XML.
    """

    def doctype(*_: object) -> None:
        raise MalformedError("document type declaration")

    def start(*_: object) -> None:
        raise StopIteration

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = doctype
    parser.StartElementHandler = start
    try:
        parser.Parse(data, True)
    except StopIteration:
        return


def local_name(tag: str) -> str:
    """Return the name of an element without its namespace, which differs between files."""
    return tag.rpartition("}")[2]


class _Head:
    """Looks for root and series UID in the first bytes; `done` when there is nothing more to learn."""

    def __init__(self) -> None:
        self.done = False
        self.series_uid = ""
        self._root = ""
        self._text: list[str] = []
        self._parser = parser = expat.ParserCreate(namespace_separator="}")
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text.append

    def feed(self, chunk: bytes) -> None:
        try:
            self._parser.Parse(chunk, False)
        except (expat.ExpatError, ValueError, LookupError):  # not XML, or an unknown encoding
            self.done = True

    def _doctype(self, *_: object) -> None:
        raise MalformedError("document type declaration")

    def _start(self, tag: str, _: object) -> None:
        self._text.clear()
        self._root = self._root or local_name(tag)
        self.done = self.done or self._root != CT_ROOT or local_name(tag) == "readingSession"

    def _end(self, tag: str) -> None:
        if not self.done and local_name(tag).lower() == "seriesinstanceuid":
            self.series_uid = "".join(self._text).strip()
            self.done = True

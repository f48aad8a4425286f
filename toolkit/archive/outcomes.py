"""What became of every file of an archive: no file goes without a word."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from toolkit.archive.case import Case
from toolkit.archive.dicom_series import SeriesFiles
from toolkit.archive.discover import Discovery
from toolkit.errors import Problem

Outcome = Literal["read", "noted", "refused", "ignored"]


class FileOutcome(NamedTuple):
    """One file: `why` is a message of its own or that of its case; `code` is empty where all is well."""

    file: str
    outcome: Outcome
    code: str
    why: str


@dataclass(frozen=True)
class UnreadFiles:
    """The outcomes of the files that were not simply read; made anew whenever they are gone through.

    A note on a scan is one on each of its slices, so there may be as many as files.
    """

    found: Discovery
    failures: Mapping[str, Problem] = field(default_factory=dict)

    def __iter__(self) -> Iterator[FileOutcome]:
        return (o for o in outcomes(self.found, self.failures) if o.outcome != "read")


def outcomes(found: Discovery, failures: Mapping[str, Problem] | None = None) -> Iterator[FileOutcome]:
    """Yield the outcome of every file, cases first; `failures` are refusals by case id, found later."""
    for case in found.cases:
        problem = (failures or {}).get(case.case_id, case.problem)
        for path in case_files(case):
            if problem is not None:
                yield FileOutcome(path, "refused", problem.code, problem.public)
                continue
            notes = [note for note in case.notes if path in note.files or not note.files]
            if notes:
                why = " ".join(note.public for note in notes)
                yield FileOutcome(path, "noted", notes[0].code, why)
            else:
                yield FileOutcome(path, "read", "", "")
    for problem in found.refused:
        for path in problem.files:
            yield FileOutcome(path, "refused", problem.code, problem.public)
    for what, paths in found.ignored.items():
        for path in paths:
            yield FileOutcome(path, "ignored", "", what)


def case_files(case: Case) -> list[str]:
    """Return the files of a case: its slices or its volume, and its masks."""
    if isinstance(case.unopened, SeriesFiles):
        images = [file.path for file in case.unopened.files]
    else:
        images = [case.image]
    return images + [mask.path for mask in case.masks]

"""The one small tree of errors, and the stable codes a refusal can carry.

ToolkitError
    UsageError        the command line or a manifest asks for something impossible (exit 2)
    NothingFoundError the archive holds no case (exit 3)
    InputError        one case or file cannot be trusted; the others go on
    StoreError        the store is damaged, foreign, or made with other settings (exit 2)
    ResourceError     the machine ran out of something; rerun to resume (exit 75)

A message says what was measured, what was expected, what was done and which flag changes it.
File names live in ``Problem.files`` alone: they go to the terminal, never into a store.
"""

from dataclasses import dataclass

CODES = {
    "E-CSV-001": "the manifest cannot be read as a table",
    "E-CSV-002": "the manifest has wrong columns",
    "E-CSV-003": "a manifest value is wrong",
    "E-CSV-004": "manifest rows contradict each other",
    "E-CSV-005": "labels contradict each other",
    "E-FILE-001": "a file is missing",
    "E-FILE-002": "a file is cut short",
    "E-FILE-003": "a file cannot be read as what it claims to be",
    "E-FILE-004": "a file lies outside its archive",
    "E-FILE-005": "the system refused to read a file",
    "E-FILE-006": "a file changed while it was used",
    "E-DCM-002": "a header lacks what geometry or HU need",
    "E-DCM-003": "the transfer syntax cannot be decoded here",
    "E-DCM-004": "slices of one series contradict each other",
    "E-DCM-005": "multi-frame CT is not supported",
    "E-DCM-006": "pixel data is missing or has an unsupported layout",
    "E-GEO-001": "too few slices for a volume",
    "E-GEO-002": "two different slices at one position",
    "E-GEO-003": "missing slices",
    "E-GEO-004": "uneven slice spacing",
    "E-GEO-005": "slices do not lie on one straight line",
    "E-GEO-006": "image orientation is not a rotation",
    "E-GEO-007": "the two orientations of a NIfTI header disagree",
    "E-GEO-008": "no orientation in the header",
    "E-GEO-009": "crop voxels are too coarse for the scan",
    "E-HU-001": "no rescale to Hounsfield units",
    "E-HU-002": "values are not Hounsfield units",
    "E-VOL-001": "not a three-dimensional scalar volume",
    "E-VOL-002": "an encoding or type that is not supported",
    "E-VOL-003": "a header declares more data than is allowed",
    "E-MASK-001": "mask and image do not share one grid",
    "E-MASK-002": "a mask has no image",
    "E-MASK-003": "mask values are not labels",
    "E-LIDC-001": "the annotation file cannot be read",
    "E-LIDC-002": "an outline lies on a slice that the series does not have",
    "E-LIDC-003": "an outline leaves the image",
    "E-LIDC-004": "annotation files of one series contradict each other",
    "E-LUNA-001": "a table of positions has a wrong line",
    "E-REG-001": "a nodule lies outside the scan",
    "E-CASE-001": "a planned case is no longer in the archive",
    "E-CASE-002": "the worker process died on this case",
    "E-CASE-003": "an unexpected error on this case",
    "E-CASE-004": "the archive holds no case",
    "E-MASK-004": "two mask files mark the same voxels",
    "E-STORE-001": "not a nodule store",
    "E-STORE-002": "the store was made with other settings",
    "E-STORE-003": "a store file is damaged or missing",
    "E-STORE-004": "another process is writing this shard",
    "E-STORE-005": "the store already exists",
    "E-OUT-001": "the output folder is not empty",
    "E-STORE-006": "a planned shard is not committed yet",
    "E-STORE-007": "the store was made with another id key",
    "E-KEY-001": "the id key cannot be used",
    "E-DISK-001": "writing failed",
    "E-DEV-001": "no usable GPU",
    "E-AUG-001": "an augmentation setting is wrong",
    "E-AUG-002": "an augmentation setting is unknown",
    "E-AUG-003": "the patch is larger than the stored crop",
    "E-AUG-004": "a mask mode on nodules without a mask",
    "E-LOAD-001": "a loader setting is wrong",
    "E-LOAD-021": "DALI is not installed",
    "E-LOAD-022": "DALI has no such operation",
    "W-CSV-001": "labels that match no nodule were left out",
    "W-DCM-001": "an identical copy of a slice was dropped",
    "W-GEO-001": "uneven slice positions are sampled where they are",
    "W-GEO-002": "no position or orientation in the header; origin zero and LPS axes are taken",
    "W-LIDC-001": "a reading without a malignancy rating was left out of the mean",
    "W-LIDC-002": "a duplicate reading session was dropped",
    "W-LIDC-003": "a reading whose outlines enclose no voxel was left out",
    "W-MASK-001": "components below the minimum diameter were dropped",
}


@dataclass(frozen=True)
class Problem:
    """What went wrong, in the parts a person and a program need.

    Attributes
    ----------
    code
        A key of `CODES`. ``E-`` refuses, ``W-`` is a note on something that was read.
    what
        Short name of the problem. No file name, no identifier.
    measured, expected
        The numbers, with units. No file name, no identifier.
    action
        What was done, and which flag changes it.
    files
        The files concerned; shown on the terminal only.
    transient
        True where a rerun may succeed with the same files (a full disk, a killed worker).
    """

    code: str
    what: str
    measured: str = ""
    expected: str = ""
    action: str = ""
    files: tuple[str, ...] = ()
    transient: bool = False

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise KeyError(f"unregistered problem code {self.code}")

    @property
    def public(self) -> str:
        """The message without file names, safe for a store."""
        numbers = ", ".join(
            part for part in (self.measured, self.expected and f"{self.expected} expected") if part
        )
        head = f"{self.what}: {numbers}" if numbers else self.what
        return ". ".join(part.rstrip(".") for part in (head, self.action) if part) + "."

    def __str__(self) -> str:
        where = f" [{', '.join(self.files)}]" if self.files else ""
        return f"{self.code} {self.public}{where}"


class ToolkitError(Exception):
    """An error with a `Problem`; the base of all that this project raises on purpose."""

    exit_code = 1

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return str(self.problem)


class UsageError(ToolkitError):
    """The request itself is impossible."""

    exit_code = 2


class NothingFoundError(ToolkitError):
    """No case was found."""

    exit_code = 3


class InputError(ToolkitError):
    """One case or file cannot be trusted."""

    exit_code = 4


class StoreError(ToolkitError):
    """The store is damaged, foreign, or made with other settings."""

    exit_code = 2


class ResourceError(ToolkitError):
    """The machine ran out of something; what was committed stays, and a rerun resumes."""

    exit_code = 75

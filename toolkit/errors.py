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
    "E-DCM-005": "a multi-frame object that is not read",
    "E-DCM-006": "pixel data is missing or has an unsupported layout",
    "E-DCM-007": "pixels cannot be decoded",
    "E-DCM-008": "a file of a series cannot be read",
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
    "E-MASK-005": "a mask names several series of the archive",
    "E-MASK-006": "a mask does not hold a region that the manifest names",
    "E-SEG-001": "the segmentation cannot be read",
    "E-SEG-002": "the segmentation contradicts itself or lacks what placing its frames needs",
    "E-SEG-003": "a segmentation frame references an image that the series does not have",
    "E-SEG-004": "position and reference of a segmentation frame contradict each other",
    "E-SEG-005": "a segmentation frame lies on no slice of the scan",
    "E-SEG-006": "two frames of one segment lie on one slice",
    "E-RT-001": "the structure set cannot be read",
    "E-RT-002": "a contour lies on no slice of the scan",
    "E-RT-003": "a contour runs across slices",
    "E-RT-004": "a contour leaves the image",
    "E-RT-005": "position and reference of a contour contradict each other",
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
    "E-CASE-005": "a named series is not in the archive",
    "E-CASE-006": "a case needs more memory than a worker may take",
    "E-MASK-004": "two mask files mark the same voxels",
    "E-STORE-001": "not a nodule store",
    "E-STORE-002": "the store was made with other settings",
    "E-STORE-003": "a store file is damaged or missing",
    "E-STORE-004": "another process is writing this shard",
    "E-STORE-005": "the store already exists",
    "E-OUT-001": "the output folder is not empty",
    "E-STORE-006": "a planned shard is not committed yet",
    "E-STORE-008": "a link where a file of ours belongs",
    "E-STORE-007": "the store was made with another id key",
    "E-KEY-001": "the id key cannot be used",
    "E-DISK-001": "writing failed",
    "E-DASK-001": "Dask is not installed",
    "E-DASK-002": "no scheduler answers",
    "E-DASK-003": "workers run other code than the client",
    "E-DASK-004": "a worker does not see the archive or the store",
    "E-DASK-005": "the connection to the scheduler was lost",
    "E-DASK-006": "workers died on a shard, or could not do it",
    "E-DEV-001": "no usable GPU",
    "E-DEV-002": "a number type whose gradients are wrong on this device",
    "E-LOAD-010": "a sampler's setting is impossible",
    "E-LOAD-011": "too few nodules of a class for a batch",
    "E-SPLIT-001": "the split cannot be read",
    "E-SPLIT-002": "too few patients of a class for the split",
    "E-SPLIT-003": "the split and the store hold different nodules",
    "E-SPLIT-004": "a patient is on two sides of the split",
    "E-SPLIT-005": "crops of two sides show the same thing",
    "E-SPLIT-006": "the request for a split is impossible",
    "E-AUG-001": "an augmentation setting is wrong",
    "E-AUG-002": "an augmentation setting is unknown",
    "E-AUG-003": "the patch is larger than the stored crop",
    "E-AUG-004": "a mask mode on nodules without a mask",
    "E-LOAD-001": "a loader setting is wrong",
    "E-LOAD-021": "DALI is not installed",
    "E-LOAD-022": "DALI has no such operation",
    "E-CONF-001": "a setting of the configuration is wrong",
    "E-CONF-002": "settings contradict each other",
    "E-CONF-003": "classes are balanced twice",
    "E-MODEL-001": "the model cannot be built",
    "E-MODEL-002": "the model folder cannot be read",
    "E-MODEL-003": "weights do not fit the model",
    "E-MODEL-004": "a measured feature is unknown",
    "E-MODEL-005": "a model folder asks for code or weights from elsewhere",
    "E-MODEL-006": "the network has no feature map to explain",
    "E-TRAIN-001": "labels are missing or one class only",
    "E-TRAIN-002": "a label lies outside [0, 1]",
    "E-TRAIN-003": "the run folder holds another run",
    "E-TRAIN-004": "the loss is not a number",
    "E-TRAIN-005": "too few nodules to validate on",
    "E-CKPT-001": "the checkpoint cannot be read",
    "E-CKPT-002": "the checkpoint is of another model or configuration",
    "E-EVAL-001": "too few nodules of a class to evaluate",
    "E-EVAL-002": "predictions cannot be read",
    "E-EVAL-003": "there is no test side",
    "E-EVAL-004": "the evaluation cannot be read",
    "E-PRED-001": "the model was made for another store",
    "E-PRED-002": "the model needs what the nodules do not have",
    "E-PRED-003": "there is no nodule to predict",
    "E-PRED-004": "the request for a prediction is impossible",
    "E-PRED-005": "original names are not known",
    "E-RUN-001": "no such run",
    "E-BENCH-001": "a stage gives wrong numbers, so no speed is shown",
    "E-BENCH-002": "a record of figures cannot be read",
    "E-BENCH-003": "two records have no figure in common",
    "E-BENCH-004": "nothing was measured that settings could follow from",
    "E-BENCH-005": "a commit cannot be measured",
    "E-WANDB-001": "wandb is not installed",
    "E-WANDB-002": "wandb cannot start",
    "W-CSV-001": "labels that match no nodule were left out",
    "W-DCM-001": "an identical copy of a slice was dropped",
    "W-DCM-002": "pixels went through lossy compression",
    "W-DCM-003": "a header counts more slices than there are",
    "W-DCM-004": "derived images are read",
    "W-DCM-005": "a series holds several volumes and was split",
    "W-DCM-006": "a file beside the series cannot be read",
    "W-DCM-007": "other series show the same part of the patient",
    "W-HU-001": "the rescale differs between slices",
    "W-HU-002": "values lie below -1024 HU and no padding value is named",
    "W-HU-010": "values do not look like Hounsfield units",
    "W-GEO-001": "uneven slice positions are sampled where they are",
    "W-GEO-002": "no position or orientation in the header; origin zero and LPS axes are taken",
    "W-LIDC-001": "a reading without a malignancy rating was left out of the mean",
    "W-LIDC-002": "a duplicate reading session was dropped",
    "W-LIDC-003": "a reading whose outlines enclose no voxel was left out",
    "W-MASK-001": "components below the minimum diameter were dropped",
    "W-MASK-002": "regions that are no nodules were skipped",
    "W-MASK-003": "a region of several parts is taken as one nodule",
    "W-SEG-001": "a fractional segmentation was cut at half of its maximum",
    "W-SEG-002": "segments without a voxel were left out",
    "W-RT-001": "open contours and points were skipped",
    "W-RT-002": "a region has no contour on some slices between its first and last",
    "W-RT-003": "the area of a region is not that of its contours",
    "W-RT-004": "regions that enclose no voxel were left out",
    "W-RT-005": "identical copies of contours were dropped",
    "W-PRED-001": "a nodule lies outside what the model saw",
    "W-PRED-002": "a nodule is of a kind that the model saw rarely",
    "W-PRED-003": "a measured feature is missing and its typical value stands in",
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
        action = self.action[:1].upper() + self.action[1:]
        return _encodable(". ".join(part.rstrip(".") for part in (head, action) if part) + ".")

    def __str__(self) -> str:
        where = f" [{', '.join(self.files)}]" if self.files else ""
        return f"{self.code} {self.public}{_encodable(where)}"


def _encodable(text: str) -> str:
    """Return a text that every file and terminal takes: names and headers may hold half of a character."""
    return text.encode(errors="backslashreplace").decode()


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

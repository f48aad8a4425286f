"""What an archive holds: a case is a patient, a lazy volume and the regions somebody marked in it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from toolkit.archive.dicom_fields import SliceFile
from toolkit.archive.geometry import Box, Geometry
from toolkit.archive.hu import Tally
from toolkit.archive.region_rule import NamedRegion
from toolkit.errors import InputError, Problem

MaskSource = Literal["reader", "consensus", "volume", "none"]
MaskKind = Literal["labels", "lidc", "seg", "rtstruct", "series"]


class VolumeSource(Protocol):
    """A scan on disk. Picklable; opening it costs headers only, and those are already read."""

    @property
    def geometry(self) -> Geometry:
        """Canonical geometry: index axes run most nearly towards head, back and left."""

    def read_boxes(self, boxes: Sequence[Box], tally: Tally | None = None) -> list[NDArray[np.int16]]:
        """Read HU of several canonical boxes in one pass, decoding no more than they need.

        Padding is -1024 and values are clipped to [-1024, 3071]; `tally` counts what that hides. Boxes
        must lie inside the volume.
        Raises `InputError` where the pixels cannot be trusted.
        """


class LabelSource(Protocol):
    """A label volume on disk, on the grid of its image once `geometry` has been checked."""

    @property
    def geometry(self) -> Geometry:
        """Canonical geometry."""

    def read_boxes(self, boxes: Sequence[Box]) -> list[NDArray[np.integer]]:
        """Read labels of several canonical boxes in one pass."""

    def regions(self) -> Iterator[tuple[Box, NDArray[np.integer]]]:
        """Yield disjoint canonical boxes, with their labels, that hold every label above 0.

        One pass in any order, with bounded memory.
        """


class Unopened(Protocol):
    """A scan whose headers are known and not yet judged."""

    def open(self) -> tuple[VolumeSource, tuple[Problem, ...]]:
        """Return the scan and notes on it; raises `InputError` where it cannot be trusted."""


@dataclass(frozen=True, eq=False)
class Finding:
    """One nodule, measured on the grid of its scan.

    Attributes
    ----------
    name
        Identifier within the case, as the archive has it; empty where it has none.
    center_lps_mm
        Centre of mass of the mask, or the marked point.
    diameter_mm
        Diameter of the sphere of the mask's volume, or the stated diameter of a point, if any.
    volume_mm3
        Volume of the mask; None for a point.
    label
        Malignancy in [0, 1]; None where unknown or indeterminate.
    rating
        Mean malignancy rating of the readers, 1 to 5; None where there is none.
    readers
        How many readers outlined it; 0 where that is unknown.
    box, mask
        Canonical box around the mask, and the uint8 0/1 mask inside it; None for a point.
    """

    name: str
    center_lps_mm: tuple[float, float, float]
    diameter_mm: float | None
    mask_source: MaskSource
    volume_mm3: float | None = None
    label: float | None = None
    rating: float | None = None
    readers: int = 0
    box: Box | None = None
    mask: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Point:
    """A marked position without a mask (LPS mm); the diameter is None where nobody measured it."""

    name: str
    center_lps_mm: tuple[float, float, float]
    diameter_mm: float | None
    label: float | None = None


@dataclass(frozen=True)
class ToldLabel:
    """What a line of a table of labels says of a case, or of one nodule in it by name or position.

    Attributes
    ----------
    value
        Malignancy in [0, 1].
    nodule_id, center_lps_mm
        The nodule; neither speaks of all nodules of the case.
    diameter_mm
        Of the nodule at the position, as told.
    line
        Of the table, for messages.
    """

    value: float
    nodule_id: str = ""
    center_lps_mm: tuple[float, float, float] | None = None
    diameter_mm: float | None = None
    line: int = 0

    @property
    def whole_case(self) -> bool:
        """True where the line names no nodule."""
        return not self.nodule_id and self.center_lps_mm is None


@dataclass(frozen=True)
class MaskFile:
    """A label volume, an annotation file or a DICOM mask object that belongs to the scan.

    Attributes
    ----------
    kind
        ``labels`` (MHD, NRRD, NIfTI), ``lidc`` (LIDC XML), ``seg`` (DICOM Segmentation), ``rtstruct``
        or ``series`` (labels saved as a CT series).
    names, labels
        What a manifest says of its nodules, by label value (or component number of a binary mask),
        SegmentNumber or ROINumber; key 0 speaks for every nodule that has no key of its own.
    regions
        What a DICOM mask object says that it holds.
    slices
        The files of a series.
    """

    path: str
    kind: MaskKind
    names: Mapping[int, str] = field(default_factory=dict)
    labels: Mapping[int, float] = field(default_factory=dict)
    regions: tuple[NamedRegion, ...] = ()
    slices: Sequence[SliceFile] = ()


@dataclass(frozen=True)
class Case:
    """One scan of one patient with its regions, or the reason why it cannot be used.

    Attributes
    ----------
    case_id, patient_id
        As the archive or the manifest has them; never written into a store.
    image
        The file or folder, for people.
    source
        The lazy volume; None where `problem` says why, or before `opened`.
    digest
        Hex digest of header bytes and file sizes of image and masks.
    told
        Labels out of a table of labels.
    split
        As the manifest has it; empty where it has none.
    unopened
        The scan as found: judging a series takes milliseconds, which workers can share.
    """

    case_id: str
    patient_id: str
    image: str
    source: VolumeSource | None
    masks: tuple[MaskFile, ...] = ()
    points: tuple[Point, ...] = ()
    told: tuple[ToldLabel, ...] = ()
    digest: str = ""
    split: str = ""
    notes: tuple[Problem, ...] = ()
    problem: Problem | None = None
    unopened: Unopened | None = None


def opened(case: Case) -> Case:
    """Return the case with its scan judged: a source and notes, or the problem."""
    if case.unopened is None or case.source is not None or case.problem is not None:
        return case
    try:
        source, notes = case.unopened.open()
    except InputError as error:
        return replace(case, problem=error.problem)
    return replace(case, source=source, notes=(*case.notes, *notes))

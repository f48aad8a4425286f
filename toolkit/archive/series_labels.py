"""A mask that somebody saved as a CT series, where a manifest says so; a `LabelSource`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from toolkit.archive.dicom_fields import SliceFile
from toolkit.archive.dicom_pixels import HuRule, read_rows
from toolkit.archive.dicom_series import DicomSeries, SeriesRules, build_series
from toolkit.archive.files import refusal
from toolkit.archive.geometry import Box, Geometry
from toolkit.archive.hu import stored_values
from toolkit.archive.volume import inverse, occupied
from toolkit.errors import InputError


@dataclass(frozen=True, eq=False)
class SeriesLabels:
    """Labels of a series: its rescaled values where none is negative, else its stored ones.

    Some programs keep the rescale of the scan that a mask was made of, and some write 0 and 1 (or 255)
    beside it, so that the background would be -1024.
    """

    series: DicomSeries
    path: str

    @property
    def geometry(self) -> Geometry:
        """Canonical geometry."""
        return self.series.geometry

    def read_boxes(self, boxes: Sequence[Box]) -> list[NDArray[np.integer]]:
        """Read labels of several canonical boxes in one pass."""
        found = [np.zeros(box.shape_zyx, np.int64) for box in boxes]
        for part, labels in self.regions():
            for box, out in zip(boxes, found, strict=True):
                common = box.intersect(part)
                if not common.empty:
                    into, of = (common.shift(tuple(-v for v in b.start_zyx)) for b in (box, part))  # type: ignore[arg-type]
                    out[into.slices] = labels[of.slices]
        return list(found)

    def regions(self) -> Iterator[tuple[Box, NDArray[np.integer]]]:
        """Yield disjoint canonical boxes, with their labels, that hold every label above 0.

        Two passes over the slices, one at a time. Raises `InputError` E-MASK-003 where neither rescaled
        nor stored values are labels, and reading's own.
        """
        tables = self._tables()
        back = inverse(self.series.reorientation)
        for k, (file, rule) in enumerate(zip(self.series.files, self.series.rules, strict=True)):
            labels = tables[rule][_patterns(file)][None]
            for box in occupied(labels):
                native = Box((k, *box.start_zyx[1:]), (k + 1, *box.stop_zyx[1:]))
                array = self.series.reorientation.array(labels[box.slices])
                yield back.box(native, self.geometry.shape_zyx), np.array(array, order="C")

    def _tables(self) -> dict[HuRule, NDArray[np.int64]]:
        """Return the label of every pattern, by the rule of the slices that it holds for."""
        used: dict[HuRule, NDArray[np.int64]] = {}
        for file, rule in zip(self.series.files, self.series.rules, strict=True):
            times = np.bincount(_patterns(file).ravel(), minlength=1 << rule.bits_allocated)
            used[rule] = used.get(rule, 0) + times
        stored = {rule: stored_values(*rule.cell) for rule in used}
        rescaled = {rule: values * rule.slope + rule.intercept for rule, values in stored.items()}
        for tables in (rescaled, stored):
            if all(_are_labels(table[used[rule] > 0]) for rule, table in tables.items()):
                return {
                    rule: np.rint(np.maximum(table, 0)).astype(np.int64) for rule, table in tables.items()
                }
        measured = "negative or broken values, rescaled as well as stored"
        raise refusal(
            "E-MASK-003", "mask values are not labels", measured, "whole numbers from 0", path=self.path
        )


def _are_labels(values: NDArray[np.floating] | NDArray[np.integer]) -> bool:
    return bool((values >= 0).all() and (np.rint(values) == values).all())


def _patterns(file: SliceFile) -> NDArray[np.unsignedinteger]:
    rows = int(file.header.rows or 0)
    return read_rows(file.path, file.size, file.mtime_ns, file.header, 0, rows)


def open_series_labels(files: Sequence[SliceFile], path: str) -> SeriesLabels:
    """Return the label volume of a series; a mask needs no rescale, and its padding is a label.

    Raises `InputError` E-DCM-* and E-GEO-* as a scan does.
    """
    bare = [
        file._replace(
            header=file.header._replace(
                slope=1.0 if file.header.slope is None else file.header.slope,
                intercept=0.0 if file.header.intercept is None else file.header.intercept,
                rescale_type="",
                padding=None,
                padding_limit=None,
            )
        )
        for file in files
    ]
    try:
        return SeriesLabels(build_series(bare, SeriesRules(allow_uneven=True))[0], path)
    except InputError as error:
        raise InputError(replace(error.problem, action="The mask is refused")) from error

"""From folders of files to cases: series by UID, volumes by name, and with each what belongs to it."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.archive.case import Case, MaskFile
from toolkit.archive.cases import series_case
from toolkit.archive.dicom_series import SeriesRules
from toolkit.archive.entries import FileEntry, ScannedFolder
from toolkit.archive.joins import join_objects, positions, volume_cases, with_positions
from toolkit.archive.names import LUNG_MASK_FOLDERS, volume_suffix
from toolkit.archive.scan import problem
from toolkit.archive.series import all_series
from toolkit.archive.slices import SLICE_KINDS, Slices
from toolkit.errors import Problem


@dataclass(frozen=True)
class Discovery:
    """What was found in an archive.

    Attributes
    ----------
    cases
        Sorted by case id; those with a `problem` cannot be used.
    refused
        Files that claim to be images or masks but belong to no case, each with its reason.
    ignored
        The files that are something else, by what they are.
    """

    cases: tuple[Case, ...]
    refused: tuple[Problem, ...] = ()
    ignored: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def discover(root: Path, folders: Iterable[tuple[str, ScannedFolder]], rules: SeriesRules) -> Discovery:
    """Make cases of the scanned folders of an archive; the order in which they come means nothing.

    A DICOM series is one case (its files may lie in several folders); LIDC XML joins it by series UID,
    DICOM Segmentation and RT Structure Set by the series or the images that they reference. A volume
    file is one case; masks join it by name: ``scan_mask``, ``scan_seg``, ``scan_label`` beside ``scan``,
    ``mask`` beside ``image`` in a folder of their own, or ``labelsTr/scan`` beside ``imagesTr/scan_0000``.
    LUNA16's ``annotations.csv`` gives points to scans that have no mask, by series UID or file name;
    where an archive has none, the nodules of its ``candidates.csv`` do.
    """
    refused: list[Problem] = []
    ignored: dict[str, list[str]] = defaultdict(list)
    slices = Slices()
    readings: dict[str, list[tuple[MaskFile, str]]] = defaultdict(list)
    objects: list[tuple[Path, FileEntry]] = []
    volumes: dict[Path, FileEntry] = {}
    tables: dict[str, list[tuple[str, FileEntry]]] = {"annotations": [], "candidates": []}
    for folder, scanned in folders:
        slices.add_folder(folder, scanned)
        of_lungs = os.path.basename(folder).lower() in LUNG_MASK_FOLDERS  # noqa: PTH119
        for entry in scanned.entries:
            if entry.kind in SLICE_KINDS:
                continue
            path = os.path.join(folder, entry.name)  # noqa: PTH118
            if entry.kind == "lidc":
                readings[entry.facts[0]].append((MaskFile(path, "lidc"), entry.facts[1]))
            elif entry.kind in ("seg", "rtstruct"):
                objects.append((Path(path), entry))
            elif entry.kind in tables:
                tables[entry.kind].append((path, entry))
            elif of_lungs and volume_suffix(entry.name):
                ignored["lung masks"].append(path)
            elif entry.kind == "volume" or (entry.kind == "bad" and volume_suffix(entry.name)):
                volumes[Path(path)] = entry
            elif entry.kind == "bad":
                refused.append(problem(entry.facts))
            else:
                ignored["other files"].append(path)
    volumes = dict(sorted(volumes.items()))
    _drop_data_files(volumes, ignored)
    found, unread = all_series(slices, rules)
    refused += unread
    for path, what in slices.other:
        if path not in ignored[what][-1:]:  # of a multi-frame file, every frame
            ignored[what].append(path)
    ignored["LIDC readings of absent series"] = [
        mask.path for uid, files in readings.items() if uid not in slices.by_uid for mask, _ in files
    ]
    for uid, mask, digest in join_objects(objects, slices, refused):
        readings[uid].append((mask, digest))
    cases = [series_case(series, readings.get(series.uid, ()), rules) for series in found]
    cases += volume_cases(root, volumes, refused)
    cases = _with_tables(cases, tables, ignored)
    plain = {what: tuple(sorted(paths)) for what, paths in sorted(ignored.items()) if paths}
    return Discovery(tuple(sorted(cases, key=lambda case: case.case_id)), tuple(refused), plain)


def _with_tables(
    cases: list[Case], tables: Mapping[str, list[tuple[str, FileEntry]]], ignored: dict[str, list[str]]
) -> list[Case]:
    """Give cases the positions of LUNA16's tables: annotations, or candidates where there are none."""
    rows = positions(tables["annotations"] or tables["candidates"])
    if tables["annotations"]:
        for path, _ in tables["candidates"]:
            ignored["candidates beside annotations (they have no diameter and no malignancy)"].append(path)
    return [with_positions(case, rows) for case in cases]


def _drop_data_files(volumes: Mapping[Path, FileEntry], ignored: dict[str, list[str]]) -> None:
    """Take out of the other files those that hold the voxels of a header beside them."""
    data = {entry.facts["stored"]["path"] for entry in volumes.values() if entry.kind == "volume"}
    ignored["other files"] = [path for path in ignored["other files"] if path not in data]

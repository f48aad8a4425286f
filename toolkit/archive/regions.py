"""From a case's masks, readings and points to findings on the grid of its scan."""

from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np

from toolkit.archive.case import Case, Finding, MaskFile, VolumeSource
from toolkit.archive.consensus import ConsensusNodule, consensus_nodules
from toolkit.archive.dicom_series import DicomSeries
from toolkit.archive.geometry import Box, Geometry
from toolkit.archive.labels import with_labels
from toolkit.archive.lidc import combine_reads, read_lidc
from toolkit.archive.masks import find_nodules, nodule_name, sphere_diameter_mm
from toolkit.archive.object_masks import object_nodules
from toolkit.archive.reader_mask import SliceFrame
from toolkit.archive.region_rule import RegionRule
from toolkit.archive.series_labels import open_series_labels
from toolkit.archive.volume import open_labels
from toolkit.errors import InputError, Problem


def find(
    case: Case, source: VolumeSource, min_diameter_mm: float, rule: RegionRule | None = None
) -> tuple[list[Finding], list[Problem]]:
    """Return all nodules of a case in a fixed order, and notes.

    Label volumes are scanned once, components of a binary one below `min_diameter_mm` (diameter of
    the equal-volume sphere) are dropped and counted. Of segmentations and structure sets the regions
    that `rule` takes (by default the built-in one) are nodules. Raises `InputError` E-MASK-*, E-LIDC-*,
    E-SEG-*, E-RT-*, E-FILE-* where a region cannot be trusted and E-REG-001 where one lies outside.
    """
    findings: list[Finding] = []
    notes: list[Problem] = []
    for files, mask in enumerate(case.masks):
        if mask.kind == "lidc":
            continue
        if mask.kind in ("labels", "series"):
            labels = open_series_labels(mask.slices, mask.path) if mask.slices else open_labels(mask.path)
            found, said = find_nodules(labels, source.geometry, mask, min_diameter_mm)
        else:
            found, said = object_nodules(mask, source, min_diameter_mm, rule or RegionRule())
        if files > 0 and not mask.names:  # every file counts from 1
            found = [replace(finding, name=f"{files + 1}-{finding.name}") for finding in found]
        _check_apart(found, findings, case.masks)
        findings += found
        notes += said
    lidc = [mask for mask in case.masks if mask.kind == "lidc"]
    if lidc:
        found, said = _read_lidc(lidc, source)
        _check_apart(found, findings, case.masks)
        findings += found
        notes += said
    findings += [Finding(p.name, p.center_lps_mm, p.diameter_mm, "none", label=p.label) for p in case.points]
    for finding in findings:
        _check_inside(finding, source.geometry)
    findings, said = with_labels(case, _with_names(findings), source.geometry)
    return findings, [*notes, *said]


def _with_names(findings: list[Finding]) -> list[Finding]:
    """Keep a name where it comes first; nodules without one get the first number from theirs that is free."""
    taken = {finding.name for finding in findings}
    used: set[str] = set()
    named = []
    for k, finding in enumerate(findings, start=1):
        name = finding.name
        if not name or name in used:
            name = next(str(n) for n in count(k) if str(n) not in taken)
            taken.add(name)
        used.add(name)
        named.append(replace(finding, name=name))
    return named


def _check_apart(found: list[Finding], before: list[Finding], masks: tuple[MaskFile, ...]) -> None:
    """Refuse nodules that share voxels with those of another file: one would be counted twice."""
    for a in found:
        for b in before:
            if a.box is None or b.box is None or a.mask is None or b.mask is None:
                continue
            common = a.box.intersect(b.box)
            if common.empty:
                continue
            inside = [
                f.mask[common.shift(tuple(-v for v in f.box.start_zyx)).slices]  # type: ignore[arg-type, union-attr, index]
                for f in (a, b)
            ]
            shared = int(np.count_nonzero(np.logical_and(*inside)))
            if shared:
                action = "Case skipped; name the wanted file in a manifest (--cases)"
                paths = tuple(mask.path for mask in masks)
                what = "mask files mark the same voxels"
                raise InputError(Problem("E-MASK-004", what, f"{shared} voxels", "0", action, paths))


def _read_lidc(masks: list[MaskFile], source: VolumeSource) -> tuple[list[Finding], list[Problem]]:
    paths = tuple(mask.path for mask in masks)
    if not isinstance(source, DicomSeries):
        action = "Case skipped; LIDC readings need the DICOM series that they were drawn on"
        raise InputError(Problem("E-LIDC-002", "readings without DICOM slices", action=action, files=paths))
    read = combine_reads([read_lidc(Path(path)) for path in paths])
    slices, rows, columns = source.native.shape_zyx
    frame = SliceFrame(
        rows=rows,
        columns=columns,
        slice_by_sop_uid=source.slice_by_sop_uid(),
        slice_z_mm=source.native.to_lps(np.column_stack([np.arange(slices), np.zeros((slices, 2))]))[:, 2],
        z_tolerance_mm=source.native.spacing_mm[0] / 2,
    )
    try:
        nodules, notes = consensus_nodules(read, frame)
    except InputError as error:
        raise InputError(replace(error.problem, files=paths)) from error
    findings = [_measure(nodule, source) for nodule in nodules]
    findings.sort(key=lambda f: f.box.start_zyx if f.box else (0, 0, 0))
    first, several = masks[0], len(findings) > 1
    return [
        replace(
            finding,
            name=nodule_name(first, k, several),
            label=first.labels.get(k, first.labels.get(0, finding.label)),
        )
        for k, finding in enumerate(findings, start=1)
    ], notes


def _measure(nodule: ConsensusNodule, source: DicomSeries) -> Finding:
    """Measure a consensus mask on the series it was drawn on."""
    inside = np.argwhere(nodule.mask)
    index = inside + np.array(nodule.start_zyx)
    thickness = source.native.slice_weights()[index[:, 0]]
    center = np.average(source.native.to_lps(index.astype(np.float64)), axis=0, weights=thickness)
    volume = float(thickness.sum() * source.native.voxel_mm3)
    box, mask = canonical_mask(nodule.start_zyx, nodule.mask, source)
    return Finding(
        name=nodule.name,
        center_lps_mm=(float(center[0]), float(center[1]), float(center[2])),
        diameter_mm=float(sphere_diameter_mm(np.array(volume))),
        mask_source=nodule.mask_source,
        volume_mm3=volume,
        label=nodule.label,
        rating=nodule.rating,
        readers=nodule.readers,
        box=box,
        mask=mask,
    )


def canonical_mask(
    start_zyx: tuple[int, int, int], mask: "np.ndarray", source: DicomSeries
) -> tuple[Box, "np.ndarray"]:
    """Return box and mask in canonical order of a mask in native order."""
    placed = np.asarray(source.reorientation.array(mask), np.uint8)
    start = []
    for axis, (native, flip) in enumerate(
        zip(source.reorientation.order, source.reorientation.flips, strict=True)
    ):
        begin, extent = start_zyx[native], mask.shape[native]
        start.append(source.geometry.shape_zyx[axis] - begin - extent if flip else begin)
    z, y, x = start
    stop = tuple(a + n for a, n in zip(start, placed.shape, strict=True))
    return Box((z, y, x), (stop[0], stop[1], stop[2])), np.ascontiguousarray(placed)


def _check_inside(finding: Finding, geometry: Geometry) -> None:
    """Refuse a nodule whose centre lies outside the scan: the coordinates are not this scan's."""
    if not geometry.contains(np.array(finding.center_lps_mm)):
        x, y, z = finding.center_lps_mm
        corners = geometry.corners_lps_mm()
        low, high = corners.min(axis=0), corners.max(axis=0)
        extent = " ".join(f"{n} {a:.0f}..{b:.0f}" for n, a, b in zip("xyz", low, high, strict=True))
        raise InputError(
            Problem(
                "E-REG-001",
                "nodule outside the scan",
                f"centre at x {x:.1f} y {y:.1f} z {z:.1f} mm (LPS)",
                extent,
                "Case skipped; positions must be LPS mm, a RAS position has x and y negated",
            )
        )

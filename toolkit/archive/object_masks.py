"""DICOM mask objects to findings: which regions are nodules, placed on the scan and measured there."""

from collections.abc import Iterable, Sequence

from toolkit.archive.case import Finding, MaskFile, VolumeSource
from toolkit.archive.dicom_seg import only, read_segmentation
from toolkit.archive.files import refusal
from toolkit.archive.image_grid import ImageGrid, image_grid
from toolkit.archive.mask_object import read_head
from toolkit.archive.masks import named_findings
from toolkit.archive.region_rule import NamedRegion, RegionRule
from toolkit.archive.rtstruct import draw_regions, read_regions
from toolkit.archive.runs import Runs
from toolkit.archive.seg_frames import segment_runs
from toolkit.archive.seg_place import place_frames
from toolkit.errors import Problem


def object_nodules(
    mask: MaskFile, source: VolumeSource, min_diameter_mm: float, rule: RegionRule
) -> tuple[list[Finding], list[Problem]]:
    """Find and measure the nodules of a DICOM Segmentation or an RT Structure Set.

    Every region that is taken is one nodule, whatever its size; a manifest that names regions by number
    takes those besides what the rule takes. Names of regions stay here: nodules are numbered as in the
    file.

    Returns
    -------
    findings, notes
        In order of number; W-MASK-002 where regions were skipped, W-MASK-003, W-SEG-* and W-RT-*.

    Raises
    ------
    InputError
        E-SEG-*, E-RT-*, E-MASK-001, E-MASK-006, E-DCM-003 and E-FILE-*.
    """
    grid = image_grid(source)
    if mask.kind == "seg":
        return _segments(mask, grid, min_diameter_mm, rule)
    regions = read_head("rtstruct", mask.path).regions
    wanted, skipped = _choose(regions, mask, rule)
    runs, notes = draw_regions(read_regions(mask.path, wanted), grid, mask.path)
    findings, said = named_findings(runs, grid.geometry, mask, "reader", min_diameter_mm)
    return findings, [*skipped, *notes, *said]


def _segments(
    mask: MaskFile, grid: ImageGrid, min_diameter_mm: float, rule: RegionRule
) -> tuple[list[Finding], list[Problem]]:
    whole = read_segmentation(mask.path)
    wanted, notes = _choose(whole.regions, mask, rule)
    seg = only(whole, wanted)
    runs: dict[int, Runs] = {}
    if wanted:
        places = place_frames(seg.frames, seg, grid, mask.path)
        runs = segment_runs(seg, places, wanted, grid.geometry.shape_zyx, mask.path)
    empty = len(wanted) - len(runs)
    if empty:
        measured = f"{empty} of {len(wanted)}"
        notes.append(Problem("W-SEG-002", "segments without a voxel", measured, "", "left out", (mask.path,)))
    if seg.kind == "FRACTIONAL" and runs:
        measured, action = f"maximum {seg.maximum}", "at least half of it counts as the nodule"
        notes.append(Problem("W-SEG-001", "fractional segmentation", measured, "", action, (mask.path,)))
    findings, said = named_findings(runs, grid.geometry, mask, "volume", min_diameter_mm)
    return findings, [*notes, *said]


def _choose(
    regions: Sequence[NamedRegion], mask: MaskFile, rule: RegionRule
) -> tuple[list[int], list[Problem]]:
    """Return the numbers of the regions that are nodules, and a note on the others."""
    named = ({*mask.names} | {*mask.labels}) - {0}
    missing = sorted(named - {region.number for region in regions})
    if missing:
        measured = _listed(missing)
        expected = f"numbers out of {_listed(sorted(region.number for region in regions)) or 'none'}"
        raise refusal("E-MASK-006", "no such region in the mask", measured, expected, path=mask.path)
    wanted = [region.number for region in regions if region.number in named or rule.takes(region)]
    skipped = len(regions) - len(wanted)
    if not skipped:
        return wanted, []
    what = "regions that do not match --region" if rule.pattern else "regions of anatomy or planning"
    action = "skipped; --region PATTERN chooses by name"
    measured = f"{skipped} of {len(regions)}"
    return wanted, [Problem("W-MASK-002", what, measured, "", action, (mask.path,))]


def _listed(numbers: Iterable[int]) -> str:
    found = list(numbers)
    return ", ".join(map(str, found[:8])) + (" ..." if len(found) > 8 else "")

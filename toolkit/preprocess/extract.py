"""One case: from files to crops. What a worker does, and what no other case can disturb."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kernels
from toolkit.archive.case import Case, Finding, VolumeSource, opened
from toolkit.archive.geometry import Box, Geometry
from toolkit.archive.hazards import count_boxes, judge
from toolkit.archive.hu import Tally
from toolkit.archive.regions import find
from toolkit.errors import InputError, Problem
from toolkit.preprocess.plan import Settings
from toolkit.store.format import Nodule, digest


@dataclass(frozen=True)
class Task:
    """A case to extract; `findings` are those of an earlier run, where the masks are unchanged."""

    case: Case
    settings: Settings
    findings: tuple[Finding, ...] | None = None
    notes: tuple[Problem, ...] = ()
    on_device: bool = False


@dataclass(frozen=True, eq=False)
class Extracted:
    """What became of a case.

    Attributes
    ----------
    problem
        Why it was refused; None where it is done or empty.
    findings, notes
        What was found in it, and what was noted while looking.
    scan_notes
        What was noted on the scan itself.
    images, masks
        int16 and uint8 (n, side, side, side); None while `bricks` still await the GPU.
    bricks
        The packed batch for the GPU; None on the CPU.
    facts
        One mapping a nodule: share of air in the source box, digests of source voxels and of crops.
    bytes_read
        Bytes of voxels that were decoded.
    seconds
        Time in the worker.
    """

    problem: Problem | None = None
    findings: tuple[Finding, ...] = ()
    notes: tuple[Problem, ...] = ()
    scan_notes: tuple[Problem, ...] = ()
    images: NDArray[np.int16] | None = None
    masks: NDArray[np.uint8] | None = None
    bricks: kernels.Bricks | None = None
    facts: tuple[dict[str, Any], ...] = ()
    bytes_read: int = 0
    seconds: float = 0.0
    scan: dict[str, Any] = field(default_factory=dict)


def extract_case(task: Task) -> Extracted:
    """Find the nodules of a case, read their boxes and make their crops.

    An `InputError` becomes the result's `problem`; nothing of a refused case is kept.
    """
    start = time.perf_counter()
    try:
        result = _extract(task)
    except InputError as error:
        result = Extracted(problem=error.problem)
    return replace(result, seconds=time.perf_counter() - start)


def _extract(task: Task) -> Extracted:
    case, settings = opened(task.case), task.settings
    if case.problem is not None or case.source is None:
        return Extracted(problem=case.problem)
    source = case.source
    findings, notes = task.findings, task.notes
    if findings is None:
        found, said = find(case, source, settings.min_diameter_mm, settings.regions)
        findings, notes = tuple(found), tuple(said)
    geometry = source.geometry
    scan = {"spacing_mm": [round(s, 6) for s in geometry.spacing_mm], "shape_zyx": list(geometry.shape_zyx)}
    if not findings:
        return Extracted(notes=notes, scan_notes=case.notes, scan=scan)
    bricks, facts, hazards = read_bricks(source, findings, settings)
    packed = kernels.pack(bricks, settings.side)
    result = Extracted(
        findings=findings,
        notes=notes,
        scan_notes=(*case.notes, *hazards),
        bricks=packed,
        facts=tuple(facts),
        bytes_read=packed.hu.nbytes,
        scan=scan,
    )
    return result if task.on_device else finish(result, settings, on_device=False)


def finish(result: Extracted, settings: Settings, *, on_device: bool) -> Extracted:
    """Run the kernels on a result's bricks, on the GPU where told, and return it with its crops."""
    if result.bricks is None:
        return result
    if on_device:
        image, occupancy = kernels.extract(kernels.to_device(result.bricks), settings.side)
        images, masks = image.get(), occupancy.get()
    else:
        images, masks = kernels.extract(result.bricks, settings.side)
    made = [{"image": digest(image), "mask": digest(mask)} for image, mask in zip(images, masks, strict=True)]
    facts = tuple({**fact, **crop} for fact, crop in zip(result.facts, made, strict=True))
    return replace(result, images=images, masks=masks, bricks=None, facts=facts)


def read_bricks(
    source: VolumeSource, findings: Sequence[Finding], settings: Settings
) -> tuple[list[kernels.Brick], list[dict[str, Any]], tuple[Problem, ...]]:
    """Read the source box of every nodule in one pass; say where it is to be sampled, and what is odd."""
    geometry = source.geometry
    targets = [target_grid(f.center_lps_mm, settings.spacing_mm, settings.side) for f in findings]
    matrices = [target_to_source(target, geometry) for target in targets]
    for matrix in matrices:
        _check_ratio(matrix, geometry, settings)
    boxes = [source_box(matrix, settings.side, geometry) for matrix in matrices]
    bricks, facts = [], []
    tally = Tally()
    read = source.read_boxes(boxes, tally)
    for finding, matrix, box, hu in zip(findings, matrices, boxes, read, strict=True):
        mask = None
        if finding.mask is not None and finding.box is not None:
            mask = _paste(finding.box, finding.mask, box)
        positions = None
        moved = matrix.copy()
        first = np.array(box.start_zyx, dtype=np.float64)
        if geometry.slice_positions is not None:
            chosen = np.array(geometry.slice_positions[box.start_zyx[0] : box.stop_zyx[0]])
            first[0] = chosen[0]
            positions = chosen - chosen[0]
        moved[:, 3] -= first
        bricks.append(kernels.Brick(hu, mask, moved, positions))
        air = float(np.count_nonzero(hu == -1024) / hu.size)
        facts.append({"air_share": round(air, 6), "pixels": digest(hu)})
    return bricks, facts, judge(count_boxes(read, tally.below))


def _check_ratio(matrix: NDArray[np.float64], geometry: Geometry, settings: Settings) -> None:
    """Refuse crops that are so much coarser than the scan that the filter would not fit its table."""
    ratio = np.linalg.norm(matrix[:, :3], axis=1)
    if geometry.slice_positions is not None:
        ratio[0] /= np.diff(geometry.slice_positions).min()
    if ratio.max() > 0.999 * kernels.MAX_HALF_WIDTH:
        measured = f"{settings.spacing_mm:g} mm is {ratio.max():.1f} source voxels"
        action = "Case skipped; use a smaller --spacing"
        expected = f"at most {kernels.MAX_HALF_WIDTH}"
        raise InputError(
            Problem("E-GEO-009", "crop voxels too coarse for this scan", measured, expected, action)
        )


def target_grid(center_lps_mm: Sequence[float], spacing_mm: float, side: int) -> NDArray[np.float64]:
    """Return the affine (4, 4) of a cube of `side` voxels about a point: index zyx to LPS mm.

    z runs to the head, y to the back, x to the left, whatever the scan's orientation.
    """
    affine = np.eye(4)
    affine[:3, :3] = np.fliplr(np.eye(3)) * spacing_mm
    affine[:3, 3] = np.asarray(center_lps_mm) - spacing_mm * (side - 1) / 2
    return affine


def target_to_source(target: NDArray[np.float64], geometry: Geometry) -> NDArray[np.float64]:
    """Return the matrix (3, 4) from target index zyx to nominal source index zyx."""
    matrix = np.empty((3, 4))
    matrix[:, :3] = np.linalg.solve(geometry.affine[:3, :3], target[:3, :3])
    matrix[:, 3] = np.linalg.solve(geometry.affine[:3, :3], target[:3, 3] - geometry.affine[:3, 3])
    return matrix


def source_box(matrix: NDArray[np.float64], side: int, geometry: Geometry) -> Box:
    """Return the voxels that a target cube can touch, with the filter's reach, inside the volume."""
    ends = matrix[:, :3] * (side - 1)
    low = matrix[:, 3] + np.minimum(ends, 0).sum(axis=1)
    high = matrix[:, 3] + np.maximum(ends, 0).sum(axis=1)
    norm = np.linalg.norm(matrix[:, :3], axis=1)
    if geometry.slice_positions is not None:
        positions = np.array(geometry.slice_positions)
        index = np.arange(len(positions))
        norm[0] /= np.diff(positions).min()  # the widest the filter can get, in slices
        low[0], high[0] = np.interp([low[0], high[0]], positions, index)
    reach = np.maximum(norm, 1.0) + 1e-3  # a little more than rounding in float32 can move a voxel
    start = np.clip(np.ceil(low - reach), 0, np.array(geometry.shape_zyx) - 1).astype(int)
    stop = np.clip(np.floor(high + reach) + 1, start + 1, geometry.shape_zyx).astype(int)
    if geometry.slice_positions is not None and stop[0] - start[0] < 2:
        start[0], stop[0] = max(0, start[0] - 1), min(geometry.shape_zyx[0], stop[0] + 1)
    return Box(tuple(map(int, start)), tuple(map(int, stop)))  # type: ignore[arg-type]


def _paste(box: Box, mask: NDArray[np.uint8], into: Box) -> NDArray[np.uint8]:
    """Return the part of a mask that lies in another box, zeros around it."""
    result = np.zeros(into.shape_zyx, np.uint8)
    common = box.intersect(into)
    if not common.empty:
        z, y, x = (-v for v in into.start_zyx)
        a, b, c = (-v for v in box.start_zyx)
        result[common.shift((z, y, x)).slices] = mask[common.shift((a, b, c)).slices]
    return result


def records(result: Extracted, settings: Settings) -> list[Nodule]:
    """Return the store's records of a finished case: its own names for nodules, no ids yet."""
    nodules = []
    inner = slice(settings.margin, settings.margin + settings.size)
    assert result.masks is not None  # noqa: S101  # finished
    for finding, mask, facts in zip(result.findings, result.masks, result.facts, strict=True):
        held = float(mask.sum(dtype=np.int64)) / 255 * settings.spacing_mm**3
        more = {"air_share": facts["air_share"]}
        if finding.volume_mm3:
            more["mask_share_in_cube"] = round(min(1.0, held / finding.volume_mm3), 4)
        nodules.append(
            Nodule(
                nodule_id=finding.name,
                case_id="",
                patient_id="",
                label=finding.label,
                diameter_mm=None if finding.diameter_mm is None else round(finding.diameter_mm, 4),
                volume_mm3=None if finding.volume_mm3 is None else round(finding.volume_mm3, 4),
                center_lps_mm=finding.center_lps_mm,
                occupancy=round(float(mask[inner, inner, inner].mean()) / 255, 6),
                mask_source=finding.mask_source,
                rating=finding.rating,
                readers=finding.readers,
                facts=more,
            )
        )
    return nodules

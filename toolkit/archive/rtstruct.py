"""RT Structure Sets: contours in LPS mm, placed on slices and filled on the grid of the scan.

PS3.3 C.8.8.6. All contours of a region on one slice are combined by exclusive or, closed planar ones as
well as those of type CLOSEDPLANAR_XOR: islands, holes and islands in holes. Nothing is interpolated.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from toolkit.archive.files import refusal, shown
from toolkit.archive.geometry import Box
from toolkit.archive.image_grid import HALF, ImageGrid
from toolkit.archive.mask_object import check_structures, items, opened, rois, text, trusted
from toolkit.archive.polygon import Filled, fill
from toolkit.archive.runs import Runs, encode, join
from toolkit.errors import Problem

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_OTHER = ("POINT", "OPEN_PLANAR", "OPEN_NONPLANAR")
_CONTOUR_DATA = 0x30060050
MAX_CROSSINGS = (
    1 << 20
)  # of rows and columns by the edges of one slice; the outline of a body has some thousand


class Contour(NamedTuple):
    """A closed contour: float64 (n, 3) in LPS mm, and the SOP instances that it was drawn on."""

    points_lps_mm: NDArray[np.float64]
    sources: tuple[str, ...]


class Region(NamedTuple):
    """A region of interest: its closed contours, and how many others and exact copies it has."""

    number: int
    contours: tuple[Contour, ...]
    open_contours: int
    copies: int


class Drawn(NamedTuple):
    """A region on the grid: its runs, the area of voxels and contours in voxels, and what else is said."""

    runs: Runs
    voxels: int
    area: float
    explained: float
    without_contour: int
    extent: int


def read_regions(path: str, wanted: Sequence[int]) -> tuple[Region, ...]:
    """Read the contours of some regions, in order of number.

    Raises `InputError` E-RT-001 where the file cannot be read: also for a contour whose numbers are not
    finite, not three a point, or of an unknown type.
    """
    with trusted("rtstruct", path), opened(path) as found:
        check_structures(found, path)
        known = {region.number for region in rois(found.dataset)}
        closed: dict[int, dict[bytes, Contour]] = {number: {} for number in sorted(wanted)}
        others: Counter[int] = Counter()
        copies: Counter[int] = Counter()
        for item in items(found.dataset, "ROIContourSequence"):
            number = int(item.ReferencedROINumber)
            if number not in known:
                raise ValueError("contours of a region that is not described")
            if number not in closed:
                continue
            for drawn in items(item, "ContourSequence"):
                kind = text(drawn, "ContourGeometricType").upper()
                if kind in _OTHER:
                    others[number] += 1
                    continue
                contour = _contour(drawn, kind, path)
                key = contour.points_lps_mm.tobytes()
                copies[number] += key in closed[number]
                closed[number].setdefault(key, contour)
        return tuple(Region(n, tuple(closed[n].values()), others[n], copies[n]) for n in closed)


def _contour(item: Any, kind: str, path: str) -> Contour:
    """Read one contour. Its numbers are parsed at once, which is fifty times as fast as one by one."""
    element = item.get_item(_CONTOUR_DATA) if _CONTOUR_DATA in item else None
    value = getattr(element, "value", None)
    if isinstance(value, bytes):
        numbers = np.array(value.strip(b" \0").split(b"\\") if value.strip(b" \0") else [], np.bytes_)
        points = numbers.astype(np.float64)
    else:
        points = np.atleast_1d(np.array([] if value is None else value, np.float64))
    if kind not in _CLOSED or points.size == 0 or points.size % 3 or not np.isfinite(points).all():
        measured = f"{points.size} numbers of type {shown(kind) or 'none'}"
        expected = f"three finite numbers a point, {' or '.join(_CLOSED)}"
        raise refusal("E-RT-001", "a contour that cannot be read", measured, expected, path=path)
    sources = tuple(
        uid
        for image in items(item, "ContourImageSequence")
        if (uid := text(image, "ReferencedSOPInstanceUID"))
    )
    return Contour(points.reshape(-1, 3), sources)


def draw_regions(
    regions: Sequence[Region], grid: ImageGrid, path: str
) -> tuple[dict[int, Runs], list[Problem]]:
    """Return the runs of each region that encloses a voxel, by number, and notes.

    Raises
    ------
    InputError
        E-RT-002 for a contour on no slice, E-RT-003 for one across slices, E-RT-004 for one that leaves
        the image, E-RT-005 where the image that it references is another slice.
    """
    runs: dict[int, Runs] = {}
    notes: list[Problem] = []
    for region in regions:
        drawn = _draw(region, grid, path) if region.contours else None
        if drawn is None or not len(drawn.runs):
            measured = f"region {region.number}, {len(region.contours)} closed contours"
            notes.append(_note("W-RT-004", "a region encloses no voxel", measured, "left out", path))
        else:
            runs[region.number] = drawn.runs
        notes += _notes(region, drawn, grid, path)
    return runs, notes


def _draw(region: Region, grid: ImageGrid, path: str) -> Drawn:
    """Place the contours of one region and fill them slice by slice."""
    owner = np.repeat(np.arange(len(region.contours)), [len(c.points_lps_mm) for c in region.contours])
    points = np.concatenate([contour.points_lps_mm for contour in region.contours])
    with np.errstate(over="ignore", invalid="ignore"):  # becomes infinite, and lies on no slice
        index = grid.geometry.to_nominal_index(points)
    axis = grid.slice_axis if grid.slice_axis is not None else _flat_axis(index, owner)
    numbers = _slices(region, index[:, axis], owner, axis, grid, path)
    rows, columns = (a for a in range(3) if a != axis)
    _check_inside(region.number, index[:, [rows, columns]], (rows, columns), grid, path)
    by_slice: dict[int, list[NDArray[np.float64]]] = defaultdict(list)
    ends = np.cumsum(np.bincount(owner))[:-1]
    for number, plane in zip(numbers, np.split(index[:, [rows, columns]], ends), strict=True):
        by_slice[int(number)].append(plane)
    shape = grid.geometry.shape_zyx
    for contours in by_slice.values():
        _check_travel(region.number, contours, path)
    filled = {number: fill(contours) for number, contours in sorted(by_slice.items())}
    parts = [_encode(f, number, axis, shape) for number, f in filled.items()]
    extent = max(by_slice) - min(by_slice) + 1
    return Drawn(
        join(parts, shape),
        sum(int(np.count_nonzero(f.inside)) for f in filled.values()),
        sum(f.area for f in filled.values()),
        sum(f.explained for f in filled.values()),
        extent - len(by_slice),
        extent,
    )


def _check_travel(region: int, contours: Sequence[NDArray[np.float64]], path: str) -> None:
    """Refuse scribble: filling costs memory with every row and column that an edge crosses."""
    crossed = sum(float(np.abs(np.diff(p, axis=0, append=p[:1])).sum()) for p in contours)
    if crossed > MAX_CROSSINGS:
        measured = f"region {region} crosses {crossed:.0f} rows and columns on one slice"
        expected = f"at most {MAX_CROSSINGS}"
        raise refusal("E-RT-001", "the contours are scribble", measured, expected, path=path)


def _flat_axis(index: NDArray[np.float64], owner: NDArray[np.int64]) -> int:
    """Return the axis that contours extend least along: a volume file does not say which are its slices."""
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    spread = np.maximum.reduceat(index, starts) - np.minimum.reduceat(index, starts)
    return int(spread.mean(axis=0).argmin())


def _slices(
    region: Region,
    depth: NDArray[np.float64],
    owner: NDArray[np.int64],
    axis: int,
    grid: ImageGrid,
    path: str,
) -> NDArray[np.int64]:
    """Return the slice of each contour, `depth` being where the points lie along the slice axis."""
    middle = np.bincount(owner, depth) / np.bincount(owner)
    numbers, away = grid.nearest(axis, middle)
    step = grid.spacing_along(axis)
    gap = np.abs(middle - grid.positions(axis)[numbers]) * step
    worst = int(away.argmax())
    if away[worst] > HALF:
        measured = f"a contour of region {region.number} lies {gap[worst]:.2f} mm from the nearest slice"
        expected = f"at most half a slice spacing of {step:.2f} mm"
        raise refusal("E-RT-002", "a contour lies on no slice of the scan", measured, expected, path=path)
    spread = grid.off(axis, depth, numbers[owner])
    worst = int(spread.argmax())
    if spread[worst] > HALF:
        reach = abs(depth[worst] - grid.positions(axis)[numbers[owner[worst]]]) * step
        measured = f"a point of region {region.number} lies {reach:.2f} mm from the slice of its contour"
        expected = f"at most half a slice spacing of {step:.2f} mm"
        raise refusal("E-RT-003", "a contour runs across slices", measured, expected, path=path)
    for contour, found in enumerate(region.contours):
        _check_source(region.number, found, middle[contour], axis, grid, path)
    return numbers


def _check_source(region: int, contour: Contour, depth: float, axis: int, grid: ImageGrid, path: str) -> None:
    """Refuse a contour that lies more than half a spacing from the image that it says it was drawn on."""
    if not grid.slices_by_sop_uid or not contour.sources:
        return
    named = [n for uid in contour.sources for n in grid.slices_by_sop_uid.get(uid, ())]
    title, expected = "position and reference of a contour contradict each other", "at most half a spacing"
    if not named:
        measured = f"a contour of region {region} references an image that the series does not have"
        raise refusal("E-RT-005", title, measured, "one of its slices", path=path)
    slices = np.array(named)
    if not (grid.off(axis, np.full(len(slices), depth), slices) <= HALF).any():
        gap = np.abs(grid.positions(axis)[slices] - depth).min() * grid.spacing_along(axis)
        measured = f"a contour of region {region} lies {gap:.2f} mm from the image that it references"
        raise refusal("E-RT-005", title, measured, expected, path=path)


def _check_inside(
    region: int, plane: NDArray[np.float64], axes: tuple[int, int], grid: ImageGrid, path: str
) -> None:
    """Refuse contours that reach beyond the outer edges of the voxels."""
    last = np.array([grid.geometry.shape_zyx[axis] for axis in axes]) - 1.0
    outside = np.maximum(-0.5 - plane, plane - last - 0.5).max(axis=0)
    worst = int(outside.argmax())
    if outside[worst] > 1e-3:
        beyond = outside[worst] * grid.spacing_along(axes[worst])
        measured = f"region {region} reaches {beyond:.2f} mm beyond the image"
        raise refusal("E-RT-004", "a contour leaves the image", measured, "inside it", path=path)


def _encode(filled: Filled, number: int, axis: int, shape_zyx: tuple[int, int, int]) -> Runs:
    """Return the runs of one slice; centres outside the image are on no voxel."""
    rows, columns = (n for a, n in enumerate(shape_zyx) if a != axis)
    top, left = max(0, filled.start_yx[0]), max(0, filled.start_yx[1])
    cut = filled.inside[
        top - filled.start_yx[0] : rows - filled.start_yx[0],
        left - filled.start_yx[1] : columns - filled.start_yx[1],
    ]
    start = [top, left]
    stop = [top + cut.shape[0], left + cut.shape[1]]
    start.insert(axis, number)
    stop.insert(axis, number + 1)
    box = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
    labels = np.ascontiguousarray(np.expand_dims(cut, axis)).astype(np.uint8)
    return encode(box, labels, shape_zyx)


def _notes(region: Region, drawn: Drawn | None, grid: ImageGrid, path: str) -> Iterator[Problem]:
    """Say what a reader of the mask would want to know of one region."""
    which = f"region {region.number}"
    if region.open_contours:
        measured = f"{region.open_contours} in {which}"
        yield _note("W-RT-001", "open contours and points", measured, "skipped; they enclose nothing", path)
    if region.copies:
        yield _note("W-RT-005", "copies of a contour", f"{region.copies} in {which}", "dropped", path)
    if drawn is None:
        return
    if drawn.without_contour:
        measured = f"{drawn.without_contour} of {drawn.extent} slices of {which}"
        action = "nothing was interpolated; the volume is too small unless the region has several parts"
        yield _note("W-RT-002", "slices without a contour", measured, action, path)
    if len(drawn.runs) and abs(drawn.voxels - drawn.area) > drawn.explained:
        voxel = grid.geometry.voxel_mm3
        measured = f"{drawn.voxels * voxel:.1f} mm3 of voxels in {which}"
        action = f"{drawn.area * voxel:.1f} mm3 within contours; voxel centres decided"
        expected = f"within {drawn.explained * voxel:.1f} mm3"
        yield Problem("W-RT-003", "area of voxels and contours differ", measured, expected, action, (path,))


def _note(code: str, what: str, measured: str, action: str, path: str) -> Problem:
    return Problem(code, what, measured, "", action, (path,))

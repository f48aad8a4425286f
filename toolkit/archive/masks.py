"""Label volumes to findings: the grid is checked, then each nodule is measured on the grid of its scan."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from toolkit.archive.case import Finding, LabelSource, MaskFile, MaskSource
from toolkit.archive.files import refusal
from toolkit.archive.geometry import Box, Geometry, largest_corner_shift_voxels
from toolkit.archive.runs import Runs, components, draw, encode, join
from toolkit.errors import Problem

MAX_CORNER_SHIFT_VOXELS = 0.5
MAX_LABELS = 1000  # an image given as a mask has thousands of values
MAX_RUNS = 1 << 22  # noise given as a mask has tens of millions; both lungs have half a million


def find_nodules(
    labels: LabelSource, image_geometry: Geometry, mask: MaskFile, min_diameter_mm: float
) -> tuple[list[Finding], list[Problem]]:
    """Find and measure the nodules of a label volume.

    Several label values are one nodule each, all kept. A single value is split into 26-connected
    components; those below the minimum diameter are dropped and counted.

    Parameters
    ----------
    labels, image_geometry
        The label volume, and the canonical geometry of its scan, which nodules are measured with.
    mask
        Names and malignancies by label value or component number. Components are numbered from 1 by
        first voxel in z, y, x order, the dropped ones included, so that the minimum diameter never
        moves a name to another nodule.
    min_diameter_mm
        Least diameter of the sphere of a component's volume.

    Returns
    -------
    findings, notes
        In order of number; W-MASK-001 where components were dropped.

    Raises
    ------
    InputError
        E-MASK-001 for another grid, E-MASK-003 for values that are no labels, and reading's own.
    """
    check_grid(labels.geometry, image_geometry, mask.path)
    runs = _scan(labels, mask.path)
    values = np.unique(runs.value)
    if len(values) > MAX_LABELS:
        raise refusal("E-MASK-003", f"over {MAX_LABELS} labels", f"{len(values)} values", path=mask.path)
    if len(values) == 1:
        groups, notes = _components(runs, image_geometry, mask.path, min_diameter_mm)
    else:
        groups, notes = by_number(runs, runs.value), []
    several = len(groups) > 1
    return [_finding(n, part, image_geometry, mask, several) for n, part in groups.items()], notes


def named_findings(
    regions: Mapping[int, Runs],
    geometry: Geometry,
    mask: MaskFile,
    mask_source: MaskSource,
    min_diameter_mm: float,
) -> tuple[list[Finding], list[Problem]]:
    """Measure regions that their file numbers and names, one nodule each, in order of number.

    A region of several components stays one nodule, because somebody named it as one; W-MASK-003 where
    more than one of them reaches the minimum diameter.
    """
    several, notes = len(regions) > 1, []
    for number in sorted(regions):
        volumes = _component_volumes(regions[number], components(regions[number]), geometry)
        large = int(np.count_nonzero(sphere_diameter_mm(volumes) >= min_diameter_mm))
        if large > 1:
            measured = f"{large} parts of at least {min_diameter_mm:g} mm in region {number}"
            action = "taken as one nodule; give each its own region if they are several"
            notes.append(
                Problem("W-MASK-003", "region of several parts", measured, "1", action, (mask.path,))
            )
    return [
        replace(_finding(n, regions[n], geometry, mask, several), mask_source=mask_source)
        for n in sorted(regions)
    ], notes


def check_grid(mask: Geometry, image: Geometry, path: str) -> None:
    """Refuse a mask that does not lie on the grid of its image.

    Parameters
    ----------
    mask, image
        Canonical geometries.
    path
        The mask file, for the message.

    Raises
    ------
    InputError
        E-MASK-001 where the shapes differ or a corner is more than 0.5 voxel off.
    """
    if mask.shape_zyx != image.shape_zyx:
        permuted = sorted(mask.shape_zyx) == sorted(image.shape_zyx)
        hint = ", equal only after exchanging axes" if permuted else ""
        raise _other_grid(
            f"{_shape(mask)} voxels (z x y x x){hint}", f"the {_shape(image)} of the image", path
        )
    shift = largest_corner_shift_voxels(image, mask)
    if not shift <= MAX_CORNER_SHIFT_VOXELS:
        moved = np.linalg.norm(mask.corners_lps_mm() - image.corners_lps_mm(), axis=1).max()
        measured = f"a corner lies {shift:.2f} voxels ({moved:.2f} mm) off"
        raise _other_grid(measured, f"at most {MAX_CORNER_SHIFT_VOXELS} voxel", path)


def _shape(geometry: Geometry) -> str:
    return " x ".join(str(n) for n in geometry.shape_zyx)


def _other_grid(measured: str, expected: str, path: str) -> Exception:
    action = "the mask is refused; resample it onto its image with nearest neighbours"
    return refusal("E-MASK-001", "mask and image do not share one grid", measured, expected, action, path)


def _scan(labels: LabelSource, path: str) -> Runs:
    """Return the runs of a whole label volume."""
    shape, parts, count = labels.geometry.shape_zyx, [], 0
    for box, array in labels.regions():
        parts.append(encode(box, array, shape))
        count += len(parts[-1])
        if count > MAX_RUNS:
            raise texture(path)
    return join(parts, shape)


def texture(path: str) -> Exception:
    """Return the refusal of a mask of more than `MAX_RUNS` runs."""
    measured, expected = f"more than {MAX_RUNS} separate runs of voxels", "outlines of nodules"
    return refusal("E-MASK-003", "the mask is texture", measured, expected, path=path)


def by_number(runs: Runs, number: NDArray[np.int64]) -> dict[int, Runs]:
    """Return the runs of each number, ascending."""
    order = np.argsort(number, kind="stable")
    numbers, first = np.unique(number[order], return_index=True)
    parts = np.split(order, first)[1:]  # one part a number, none for no runs
    return {int(n): runs.take(part) for n, part in zip(numbers, parts, strict=True)}


def _components(
    runs: Runs, geometry: Geometry, path: str, min_diameter_mm: float
) -> tuple[dict[int, Runs], list[Problem]]:
    """Return the components that are large enough, by number, and a note on the others."""
    component = components(runs)
    volumes = _component_volumes(runs, component, geometry)
    diameters = sphere_diameter_mm(volumes)
    kept = diameters >= min_diameter_mm
    dropped = int(np.count_nonzero(~kept))
    notes = []
    if dropped:
        measured = f"{dropped} of {len(kept)} components below {min_diameter_mm:g} mm"
        action = "they were dropped; --min-diameter changes it"
        notes.append(Problem("W-MASK-001", "small components", measured, "", action, (path,)))
    large = kept[component]
    return by_number(runs.take(large), component[large] + 1), notes


def _component_volumes(runs: Runs, component: NDArray[np.int64], geometry: Geometry) -> NDArray[np.float64]:
    """Return the volume in mm3 of each component; each slice counts with its thickness."""
    weighted = runs.lengths * geometry.slice_weights()[runs.z]
    return np.asarray(np.bincount(component, weighted) * geometry.voxel_mm3, dtype=np.float64)


def sphere_diameter_mm(volume_mm3: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the diameters of spheres of these volumes."""
    return np.asarray(np.cbrt(6 * volume_mm3 / np.pi), dtype=np.float64)


def _finding(number: int, runs: Runs, geometry: Geometry, mask: MaskFile, several: bool) -> Finding:
    """Measure one nodule."""
    box, voxels = draw(runs)
    volume, center = _measure(box, voxels, geometry)
    return Finding(
        name=nodule_name(mask, number, several),
        center_lps_mm=center,
        diameter_mm=float(sphere_diameter_mm(np.array(volume))),
        mask_source="volume",
        volume_mm3=volume,
        label=mask.labels.get(number, mask.labels.get(0)),
        box=box,
        mask=voxels,
    )


def nodule_name(mask: MaskFile, number: int, several: bool) -> str:
    """Return the name that a manifest gives to a nodule of a mask, or its number."""
    name = mask.names.get(number)
    if name is None and 0 in mask.names:  # one name for several nodules would name none of them
        name = f"{mask.names[0]}-{number}" if several else mask.names[0]
    return str(number) if name is None else name


def _measure(
    box: Box, voxels: NDArray[np.uint8], geometry: Geometry
) -> tuple[float, tuple[float, float, float]]:
    """Return volume in mm3 and centre of mass in LPS mm; each slice counts with its thickness."""
    weights = geometry.slice_weights()[box.slices[0]]
    by_row = voxels.sum(axis=2, dtype=np.int64)
    by_column = voxels.sum(axis=1, dtype=np.int64)
    slices = weights * by_row.sum(axis=1)
    total = float(slices.sum())
    positions = np.arange(*_range(box, 0), dtype=np.float64)
    if geometry.slice_positions is not None:
        positions = np.asarray(geometry.slice_positions)[box.slices[0]]
    nominal = np.array(
        [
            slices @ positions,
            (weights @ by_row) @ np.arange(*_range(box, 1)),
            (weights @ by_column) @ np.arange(*_range(box, 2)),
        ]
    )
    x, y, z = geometry.affine[:3, :3] @ (nominal / total) + geometry.affine[:3, 3]
    return total * geometry.voxel_mm3, (float(x), float(y), float(z))


def _range(box: Box, axis: int) -> tuple[int, int]:
    return box.start_zyx[axis], box.stop_zyx[axis]

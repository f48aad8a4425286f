"""Stage ``read``: headers and pixels of DICOM series, whole and about nodules, and gzipped NIfTI.

One process does it here; ``toolkit preprocess`` has one for each processor.
"""

import math

import numpy as np

from toolkit.archive.case import Case, VolumeSource
from toolkit.archive.catalog import catalog
from toolkit.archive.dicom_series import SeriesRules
from toolkit.archive.geometry import Box
from toolkit.archive.index_cache import IndexCache
from toolkit.archive.volume import open_volume
from toolkit.bench import roofline
from toolkit.bench.gate import check
from toolkit.bench.record import Figure, figure
from toolkit.bench.setting import Bench
from toolkit.bench.stopwatch import in_turns, rates
from toolkit.preprocess.extract import source_box, target_grid, target_to_source

NOTE = "warm page cache, one process"


def gate(bench: Bench) -> str:
    """See that what is read is what was written, voxel by voxel."""
    scans, worst = bench.scans, 0
    pairs = [(source(case), patient) for case, patient in zip(cases(bench), scans.patients, strict=True)]
    pairs += [(open_volume(str(path)), each) for path, each in zip(scans.volumes, scans.small, strict=True)]
    for read, patient in pairs:
        apart = whole(read).astype(np.int32) - patient.hu
        worst = max(worst, int(np.abs(apart).max()))
    return check("read", "HU as written and as read", worst, 0)


def measure(bench: Bench) -> list[Figure]:
    """Return cases/s and GB/s of voxels."""
    scans, found = bench.scans, cases(bench)
    sources = [source(case) for case in found]
    boxes = [nodule_boxes(bench, k) for k in range(len(found))]
    volumes = [open_volume(str(path)) for path in scans.volumes]
    taken = in_turns(
        {
            "headers": lambda turn: cases(bench),
            "whole": lambda turn: whole(sources[turn % len(sources)]),
            "nodules": lambda turn: sources[turn % len(sources)].read_boxes(boxes[turn % len(sources)]),
            "nifti": lambda turn: whole(volumes[turn % len(volumes)]),
        },
        bench.effort,
    )
    reading, inflating = roofline.reading(bench, scans.slices), roofline.inflating(bench, scans.volumes)
    voxels = float(np.mean([patient.hu.nbytes for patient in scans.patients])) / 1e9
    near = float(np.mean([sum(2 * math.prod(box.shape_zyx) for box in each) for each in boxes])) / 1e9
    small = float(np.mean([patient.hu.nbytes for patient in scans.small])) / 1e9
    slices = len(scans.slices) / len(scans.patients)
    about = {"slices": slices, "rows": bench.sizes.rows, "scans": len(scans.patients)}
    per_case = f"{slices:.0f} slices of {bench.sizes.rows} x {bench.sizes.rows}, uncompressed; {NOTE}"
    return [
        figure("read/headers", rates(taken["headers"], len(found)), "cases/s", per_case, config=about),
        figure("read/whole", rates(taken["whole"], 1), "cases/s", per_case, of=reading, in_its_unit=voxels),
        figure("read/whole bytes", rates(taken["whole"], voxels), "GB/s", NOTE, of=reading),
        figure("read/nodules", rates(taken["nodules"], 1), "cases/s", f"nodules' boxes only; {per_case}"),
        figure("read/nodules bytes", rates(taken["nodules"], near), "GB/s", f"of boxes; {NOTE}"),
        figure("read/nifti.gz", rates(taken["nifti"], small), "GB/s", f"of voxels; {NOTE}", of=inflating),
    ]


def cases(bench: Bench) -> tuple[Case, ...]:
    """Return the DICOM cases, every header read anew."""
    found = catalog(bench.scans.folder / "dicom", None, SeriesRules(), IndexCache(None)).cases
    return tuple(sorted(found, key=lambda case: case.patient_id))


def source(case: Case) -> VolumeSource:
    """Return a case's scan; raises its problem where it was refused."""
    if case.source is None:
        raise RuntimeError(str(case.problem))
    return case.source


def whole(scan: VolumeSource) -> np.ndarray:
    """Return all voxels, int16 HU zyx."""
    return scan.read_boxes([Box((0, 0, 0), scan.geometry.shape_zyx)])[0]


def nodule_boxes(bench: Bench, k: int) -> list[Box]:
    """Return what ``toolkit preprocess`` reads of a patient, with its default margin."""
    patient, sizes = bench.scans.patients[k], bench.sizes
    side = sizes.cube + 2 * sizes.margin
    found = []
    for nodule in patient.nodules:
        grid = target_grid(nodule.center_lps_mm, 1.0, side)
        found.append(source_box(target_to_source(grid, patient.geometry), side, patient.geometry))
    return found

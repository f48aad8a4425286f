"""An archive and a store of any size without pixels: files are empty, arrays are holes, every row is real.

Headers go into the index, plan and ledgers are written as the product writes them, with the keys that it would
give them, so that a run over this archive finds every shard finished. Only what is read of pixels is missing.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.archive.case import Case
from toolkit.archive.catalog import catalog
from toolkit.archive.dicom_fields import EXPLICIT_LITTLE, SliceHeader
from toolkit.archive.index_cache import IndexCache
from toolkit.archive.scan import FileEntry
from toolkit.archive.slice_checks import CT_IMAGE
from toolkit.preprocess.identity import IdKey
from toolkit.preprocess.plan import Settings, case_key, extend_plan, write_plan
from toolkit.preprocess.run import Job
from toolkit.store.format import (
    IMAGE_TYPE,
    MASK_TYPE,
    Nodule,
    array_bytes,
    array_header,
    digest,
    images_path,
    ledger_path,
    masks_path,
    nodule_json,
    sealed_lines,
)
from toolkit.store.writer import write_settings

NODULES = 5
"""In each series."""
POSITIVE_SHARE = 0.1
SERIES_OF_A_PATIENT = 2
SETTINGS = Settings(size=64, margin=16)
KEY = IdKey(b"scale")


def job(work: Path) -> Job:
    """Return the call of `toolkit preprocess` that finds everything done."""
    return Job(work / "archive", work / "store", KEY, settings=SETTINGS, index_cache=work / "index")


def write_rows(work: Path, series: int, slices: int) -> None:
    """Write archive, index and store of so many series into a new folder."""
    write_archive(work, series, slices)
    write_store(work)


def write_archive(work: Path, series: int, slices: int) -> None:
    """Write empty files, and an index that has read them."""
    cache = IndexCache(work / "index")
    archive = work / "archive"
    for number in range(series):
        folder = archive / f"{number // 1000:04d}" / f"{number:07d}"
        folder.mkdir(parents=True)
        entries = []
        for k in range(slices):
            path = folder / f"1-{k + 1:03d}.dcm"
            path.touch()
            state = path.stat()
            entries.append(FileEntry(path.name, 0, state.st_mtime_ns, "dicom", _header(number, k, slices)))
        cache.put("folder", str(folder), entries)
    for folder in (archive, *archive.iterdir()):
        cache.put("folder", str(folder), [])
    cache.close()


def _header(series: int, k: int, slices: int) -> SliceHeader:
    root = f"1.3.6.1.4.1.14519.5.2.1.6279.6001.{series:09d}"
    return SliceHeader(
        sop_class=CT_IMAGE,
        sop_uid=f"{root}.1.{series * 7919 % 10**9:09d}{k:04d}",
        series_uid=f"{root}.2",
        study_uid=f"{root}.3",
        frame_uid=f"{root}.4",
        patient_id=f"ARCHIVE-{series // SERIES_OF_A_PATIENT:07d}",
        modality="CT",
        image_type="ORIGINAL\\PRIMARY\\AXIAL",
        kernel="STANDARD",
        rescale_type="HU",
        transfer_syntax=EXPLICIT_LITTLE,
        photometric="MONOCHROME2",
        acquisition=1,
        rows=512,
        columns=512,
        samples=1,
        bits_allocated=16,
        bits_stored=16,
        high_bit=15,
        signed=1,
        padding=-2000,
        slope=1.0,
        intercept=-1024.0,
        # series of one patient lie apart: otherwise each would be noted as a sibling of the other
        position=(-170.5, -166.0, -300.0 - 1000.0 * (series % SERIES_OF_A_PATIENT) + 2.5 * k),
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        spacing=(0.703125, 0.703125),
        has_pixels=True,
        pixel_offset=1640,
        pixel_length=524288,
        digest=digest(f"{series} {k}".encode()),
    )


def write_store(work: Path) -> None:
    """Write the store that a run over the archive would have made, as if every mask had been read."""
    store = work / "store"
    cache = IndexCache(work / "index")
    found = catalog(work / "archive", None, SETTINGS.rules, cache, open_cases=False)
    cache.close()
    cases = {KEY.hash("case", case.case_id): case for case in found.cases}
    write_settings(store, {**SETTINGS.resolved(), "ids": KEY.fingerprint})
    plan = extend_plan([], list(cases))
    write_plan(store, plan)
    for folder in ("shards", "ledger"):
        (store / folder).mkdir()
    for shard in plan:
        _write_shard(store, shard.name, [(name, cases[name]) for name in shard.case_ids])


def _write_shard(store: Path, shard: str, cases: Sequence[tuple[str, Case]]) -> None:
    rng = np.random.default_rng(int(shard))
    lines: list[Mapping[str, Any]] = []
    for name, case in cases:
        patient = KEY.hash("patient", case.patient_id)
        row = len(lines) * NODULES
        nodules = [_nodule(name, patient, row + k, k, rng) for k in range(NODULES)]
        entry = {"case_id": name, "patient_id": patient, "key": case_key(case, SETTINGS, KEY), "status": "done"}
        facts = {"shape_zyx": [133, 512, 512], "spacing_mm": [2.5, 0.703125, 0.703125], "notes": []}
        lines.append({**entry, "code": "", "message": "", "transient": False, "nodules": nodules, "facts": facts})
    for path, dtype in ((images_path(store, shard), IMAGE_TYPE), (masks_path(store, shard), MASK_TYPE)):
        count = len(cases) * NODULES
        path.write_bytes(array_header(dtype, count, SETTINGS.side))
        os.truncate(path, array_bytes(dtype, count, SETTINGS.side))
    ledger_path(store, shard).write_bytes(sealed_lines(lines))


def _nodule(case: str, patient: str, row: int, k: int, rng: np.random.Generator) -> dict[str, Any]:
    diameter = round(float(rng.lognormal(2.0, 0.5)), 4)
    center = tuple(round(float(v), 4) for v in rng.uniform(-150, 150, 3))
    nodule = Nodule(
        nodule_id=f"{case}-{k + 1:03d}",
        case_id=case,
        patient_id=patient,
        label=float(rng.random() < POSITIVE_SHARE),
        diameter_mm=diameter,
        volume_mm3=round(np.pi / 6 * diameter**3, 4),
        center_lps_mm=(center[0], center[1], center[2]),
        occupancy=round(float(rng.uniform(0, 0.05)), 6),
        mask_source="consensus",
        rating=float(rng.integers(1, 6)),
        readers=4,
        facts={"air_share": 0.0, "mask_share_in_cube": 1.0},
    )
    crop = {kind: digest(f"{case} {k} {kind}".encode()) for kind in ("image", "mask", "pixels")}
    return {**nodule_json(nodule), **crop, "row": row}

"""An archive and a store of any size without pixels: files are empty, arrays are holes, every row is real.

Headers go into the index, plan and ledgers are written as the product writes them, with the keys that it
would give them, so that a run over this archive finds every shard finished. Only pixels are missing.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from toolkit.archive.case import Case
from toolkit.archive.cases import series_case
from toolkit.archive.dicom_fields import EXPLICIT_LITTLE, SliceFile, SliceHeader
from toolkit.archive.entries import FileEntry, pack_folder
from toolkit.archive.index_cache import IndexCache
from toolkit.archive.packed import PackedSlices
from toolkit.archive.series import series_of
from toolkit.archive.slice_checks import CT_IMAGE
from toolkit.preprocess.identity import IdKey
from toolkit.preprocess.plan import Settings, case_key, extend_plan, write_plan
from toolkit.preprocess.run import Job
from toolkit.store.format import (
    IMAGE_TYPE,
    MASK_TYPE,
    array_bytes,
    array_header,
    digest,
    images_path,
    ledger_path,
    masks_path,
    nodule_from_json,
    nodule_json,
    sealed,
    unseal,
)
from toolkit.store.writer import write_settings

NODULES = 5
"""In each series."""
SERIES_OF_A_PATIENT = 2
SETTINGS = Settings(size=64, margin=16)
KEY = IdKey(b"scale")
FACTS = '{"notes":[],"shape_zyx":[133,512,512],"spacing_mm":[2.5,0.703125,0.703125]}'
MORE = ("image", "mask", "pixels", "row")


def job(work: Path) -> Job:
    """Return the call of `toolkit preprocess` that finds everything done."""
    return Job(work / "archive", work / "store", KEY, settings=SETTINGS, index_cache=work / "index")


def write_rows(work: Path, series: int, slices: int) -> None:
    """Write archive, index and store of so many series into a new folder."""
    write_archive(work, series, slices)
    write_store(work, series, slices)


def write_archive(work: Path, series: int, slices: int) -> None:
    """Write empty files, and an index that has read them."""
    for number in range(series):
        folder = _folder(work, number)
        folder.mkdir(parents=True)
        for k in range(slices):
            (folder / f"1-{k + 1:03d}.dcm").touch()
    write_index(work, series, slices)


def write_index(work: Path, series: int, slices: int) -> None:
    """Write the index of an archive that is there."""
    cache = IndexCache(work / "index")
    archive = work / "archive"
    for number in range(series):
        folder = _folder(work, number)
        entries = []
        for k in range(slices):
            path = folder / f"1-{k + 1:03d}.dcm"
            state = path.stat()
            entries.append(FileEntry(path.name, 0, state.st_mtime_ns, "dicom", _header(number, k, slices)))
        cache.put_packed("folder", str(folder), pack_folder(entries))
    for folder in (archive, *archive.iterdir()):
        cache.put_packed("folder", str(folder), pack_folder([]))
    cache.close()


def _folder(work: Path, series: int) -> Path:
    return work / "archive" / f"{series // 1000:04d}" / f"{series:07d}"


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


def write_store(work: Path, series: int, slices: int) -> None:
    """Write the store that a run over the archive would have made, as if every mask had been read."""
    store = work / "store"
    cases = sorted(
        ((KEY.hash("case", case.case_id), case) for case in _cases(work, series, slices)), key=_name
    )
    write_settings(store, {**SETTINGS.resolved(), "ids": KEY.fingerprint})
    plan = extend_plan([], [hashed for hashed, _ in cases])
    write_plan(store, plan)
    for folder in ("shards", "ledger"):
        (store / folder).mkdir(exist_ok=True)
    known, template = dict(cases), _Template()
    for shard in plan:
        _write_shard(store, shard.name, [(name, known[name]) for name in shard.case_ids], template)


def _name(pair: tuple[str, Case]) -> str:
    return pair[1].case_id


def _cases(work: Path, series: int, slices: int) -> Iterator[Case]:
    """Yield the cases of the archive as discovery makes them of its files."""
    for number in range(series):
        folder = _folder(work, number)
        headers = (_header(number, k, slices) for k in range(slices))
        files = tuple(SliceFile(f"{folder}/1-{k + 1:03d}.dcm", 0, 0, h) for k, h in enumerate(headers))
        uid = files[0].header.series_uid
        packed = PackedSlices(files)
        yield series_case(series_of(uid, uid, packed, packed.table()), (), SETTINGS.rules)


class _Template:
    """A ledger line as the writer makes it, into which the ids, key and numbers of a case are put.

    To write a million nodules through `nodule_json` and `sealed` would take longer than all that is measured.
    The first line of every shard is written by both, and they must be equal.
    """

    def __init__(self) -> None:
        self._parts = [digest(str(k).encode()) for k in range(64)]

    def line(self, name: str, case: Case, number: int, first_row: int, count: int) -> bytes:
        """Return the sealed line of case `number` (from 0) of `count` in its shard."""
        patient, key = KEY.hash("patient", case.patient_id), case_key(case, SETTINGS, KEY)
        nodules = ",".join(self._nodule(name, patient, first_row + k, k) for k in range(NODULES))
        head = f'"case_id":"{name}","code":""'
        rest = (
            f'"facts":{FACTS},"key":"{key}","line":[{number + 1},{count}],"message":"",'
            f'"nodules":[{nodules}],"patient_id":"{patient}","status":"done","transient":false}}'
        )
        seal = digest(f"{{{head},{rest}".encode())
        return f'{{{head},"digest":"{seal}",{rest}\n'.encode()

    def _nodule(self, case: str, patient: str, row: int, k: int) -> str:
        drawn = int(case, 16) >> k
        diameter = 3 + drawn % 27000 / 1000
        center = [drawn % 300_007 / 1000 - 150, drawn % 299_993 / 1000 - 150, drawn % 299_983 / 1000 - 150]
        crop = [f"{case}{drawn % 2**64:016x}"[j : j + 32].ljust(32, "0") for j in range(3)]
        x, y, z = (round(v, 4) for v in center)
        return (
            f'{{"case_id":"{case}","center_lps_mm":[{x},{y},{z}],"diameter_mm":{diameter},'
            f'"facts":{{"air_share":0.0,"mask_share_in_cube":1.0}},"image":"{crop[0]}",'
            f'"label":{float(drawn % 10 == 0)},"mask":"{crop[1]}","mask_source":"consensus",'
            f'"nodule_id":"{case}-{k + 1:03d}","occupancy":{drawn % 499 / 10000},"patient_id":"{patient}",'
            f'"pixels":"{crop[2]}","rating":{float(drawn % 5 + 1)},"readers":4,"row":{row},"split":"",'
            f'"volume_mm3":{round(0.5236 * diameter**3, 4)}}}'
        )


def _write_shard(store: Path, shard: str, cases: Sequence[tuple[str, Case]], template: _Template) -> None:
    lines = [template.line(name, case, k, k * NODULES, len(cases)) for k, (name, case) in enumerate(cases)]
    value = unseal(lines[0], store)
    nodules = [nodule_json(nodule_from_json(n)) | {k: n[k] for k in MORE} for n in value["nodules"]]
    if sealed({**value, "nodules": nodules}) != lines[0]:
        raise AssertionError("the template is not what the writer writes")
    for path, dtype in ((images_path(store, shard), IMAGE_TYPE), (masks_path(store, shard), MASK_TYPE)):
        count = len(cases) * NODULES
        path.write_bytes(array_header(dtype, count, SETTINGS.side))
        os.truncate(path, array_bytes(dtype, count, SETTINGS.side))
    ledger_path(store, shard).write_bytes(b"".join(lines))

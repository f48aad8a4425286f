"""Small files that claim to be huge: each is refused by its code before anything of that size is asked for.

Every place where a size in a file becomes an allocation stands in `BOMBS`. While one is read, the process is
granted `ROOM` more memory, and its peak may grow by no more than half of that.
"""

import gzip
import os
import resource
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

import toolkit.preprocess.warm  # noqa: F401  # imports are no part of a reading
from tests.archive.dicom_files import make_slices, stored_values, write, write_all
from tests.archive.lidc_files import message, session
from tests.archive.lidc_files import nodule as marked
from tests.archive.mask_files import blob, structure_set, write_ct, write_seg
from tests.archive.test_volumes_bad import mhd, nhdr
from tests.archive.volume_files import canonical_geometry, phantom, write_nifti
from tests.loading.records import nodule
from tests.loading.split_stores import make_store
from tests.models.test_folder import FILE, network, reweigh, rewrite
from toolkit.archive.catalog import catalog
from toolkit.archive.deep import judge_case
from toolkit.archive.dicom_series import SeriesRules
from toolkit.archive.index_cache import IndexCache
from toolkit.archive.region_rule import RegionRule
from toolkit.bench.machine import peak_mib, peak_reset
from toolkit.errors import ToolkitError
from toolkit.models.folder import load_model, write_model
from toolkit.store import Store
from toolkit.store.format import canonical_json, sealed, unseal
from toolkit.training import checkpoint

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory are Linux's")
ROOM = 192 << 20
HUGE = 1 << 40
AFFINE = canonical_geometry().affine


def nifti(folder: Path, name: str = "v.nii", **fields: Any) -> None:
    write_nifti(folder / name, phantom(), AFFINE)
    raw = (folder / name).read_bytes()
    head = bytearray(gzip.decompress(raw) if name.endswith("gz") else raw)
    for at, layout, value in fields.values():
        struct.pack_into(layout, head, at, *np.atleast_1d(value).tolist())
    (folder / name).write_bytes(gzip.compress(head) if name.endswith("gz") else bytes(head))


def series(folder: Path, syntax: str | None = None, **changes: Any) -> None:
    slices = make_slices(stored_values())
    for d in slices:
        for name, value in changes.items():
            setattr(d, name, value)
    write_all(folder, slices, syntax=syntax)


def rle(folder: Path) -> None:
    slices = make_slices(stored_values())
    for d in slices:
        d.compress(RLELossless)
        d.Rows = d.Columns = 60000
    write_all(folder, slices)


def private(folder: Path) -> None:
    d = make_slices(stored_values((1, 5, 7)))[0]
    d.private_block(0x0029, "MAKER", create=True).add_new(0x10, "OB", bytes(2 * ROOM))
    write(folder / "a.dcm", d, DeflatedExplicitVRLittleEndian)


def claims(folder: Path) -> None:
    size = (3 << 30).to_bytes(4, "little")
    (folder / "a.dcm").write_bytes(bytes(128) + b"DICM" + b"\x08\x00\x05\x00UN\0\0" + size + bytes(64))


def seg(folder: Path, **changes: Any) -> None:
    """One that is deflated may inflate to 256 MiB, by design: test_dicom_seg.py."""
    d = write_seg(folder / "seg.dcm", write_ct(folder), blob().astype(np.uint8))
    for name, value in changes.items():
        setattr(d, name, value)
    d.save_as(folder / "seg.dcm")


def contour(folder: Path) -> None:
    """The sequence of contours says that it takes 2 GiB."""
    write_ct(folder)
    structure_set(folder / "rt.dcm", {"nodule": [np.zeros((3, 3))]})
    data = bytearray((folder / "rt.dcm").read_bytes())
    struct.pack_into("<I", data, data.index(b"\x06\x30\x39\x00SQ") + 8, 1 << 31)
    (folder / "rt.dcm").write_bytes(data)


def xml(folder: Path) -> None:
    """An entity that holds a terabyte of text; without a manifest the file is not taken for a reading."""
    series(folder / "ct")
    (folder / "cases.csv").write_text("case_id,patient_id,image,mask\na,a,ct,a.xml\n")
    lines = "".join(f'<!ENTITY l{k + 1} "{f"&l{k};" * 10}">' for k in range(12))
    told = message(session(marked("&l12;")), prolog=f'<!DOCTYPE b [<!ENTITY l0 "ha">{lines}]>')
    (folder / "a.xml").write_text(told)


def table(folder: Path, name: str) -> None:
    """Holes take no disk."""
    with (folder / name).open("wb") as file:
        file.write(b"seriesuid,coordX,coordY,coordZ,diameter_mm\n")
        file.truncate(HUGE)


def archive(folder: Path) -> set[str]:
    """Index and decode all of an archive, as ``toolkit index --deep`` does."""
    manifest = folder / "cases.csv"
    named = manifest if manifest.exists() else None
    found = catalog(folder, named, SeriesRules(), IndexCache(None), open_cases=False)
    codes = {p.code for p in found.refused}
    for case in found.cases:
        judged = judge_case((case, 3.0, RegionRule()))
        codes |= {p.code for p in (judged.case.problem, *(p for _, p in judged.files)) if p is not None}
    return codes


def by(read: Callable[[Path], Any]) -> Callable[[Path], set[str]]:
    def door(folder: Path) -> set[str]:
        try:
            read(folder)
        except ToolkitError as error:
            return {error.problem.code}
        return set()

    return door


store = by(Store.open)
model = by(lambda folder: load_model(folder / "m"))
trained = by(lambda folder: checkpoint.load(folder / "last.safetensors"))
listed = by(lambda folder: catalog(folder, folder / "cases.csv", SeriesRules(), IndexCache(None)))
labelled = by(
    lambda folder: catalog(folder, None, SeriesRules(), IndexCache(None), labels=folder / "labels.csv")
)


def small_store(folder: Path) -> None:
    make_store(folder, [nodule(f"n{k}", f"p{k}") for k in range(2)])


def settings(folder: Path) -> None:
    small_store(folder)
    value = unseal((folder / "store.json").read_bytes(), folder)
    (folder / "store.json").write_bytes(sealed({**value, "size": 1 << 20}))


def shape(folder: Path) -> None:
    """The shard claims a million crops, and so does its ledger's digest of nothing."""
    small_store(folder)
    path = folder / "shards" / "00000.images.npy"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"(2, 16, 16, 16)", b"(2000000,99,9,9)", 1)[: len(data)])


def tensors(header: int, shape: list[int]) -> bytes:
    """Bytes of safetensors whose header says what is not there."""
    text = canonical_json(
        {"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * int(np.prod(shape))]}}
    )
    return struct.pack("<Q", header or len(text)) + text + bytes(64)


def saved(folder: Path, change: Callable[[dict[str, Any]], None] | None = None, data: bytes = b"") -> None:
    write_model(folder / "m", FILE, network().state_dict())
    if data:
        reweigh(folder / "m", data)
    if change is not None:
        rewrite(folder / "m", change)


def wide(value: dict[str, Any]) -> None:
    """4 TB of weights of a network that is not ours, and for which no weights are there."""
    options = {"in_features": 1 << 20, "out_features": 1 << 20}
    value["architecture"] = {"name": "torch.nn:Linear", "options": options}


def long_file(folder: Path) -> None:
    saved(folder)
    os.truncate(folder / "m" / "model.json", HUGE)


def field(folder: Path) -> None:
    (folder / "cases.csv").write_text("case_id,patient_id,image\n" + "a" * (1 << 20))


def last(folder: Path, data: bytes) -> None:
    (folder / "last.safetensors").write_bytes(data)


Made = Callable[[Path], None]
BIG, BIGGER = "900 900 900", "99999 99999 99999"
ARCHIVES: dict[str, tuple[str, Made]] = {
    "NIfTI, too many voxels": ("E-VOL-003", lambda f: nifti(f, dim=(42, "<3h", (30000, 30000, 30000)))),
    "NIfTI, more than there is": ("E-FILE-002", lambda f: nifti(f, dim=(42, "<3h", (900, 900, 900)))),
    "NIfTI, data far behind": ("E-FILE-002", lambda f: nifti(f, at=(108, "<f", 1e12))),
    "gzip, more than it packs": (
        "E-VOL-003",
        lambda f: nifti(f, "v.nii.gz", dim=(42, "<3h", (900, 900, 900))),
    ),
    "gzip, data far behind": ("E-VOL-003", lambda f: nifti(f, "v.nii.gz", at=(108, "<f", 1e12))),
    "NRRD, too many voxels": ("E-VOL-003", lambda f: nhdr(f / "v.nrrd", sizes=BIGGER)),
    "NRRD, more than the file": ("E-FILE-002", lambda f: nhdr(f / "v.nrrd", sizes=BIG)),
    "NRRD, byte skip": ("E-FILE-002", lambda f: nhdr(f / "v.nrrd", byte_skip=str(HUGE))),
    "NRRD, gzip": (
        "E-VOL-003",
        lambda f: nhdr(f / "v.nrrd", gzip.compress(bytes(9999)), sizes=BIG, encoding="gzip"),
    ),
    "NRRD, no end of header": ("E-FILE-003", lambda f: nhdr(f / "v.nrrd", b"", comment="#" * ROOM)),
    "MetaImage, too many voxels": ("E-VOL-003", lambda f: mhd(f / "v.mha", DimSize=BIGGER)),
    "MetaImage, more than the file": ("E-FILE-002", lambda f: mhd(f / "v.mha", DimSize=BIG)),
    "MetaImage, zlib": (
        "E-VOL-003",
        lambda f: mhd(f / "v.mha", zlib.compress(bytes(9999)), DimSize=BIG, CompressedData="True"),
    ),
    "DICOM, pixels": ("E-FILE-002", lambda f: series(f, Rows=65535, Columns=65535)),
    "DICOM, deflated pixels": (
        "E-FILE-002",
        lambda f: series(f, DeflatedExplicitVRLittleEndian, Rows=65535, Columns=65535),
    ),
    "DICOM, compressed pixels": ("E-DCM-007", rle),
    "DICOM, an element of 3 GiB": ("E-FILE-003", claims),
    "DICOM, a deflated element": ("E-FILE-003", private),
    "SEG, pixels": ("E-FILE-002", lambda f: seg(f, Rows=65535, Columns=65535)),
    "SEG, frames": ("E-SEG-002", lambda f: seg(f, NumberOfFrames=2**31 - 1)),
    "RTSTRUCT, contours of 2 GiB": ("E-FILE-002", contour),
    "LIDC XML, entities": ("E-LIDC-001", xml),
    "LUNA16, a terabyte": ("E-FILE-005", lambda f: table(f, "annotations.csv")),
}
OTHERS: dict[str, tuple[Callable[[Path], set[str]], str, Made]] = {
    "manifest, a terabyte": (listed, "E-CSV-001", lambda f: table(f, "cases.csv")),
    "labels, a terabyte": (labelled, "E-CSV-001", lambda f: table(f, "labels.csv")),
    "manifest, a field": (listed, "E-CSV-001", field),
    "store.json, a crop": (store, "E-STORE-003", settings),
    "shard, crops": (store, "E-STORE-003", shape),
    "model.json, a terabyte": (model, "E-MODEL-002", long_file),
    "model.json, a network": (model, "E-MODEL-003", lambda f: saved(f, wide)),
    "weights, the header": (model, "E-MODEL-002", lambda f: saved(f, data=tensors(1 << 60, [4]))),
    "weights, a tensor": (model, "E-MODEL-002", lambda f: saved(f, data=tensors(0, [1 << 40]))),
    "checkpoint, a tensor": (trained, "E-CKPT-001", lambda f: last(f, tensors(0, [1 << 40]))),
}
BOMBS = {name: (archive, *rest) for name, rest in ARCHIVES.items()} | OTHERS


@contextmanager
def granted(room: int) -> Iterator[None]:
    """Grant this process so much more private memory than it has."""
    lines = Path("/proc/self/status").read_text().splitlines()
    has = int(next(line.split()[1] for line in lines if line.startswith("VmData:"))) << 10
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (has + room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_is_paid_for(name: str, tmp_path: Path) -> None:
    door, code, make = BOMBS[name]
    make(tmp_path)
    assert peak_reset()
    before = peak_mib()
    with granted(ROOM):
        codes = door(tmp_path)
    assert code in codes
    assert peak_mib() - before < (ROOM >> 20) / 2


def test_the_limit_bites(tmp_path: Path) -> None:
    """What asks for the memory that a bomb claims does not get it."""
    with granted(ROOM), pytest.raises(MemoryError):
        np.ones(2 * ROOM, np.uint8)

"""No link, header or manifest leads out of an archive, and what lies outside of it is not opened."""

import os
import warnings
import zipfile
from pathlib import Path

import pytest

from tests.archive.dicom_files import make_slices, simple_series, stored_values, write_all
from tests.archive.lidc_files import message
from tests.security.opened import opened
from toolkit.archive.catalog import catalog
from toolkit.archive.dicom_series import SeriesRules
from toolkit.archive.discover import Discovery
from toolkit.archive.index_cache import IndexCache


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What nobody may touch: a scan, a volume, a reading."""
    folder = tmp_path / "outside"
    simple_series(folder, series="1.2.9")
    (folder / "raw.bin").write_bytes(bytes(2 * 4 * 4 * 4))
    (folder / "one.xml").write_text(message())
    return folder


MHD = """ObjectType = Image
NDims = 3
DimSize = 4 4 4
ElementSpacing = 1 1 1
Offset = 0 0 0
TransformMatrix = 1 0 0 0 1 0 0 0 1
ElementType = MET_SHORT
ElementDataFile = {}
"""
NRRD = """NRRD0004
type: int16
dimension: 3
sizes: 4 4 4
space: left-posterior-superior
space directions: (1,0,0) (0,1,0) (0,0,1)
space origin: (0,0,0)
encoding: raw
endian: little
data file: {}

"""


def poisoned(root: Path, outside: Path) -> None:
    """One sound series, and around it all that leads out."""
    write_all(root / "good", make_slices(stored_values()))
    (root / "folder").symlink_to(outside)
    (root / "loop").symlink_to(root / "loop")
    (root / "up").mkdir()
    for path in outside.iterdir():
        (root / "up" / path.name).symlink_to(path)
    (root / "up" / "relative.dcm").symlink_to(Path("../../outside") / sorted(outside.iterdir())[0].name)
    for k, name in enumerate((str(outside / "raw.bin"), "../../outside/raw.bin", "raw.bin", "/dev/zero")):
        folder = root / f"header{k}"
        folder.mkdir()
        (folder / "a.mhd").write_text(MHD.format(name))
        (folder / "b.nhdr").write_text(NRRD.format(name))
        if name == "raw.bin":
            (folder / name).symlink_to(outside / name)
    (root / "pipe").mkdir()
    os.mkfifo(root / "pipe" / "data.raw")  # to open it would be to wait for ever
    os.mkfifo(root / "pipe" / "0001.dcm")
    (root / "pipe" / "a.mhd").write_text(MHD.format("data.raw"))
    with zipfile.ZipFile(root / "a.zip", "w") as archive:
        archive.writestr("../../outside/raw.bin", b"gone")
    _dicomdir(root / "DICOMDIR", outside)


def _dicomdir(path: Path, outside: Path) -> None:
    """A directory record that names a file beyond the folder (CVE-2026-32711)."""
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage

    record = Dataset()
    record.DirectoryRecordType = "IMAGE"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no such name is allowed, which is the point
        record.ReferencedFileID = ["..", "outside", sorted(outside.iterdir())[0].name]
    found = Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    found.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    found.DirectoryRecordSequence = [record]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(path, found, enforce_file_format=True)


def look(root: Path, manifest: Path | None = None) -> Discovery:
    cache = IndexCache(None)
    first = catalog(root, manifest, SeriesRules(), cache)
    second = catalog(root, manifest, SeriesRules(), cache)  # with what is remembered
    cache.close()
    assert [case.case_id for case in first.cases] == [case.case_id for case in second.cases]
    assert len(first.refused) == len(second.refused)
    return second


def test_nothing_in_an_archive_leads_out_of_it(tmp_path: Path, outside: Path) -> None:
    root = tmp_path / "archive"
    poisoned(root, outside)
    before = {path: path.read_bytes() for path in outside.iterdir()}
    with opened() as touched:
        found = look(root)
    assert touched
    assert not [path for path in touched if path.startswith((str(outside), "/dev/zero"))]
    assert [case.case_id for case in found.cases if case.problem is None] == ["1.2.3"]
    told = {Path(p.files[0]).relative_to(root).as_posix(): p.code for p in found.refused if p.files}
    told |= {Path(c.image).relative_to(root).as_posix(): c.problem.code for c in found.cases if c.problem}
    links = {f"up/{path.name}" for path in outside.iterdir()} | {"up/relative.dcm", "folder"}
    headers = {f"header{k}/{name}" for k in range(4) for name in ("a.mhd", "b.nhdr")}
    assert {name: told.get(name) for name in links | headers} == dict.fromkeys(links | headers, "E-FILE-004")
    assert told["pipe/a.mhd"] == "E-FILE-003"
    assert {path: path.read_bytes() for path in outside.iterdir()} == before


def test_a_link_to_the_whole_archive_is_followed(tmp_path: Path, outside: Path) -> None:
    """The user chose it; links in it are judged by where it leads."""
    poisoned(tmp_path / "real" / "archive", outside)
    (tmp_path / "chosen").symlink_to(tmp_path / "real" / "archive")
    found = look(tmp_path / "chosen")
    assert [case.case_id for case in found.cases if case.problem is None] == ["1.2.3"]


@pytest.mark.parametrize("column", ["image", "mask"])
@pytest.mark.parametrize(
    "path",
    [
        "{outside}",
        "../outside",
        "good/../../outside",
        "folder",
        "up/raw.bin",
        "loop",
        "/dev/zero",
        "/etc/passwd",
    ],
)
def test_nothing_in_a_manifest_leads_out(tmp_path: Path, outside: Path, path: str, column: str) -> None:
    root = tmp_path / "archive"
    poisoned(root, outside)
    path = path.format(outside=outside)
    line = f"x,p,{path},,,1" if column == "image" else f"x,p,good,{path},,1"
    (root / "cases.csv").write_text(f"case_id,patient_id,image,mask,nodule_id,label\n{line}\ny,p,good,,,\n")
    with opened() as touched:
        found = look(root, root / "cases.csv")
    assert not [p for p in touched if p.startswith((str(outside), "/dev/zero", "/etc/hosts"))]
    bad, good = found.cases
    assert bad.problem is not None
    assert bad.problem.code in ("E-FILE-004", "E-FILE-001")
    assert good.problem is None

"""Many scans out of one: whole copies of a real DICOM series, each another patient's.

Every copy has its own pixels on disk, its own identifiers in every file and its own LIDC XML, so that
neither an index nor the page cache can take two copies for one.
"""

import os
import re
import shutil
import tarfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pydicom
from platformdirs import user_cache_path

TAR = "lidc-idri-0001_ct133.tar.xz"
_UID = re.compile(rb"(?<![\d.])(1\.3\.6\.1\.4\.1\.14519\.5\.2\.1\.6279\.6001\.)(\d{30})(?!\d)")
_PATIENT = re.compile(rb"LIDC-IDRI-(\d{4})")
_VERIFIED = ("SeriesInstanceUID", "StudyInstanceUID", "SOPInstanceUID", "PatientID")
SPARE = 1.15  # stores of the benchmark need room, too


class NoRoomError(OSError):
    """The copies do not fit on the disk."""


def default_cache() -> Path:
    """Return the folder in which copies are kept unless ``--cache`` names another."""
    return Path(user_cache_path("toolkit")) / "benchmarks"


def default_scan(cache: Path) -> Path:
    """Return the folder of LIDC-IDRI-0001, unpacked into `cache` where it is not there yet.

    Looks for the tar in the folder that ``TOOLKIT_TEST_DATA`` names, or in ``../shared/data`` beside
    the checkout; raises FileNotFoundError where there is none.
    """
    folder = cache / "lidc-idri-0001"
    if not folder.is_dir():
        beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
        tar = Path(os.environ.get("TOOLKIT_TEST_DATA") or beside) / TAR
        if not tar.exists():
            raise FileNotFoundError(f"no {TAR} in TOOLKIT_TEST_DATA; name a scan with --scan")
        part = folder.with_name(f"{folder.name}.part")
        with tarfile.open(tar) as content:
            content.extractall(part, filter="data")
        part.rename(folder)
    return folder


def make_copies(scan: Path, into: Path, counts: Sequence[int]) -> list[Path]:
    """Return a folder for each count, the smaller ones inside the larger, with that many copies each.

    Existing copies are kept. Raises `NoRoomError` where the disk has no room and ValueError where the
    scan's identifiers cannot be replaced in place.
    """
    files = sorted(path for path in scan.rglob("*") if path.suffix in (".dcm", ".xml"))
    content = {path.relative_to(scan): path.read_bytes() for path in files}
    size = sum(map(len, content.values()))
    missing = max(counts) - len(list(into.rglob("copy-*/done"))) if into.exists() else max(counts)
    into.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(into).free
    if missing * size * SPARE > free:
        raise NoRoomError(
            f"{missing} copies need {missing * size * SPARE / 1e9:.1f} GB, {free / 1e9:.1f} free"
        )
    folder, begin, folders = into, 0, []
    for count in sorted(counts, reverse=True):
        folder = folder / f"first-{count}"
        folders.insert(0, folder)
    for folder, count in zip(folders, sorted(counts), strict=True):
        for number in range(begin, count):
            _copy(content, folder / f"copy-{number:04d}", number)
        begin = count
    return folders


def _copy(content: dict[Path, bytes], folder: Path, number: int) -> None:
    """Write one copy and check what pydicom makes of it."""
    if (folder / "done").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(reidentified(data, number))
    _verify(content, folder, number)
    (folder / "done").touch()


def reidentified(data: bytes, number: int) -> bytes:
    """Return a file with other identifiers of the same length; nothing else moves."""
    other = _UID.sub(lambda m: m[1] + b"9%03d" % number + m[2][4:], data)
    return _PATIENT.sub(b"PEER-COPY-%04d" % number, other)


def _verify(content: dict[Path, bytes], folder: Path, number: int) -> None:
    """Check with pydicom every file of the first copy, and three of each other: the rule is the same."""
    names = [name for name in content if name.suffix == ".dcm"]
    series, uids = "", set()
    for name in names if number == 0 else names[:3]:
        new = pydicom.dcmread(folder / name, specific_tags=[*_VERIFIED, "PixelData"])
        old = pydicom.dcmread(BytesIO(content[name]), specific_tags=[*_VERIFIED, "PixelData"])
        kept = [tag for tag in _VERIFIED if new[tag].value == old[tag].value]
        changed = new.PixelData != old.PixelData
        if kept or changed or new.file_meta.MediaStorageSOPInstanceUID != new.SOPInstanceUID:
            what = ", ".join(kept) or ("pixels" if changed else "file meta")
            raise ValueError(f"{name}: cannot be re-identified in place ({what})")
        uids.add(new.SOPInstanceUID)
        series = new.SeriesInstanceUID
    if len(uids) != (len(names) if number == 0 else min(3, len(names))):
        raise ValueError(f"copy {number}: SOP instances share identifiers")
    for name in content:
        if name.suffix == ".xml" and series.encode() not in (folder / name).read_bytes():
            raise ValueError(f"{name}: names another series than the copy")


def read_once(folder: Path) -> int:
    """Read every file once, so that the page cache holds it; returns the bytes."""
    total = 0
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while chunk := file.read(1 << 22):
                    total += len(chunk)
    return total

"""An archive in which everything that could name a person is a token, and the search for tokens in bytes."""

import re
import zlib
from base64 import b64decode
from binascii import Error
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from tests.archive.dicom_files import make_slices, positions, write
from tests.archive.mask_files import circle, structure_set
from tests.loading.split_stores import texture

NAME, ID, FOLDER, FILE = "QZNAMEQZ", "QZPATIENT", "QZFOLDER", "QZFILEQZ"
TEXT, REGION, NODULE = "QZTEXTQZ", "QZREGION", "QZNODULE"
UID, BIRTH, STUDY = "1.2.826.0.1.98765432109", "19171107", "19891109"
TOKENS = (NAME, ID, FOLDER, FILE, TEXT, REGION, NODULE, UID, BIRTH, STUDY)
SIDE, PATIENTS = 24, 30
LAYERS = slice(5, 19)  # of the sides' 24: the ball and a little more
TEXTS = (
    *("InstitutionName", "InstitutionAddress", "ReferringPhysicianName", "StudyDescription"),
    *("SeriesDescription", "AccessionNumber", "StudyID", "StationName", "OperatorsName", "PatientAddress"),
    *("PatientComments", "DeviceSerialNumber", "ProtocolName", "RequestingPhysician", "OtherPatientIDs"),
    *("ImageComments", "PerformingPhysicianName", "PatientBirthName", "MilitaryRank", "EthnicGroup"),
)
DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")


def slices(number: int, values: np.ndarray) -> list[Dataset]:
    """The slices of a patient, every identifying attribute a token."""
    series = f"{UID}.{number}"
    places = positions(len(values), step=(0.0, 0.0, 1.0))
    found = make_slices(
        values + 1024, places=places, spacing=(1.0, 1.0), series=series, patient=f"{ID}{number}",
        intercept=-1024,
    )  # fmt: skip
    for d in found:
        d.PatientName, d.PatientBirthDate = f"{NAME}{number}^{NAME}", BIRTH
        d.StudyInstanceUID, d.FrameOfReferenceUID = f"{series}.1", f"{series}.2"
        for word in TEXTS:
            setattr(d, word, f"{TEXT}{word[:6]}"[:16])
        for word in DATES:
            setattr(d, word, STUDY)
        d.add_new(0x00090010, "LO", TEXT)
        d.add_new(0x00091001, "LO", f"{TEXT} private")
    return found


def write_patient(root: Path, number: int, *, benign: bool) -> list[Dataset]:
    """A series with a structure set of two nodules; those of the benign are darker."""
    values = texture(number, SIDE).astype(np.int64)
    ball = sum((np.indices(values.shape) - (SIDE - 1) / 2) ** 2) < 5**2
    values[ball] = -250 if benign else 150
    found = slices(number, values[LAYERS])
    folder = root / f"{FOLDER}-{number}"
    for k, d in enumerate(found):
        write(folder / f"{FILE}-{k:03d}.dcm", d)
    middle = (SIDE - 1) / 2
    rings = [circle(found, k, (middle, middle), 5.0) for k in range(3, 11)]
    structure_set(folder / f"{FILE}-rt.dcm", {f"{REGION}{number}": rings}, series=f"{UID}.{number}")
    return found


def write_planted(root: Path) -> None:
    """The archive: patients to learn from, and one of each kind that is refused."""
    for number in range(PATIENTS):
        write_patient(root, number, benign=number % 3 > 0)
    lines = [f"{ID}{n},{float(n % 3 == 0)}" for n in range(PATIENTS)]
    (root / "labels.csv").write_text("\n".join(["patient_id,label", *lines, ""]))
    spoiled = iter(range(900, 999))

    def series(change: str) -> list[Dataset]:
        number = next(spoiled)
        found = slices(number, texture(number, SIDE)[:6].astype(np.int64))
        if change == "gap":
            del found[3]
        for d in found:
            if change == "no rescale":
                del d.RescaleSlope
            if change == "syntax":
                d.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"  # a film; nobody decodes it
                d.PixelData = encapsulate([d.PixelData])
                d["PixelData"].is_undefined_length = True
        for k, d in enumerate(found):
            write(root / f"{FOLDER}-{number}" / f"{FILE}-{k}.dcm", d)
        return found

    for change in ("gap", "no rescale", "syntax", "cut"):
        series(change)
    cut = sorted((root / f"{FOLDER}-903").iterdir())[0]
    cut.write_bytes(cut.read_bytes()[:-50])
    off = series("region off the slices")
    ring = circle(off, 0, (3.0, 3.0), 2.0) + np.array([0.0, 0.0, 90.0])
    structure_set(root / f"{FOLDER}-904" / f"{FILE}-rt.dcm", {REGION: [ring]}, series=f"{UID}.904")
    reading = f"<LidcReadMessage><SeriesInstanceUID>{UID}.0</SeriesInstanceUID><{TEXT}"
    (root / f"{FOLDER}-905").mkdir()
    (root / f"{FOLDER}-905" / f"{FILE}.xml").write_text(reading)
    (root / f"{FOLDER}-905" / f"{FILE}.nii").write_bytes(b"x" * 400)
    (root / f"{FOLDER}-905" / f"{FILE}.mhd").write_text(f"ObjectType = {TEXT}\nNDims = 3\n")
    (root / f"{FOLDER}-905" / f"{FILE}.dcm").symlink_to("/etc/hosts")


def held(path: Path) -> set[str]:
    """Return the tokens in a file's name and bytes: plain, UTF-16, in base64 and what it deflates."""
    return {token for text in _layers(path) for token in TOKENS if _holds(text, token)}


def _holds(data: bytes, token: str) -> bool:
    if token.isdecimal():  # eight digits come by chance within longer numbers
        return re.search(rb"(?<![0-9.])" + token.encode() + rb"(?![0-9])", data) is not None
    return token.encode() in data or token.encode("utf-16-le") in data


def _layers(path: Path) -> list[bytes]:
    data = path.read_bytes()
    found = [str(path).encode(), data]
    for text in re.findall(rb"[A-Za-z0-9+/]{16,}={0,2}", data):
        try:
            found.append(b64decode(text[: len(text) // 4 * 4]))
        except Error:
            continue
    for text in list(found):
        if text[:1] == b"\x78" or text[:2] == b"\x1f\x8b":
            try:
                found.append(zlib.decompress(text, 47))
            except zlib.error:
                continue
    return found

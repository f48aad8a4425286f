"""The quick parser says what pydicom says, or says nothing."""

import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from tests.archive.dicom_files import make_slices, simple_series, stored_values, write
from toolkit.archive import dicom_header
from toolkit.archive.dicom_header import pydicom_header, quick_header, read_header
from toolkit.archive.entries import slice_header
from toolkit.errors import InputError

WHERE = ("pixel_offset", "pixel_length")


def quick(data: bytes):
    """Return what the quick parser makes of a file, or None where it leaves it to pydicom."""
    try:
        return quick_header(data[: 4 << 20])
    except dicom_header.UnusualError:
        return None


def agree(path: Path) -> bool:
    """Compare both parsers field for field; False where the quick one declines."""
    data = path.read_bytes()
    fast = quick(data)
    if fast is None:
        return False
    slow = pydicom_header(path)
    same = {name: getattr(fast, name) for name in fast._fields if name not in WHERE}
    assert same == {name: getattr(slow, name) for name in same}
    for name, value in same.items():
        assert type(value) is type(getattr(slow, name)), name
    if fast.pixel_offset >= 0 and not fast.uncompressed:
        assert data[fast.pixel_offset :][:4] == b"\xfe\xff\x00\xe0"  # the first item, an offset table
    elif fast.pixel_offset >= 0:
        pixels = pydicom.dcmread(path).PixelData
        assert data[fast.pixel_offset :][: fast.pixel_length] == pixels
        assert fast.pixel_length == len(pixels) or fast.pixel_offset + fast.pixel_length > len(data)
    return True


def test_real_scan(lidc_scan):
    files = sorted(lidc_scan.rglob("*.dcm"))
    assert len(files) == 133
    assert all(agree(path) for path in files)


def test_dirty_archive(dirty_archive):
    compared = declined = 0
    for path in sorted(p for p in dirty_archive.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            if not dicom_header.is_dicom(file.read(132)):
                continue
        try:
            usual = agree(path)
        except InputError:  # only the slow parser checks the whole file: then nothing may be read from it
            with pytest.raises(InputError):
                read_header(path)
            continue
        compared, declined = compared + usual, declined + (not usual)
    assert compared > 25
    assert declined < 10


def test_phantom(phantom_archive):
    files = sorted(phantom_archive.rglob("*.dcm"))
    assert len(files) > 30
    assert all(agree(path) for path in files[::7])


def odd(kind: str) -> Dataset:
    """A slice with what real headers hold beside the wanted elements."""
    d = make_slices(stored_values((1, 4, 5)), padding=3000)[0]
    inner = Dataset()
    inner.CodeValue, inner.PatientID, inner.RescaleSlope = "1", "not this one", "77"
    middle = Dataset()
    middle.ReferencedSOPInstanceUID = "9.9"
    middle.ContentSequence = Sequence([inner, Dataset(), inner])
    d.ReferencedImageSequence = Sequence([middle, middle])
    d.AnatomicRegionSequence = Sequence([])
    d.PerformedProtocolCodeSequence = Sequence([inner])
    if kind in ("undefined", "mixed"):
        for s in (d["ReferencedImageSequence"], d["AnatomicRegionSequence"]):
            s.is_undefined_length = True
        middle["ContentSequence"].is_undefined_length = kind == "undefined"
        for item in (middle, inner):
            item.is_undefined_length_sequence_item = True
    block = d.private_block(0x0009, "MAKER", create=True)
    block.add_new(0x01, "LO", "text")
    block.add_new(0x02, "UN", b"\x01\x02\x03\x04")
    block.add_new(0x03, "SQ", Sequence([inner]))
    d.private_block(0x0029, "MAKER", create=True).add_new(
        0x10, "OB", bytes(20000) if kind == "long" else b"12"
    )
    if kind == "lengths":
        for group in (0x0008, 0x0020, 0x0028):
            d.add_new(group << 16, "UL", 4242)
    d.PixelPaddingRangeLimit = 4000
    d.RescaleType, d.NumberOfFrames = "HU", 1
    d.FrameOfReferenceUID = "1.2.77"
    return d


@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian])
@pytest.mark.parametrize("kind", ["plain", "undefined", "mixed", "lengths", "long"])
def test_generated(tmp_path, kind, syntax):
    path = write(tmp_path / "a.dcm", odd(kind), syntax)
    assert agree(path)
    found = read_header(path)
    assert (found.patient_id, found.slope, found.padding_limit) == ("P1", 1.0, 4000)
    assert found.pixel_offset > 0
    if kind == "long":  # beyond the first read
        assert found.pixel_offset > 16 * 1024


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_encodings_go_to_pydicom(tmp_path, syntax):
    path = write(tmp_path / "a.dcm", odd("undefined"), syntax)
    assert quick(path.read_bytes()) is None
    found, plain = read_header(path), read_header(write(tmp_path / "b.dcm", odd("undefined")))
    assert found.has_pixels
    differing = ("digest", "transfer_syntax", *WHERE)
    assert {f: v for f, v in found._asdict().items() if f not in differing} == {
        f: v for f, v in plain._asdict().items() if f not in differing
    }


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientID", " leading"),
        ("PatientID", "trailing "),
        ("PatientID", "Jos\u00e9"),
        ("ConvolutionKernel", ["B30f", "3"]),
        ("ConvolutionKernel", ["I31f ", " 2"]),
        ("ImageType", ["ORIGINAL", "", "AXIAL"]),
        ("PatientID", ""),
        ("RescaleType", " HU "),
        ("RescaleSlope", " 1.50 "),
        ("RescaleIntercept", "-1.024E+3"),
        ("ImagePositionPatient", ["+1.5", " 2 ", "-.5"]),
        ("NumberOfFrames", " 1"),
    ],
)
def test_text_is_read_as_pydicom_reads_it(tmp_path, keyword, value):
    d = odd("plain")
    d.SpecificCharacterSet = "ISO_IR 192"
    setattr(d, keyword, value)
    path = write(tmp_path / "a.dcm", d)
    agree(path)
    slow = pydicom_header(path)
    assert read_header(path) == slow


@pytest.mark.parametrize(("tag", "data"), [("RescaleSlope", b"1\\2 "), ("Rows", b"\5\0\5\0")])
def test_several_values_where_one_belongs_are_refused(tmp_path, tag, data):
    path = simple_series(tmp_path)[0]
    content = bytearray(path.read_bytes())
    element = pydicom.dcmread(path)[tag]
    head = struct.pack("<HH2s", element.tag.group, element.tag.element, element.VR.encode())
    at = content.index(head)
    length = int.from_bytes(content[at + 6 : at + 8], "little")
    content[at + 6 : at + 8 + length] = struct.pack("<H", len(data)) + data
    path.write_bytes(content)
    with pytest.raises(InputError, match="E-FILE-003"):
        read_header(path)


def test_elements_out_of_order_are_left_to_pydicom(tmp_path):
    data = simple_series(tmp_path)[0].read_bytes()
    rows, columns = (data.index(bytes((0x28, 0, number, 0)) + b"US") for number in (0x10, 0x11))
    swapped = data[:rows] + data[columns : columns + 10] + data[rows : rows + 10] + data[columns + 10 :]
    assert columns == rows + 10
    assert quick(data) is not None
    assert quick(swapped) is None


def test_nothing_but_pixels_follows_the_header(tmp_path):
    d = odd("plain")
    del d.PixelData
    path = write(tmp_path / "a.dcm", d)
    assert agree(path)
    assert not read_header(path).has_pixels
    d.DataSetTrailingPadding = bytes(64)
    path = write(tmp_path / "b.dcm", d)
    assert quick(path.read_bytes()) is None
    assert not read_header(path).has_pixels


def test_encapsulated_pixels_in_a_plain_syntax_are_not_read_as_they_lie(tmp_path):
    d = odd("plain")
    path = write(tmp_path / "a.dcm", d)
    data = path.read_bytes()
    at = data.index(b"\xe0\x7f\x10\x00OW")
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 40) + bytes(40) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    path.write_bytes(data[: at + 8] + b"\xff\xff\xff\xff" + item)
    assert read_header(path).pixel_offset == -1


@pytest.mark.parametrize("levels", [200, 5000])
@pytest.mark.parametrize("item", [b"\xff\xff\xff\xff", b"\x00\x00\x01\x00"])
def test_deep_nesting_is_refused_or_skipped(tmp_path, levels, item):
    head = write(tmp_path / "a.dcm", odd("plain")).read_bytes()
    sequence = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    start = head.index(b"\x08\x00\x16\x00UI")
    bomb = head[:start] + (sequence + b"\xfe\xff\x00\xe0" + item) * levels
    path = tmp_path / "bomb.dcm"
    path.write_bytes(bomb)
    with pytest.raises(InputError, match="E-FILE-003"):
        read_header(path)


@pytest.fixture(scope="module")
def bytes_of(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    return {
        (kind, syntax): write(folder / "a.dcm", odd(kind), syntax).read_bytes()
        for kind in ("undefined", "lengths")
        for syntax in (None, ImplicitVRLittleEndian)
    }


def test_quick_parser_survives_every_truncation(bytes_of):
    for data in bytes_of.values():
        complete = quick(data)
        for length in range(len(data)):
            found = quick(data[:length])
            if found is not None and found.has_pixels:
                assert found == complete


MANGLED = settings(max_examples=150, deadline=5000, suppress_health_check=list(HealthCheck))
FLIPS = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(1, 255)), min_size=1, max_size=6)


@MANGLED
@given(st.data(), FLIPS)
def test_quick_parser_survives_flipped_bytes(bytes_of, data, flips):
    damaged = bytearray(data.draw(st.sampled_from(sorted(bytes_of.values()))))
    for at, change in flips:
        damaged[128 + at % (len(damaged) - 128)] ^= change
    quick(bytes(damaged))


@MANGLED
@given(st.data(), FLIPS, st.integers(0, 1 << 16))
@example(None, [(0, 255)], 1 << 16)
def test_reading_raises_nothing_but_input_errors(bytes_of, tmp_path, data, flips, length):
    damaged = bytearray(
        data.draw(st.sampled_from(sorted(bytes_of.values()))) if data else next(iter(bytes_of.values()))
    )
    for at, change in flips:
        damaged[at % len(damaged)] ^= change
    path = tmp_path / "a.dcm"
    path.write_bytes(damaged[: 1 + length % (2 * len(damaged))])
    try:
        header = read_header(path)
    except InputError:
        return
    assert slice_header(list(header)) == header


def test_no_dicom_at_all(tmp_path):
    for name, content in {"empty": b"", "text": b"hello " * 100, "zero": bytes(5000)}.items():
        path = tmp_path / f"{name}.dcm"
        path.write_bytes(content)
        with pytest.raises(InputError, match="E-FILE-003"):
            read_header(path)
    with pytest.raises(InputError, match="E-FILE-005"):
        read_header(tmp_path / "absent.dcm")


def test_digest_covers_the_header_and_nothing_else(tmp_path):
    a, b = simple_series(tmp_path / "a")[:2]
    first = read_header(a)
    assert first.digest != read_header(b).digest
    data = bytearray(a.read_bytes())
    data[-1] ^= 1
    a.write_bytes(data)
    assert read_header(a).digest == first.digest
    assert np.isfinite(first.slope)

"""Compressed pixels: values against the same CT uncompressed, an outcome for every bad stream, no noise."""

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from tests.archive.dicom_files import (
    make_slices,
    series_of,
    slice_file,
    stored_values,
    whole,
    write,
    write_all,
)
from tests.archive.volume_files import hu
from toolkit.archive.case import Case
from toolkit.archive.codecs import MAX_FRAME_BYTES, CodecError, Layout, decode_frame, stream_of
from toolkit.archive.deep import judge_case
from toolkit.archive.dicom_pixels import decodable, hu_rule, is_lossy, read_rows
from toolkit.archive.dicom_series import SeriesFiles, SeriesRules
from toolkit.archive.region_rule import RegionRule
from toolkit.errors import InputError

ENCODERS = {RLELossless: "pydicom", JPEG2000Lossless: "pylibjpeg", JPEGLSLossless: "pyjpegls"}

# Largest difference from the uncompressed CT in HU, clipped as HU are. JPEG-LS was made with NEAR=1,
# JPEG 2000 at 4:1; the 12-bit JPEG files hold HU in steps of 2.0002, the 8-bit one in steps of 32.12,
# and quantisation of the cosine transform adds some steps to half of one.
DIFFERENCE_HU = {
    "1.2.840.10008.1.2.4.81": 1,
    "1.2.840.10008.1.2.4.91": 5,
    "1.2.840.10008.1.2.4.51": 18 * 2.0002 + 0.5,
    "1.2.840.10008.1.2.4.53": 18 * 2.0002 + 0.5,
    "1.2.840.10008.1.2.4.55": 18 * 2.0002 + 0.5,
    "1.2.840.10008.1.2.4.50": 2 * 32.12 + 0.5,
}


def patterns(path):
    """Stored values of one file, as a series would read them."""
    file = slice_file(path)
    return read_rows(file.path, file.size, file.mtime_ns, file.header, 0, file.header.rows)


def decoded(path):
    """The header and HU of one file."""
    header = slice_file(path).header
    return header, hu_rule(header, str(path)).table[patterns(path)]


@pytest.mark.real
def test_one_ct_in_every_transfer_syntax(dirty_archive, capfd):
    folder = next(dirty_archive.rglob("transfer_syntaxes"))
    plain = pydicom.dcmread(folder / "CTImage.dcm")
    truth = hu(plain.pixel_array.astype(int) - 1024)
    seen = {}
    for path in sorted(folder.glob("CTImage.dcm*")):
        header, found = decoded(path)
        seen[header.transfer_syntax] = np.abs(found.astype(int) - truth).max()
        assert is_lossy(header) == (header.transfer_syntax in DIFFERENCE_HU)
    assert len(seen) == 15
    for syntax, difference in seen.items():
        assert difference <= DIFFERENCE_HU.get(syntax, 0), syntax
    assert all(seen[syntax] > 0 for syntax in DIFFERENCE_HU)
    assert capfd.readouterr() == ("", "")  # GDCM speaks of 12 bits


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "plugin", "most"),
    [
        ("CT1_J2KR", "pillow", 0),
        ("CT2_J2KR", "pillow", 0),
        ("CTImage.dcm_JPEGProcess1TransferSyntax_1.2.840.10008.1.2.4.50.dcm", "pillow", 33),
        ("CTImage.dcm_JPEG2000TransferSyntax_1.2.840.10008.1.2.4.91.dcm", "pillow", 0),
        ("CTImage.dcm_JPEGLSLossyTransferSyntax_1.2.840.10008.1.2.4.81.dcm", "gdcm", 0),
        ("CTImage.dcm_JPEGLSLosslessTransferSyntax_1.2.840.10008.1.2.4.80.dcm", "gdcm", 0),
    ],
)
def test_another_decoder_says_the_same(dirty_archive, name, plugin, most):
    """A cosine transform may be rounded otherwise: one step of the 8-bit file is 32.12 HU."""
    path = next(dirty_archive.rglob(name))
    d = pydicom.dcmread(path)
    d.pixel_array_options(decoding_plugin=plugin)
    expected = d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept)
    if "PixelPaddingValue" in d:
        expected[d.pixel_array == d["PixelPaddingValue"].value] = -1024
    assert np.abs(decoded(path)[1] - np.clip(np.rint(expected), -1024, 3071)).max() <= most


@pytest.mark.parametrize("syntax", ENCODERS)
@pytest.mark.parametrize("bits", [(16, 12, 11), (16, 16, 15), (8, 8, 7), (16, 10, 9)])
@pytest.mark.parametrize("signed", [False, True])
def test_bits_and_signs(tmp_path, syntax, bits, signed):
    stored = stored_values((4, 64, 65), bits=bits[1], signed=signed)
    datasets = make_slices(stored, bits=bits, signed=signed, intercept=-50)
    for d in datasets:
        if signed:  # pydicom's encoders want the sign in the unused bits
            width = bits[0] // 8
            d.PixelData = d.pixel_array.astype(f"<i{width}").tobytes()
        d.compress(syntax, encoding_plugin=ENCODERS[syntax], generate_instance_uid=False)
    write_all(tmp_path, datasets)
    series = series_of(tmp_path)
    assert {f.header.transfer_syntax for f in series.files} == {syntax}
    np.testing.assert_array_equal(whole(series), hu(stored - 50))


def test_an_inverted_display_does_not_change_hu(tmp_path):
    """PS3.3 C.7.6.3.1.2: the photometric interpretation comes after the modality LUT."""
    datasets = make_slices(stored_values())
    for d in datasets:
        d.PhotometricInterpretation = "MONOCHROME1"
    write_all(tmp_path, datasets)
    np.testing.assert_array_equal(whole(series_of(tmp_path)), hu(stored_values() - 1024))


@pytest.mark.parametrize("colour", ["RGB", "PALETTE COLOR", "YBR_FULL_422"])
def test_colour_is_refused(tmp_path, colour):
    datasets = make_slices(stored_values())
    datasets[2].PhotometricInterpretation = colour
    paths = write_all(tmp_path, datasets)
    with pytest.raises(InputError, match="E-DCM-006") as refused:
        series_of(tmp_path)
    assert refused.value.problem.files == (str(paths[2]),)


BAD = {
    "SignedShortLosslessBug_ct.dcm": None,
    "fodicom_D_CLUNIE_CT1_RLE_FRAGS.dcm": None,
    "pydicomdata_bad_sequence.dcm": None,
    "pydicom_693_J2KI.dcm": None,
    "fodicom_GH177_D_CLUNIE_CT1_IVRLE_BigEndian_undefined_length.dcm": "E-FILE-003",
    "pydicom_MR_truncated.dcm": "E-FILE-002",
    "pydicom_JPEG2000-embedded-sequence-delimiter.dcm": "E-DCM-007",
}


@pytest.mark.real
@pytest.mark.parametrize("name", BAD)
def test_malformed_files_have_an_outcome(dirty_archive, name, capfd):
    path = next(dirty_archive.rglob(name))
    if BAD[name]:
        with pytest.raises(InputError) as refused:
            patterns(path)
        assert refused.value.problem.code == BAD[name]
        assert refused.value.problem.files == (str(path),)
    else:
        d = pydicom.dcmread(path)
        plugin = "pydicom" if d.file_meta.TransferSyntaxUID == RLELossless else "gdcm"
        d.pixel_array_options(decoding_plugin=plugin)
        stored = patterns(path)
        np.testing.assert_array_equal(stored, d.pixel_array.view(stored.dtype))
    assert capfd.readouterr() == ("", "")


@pytest.fixture(scope="module")
def streams(tmp_path_factory):
    """One compressed slice in each syntax that can be encoded here."""
    folder, made = tmp_path_factory.mktemp("streams"), {}
    for syntax, plugin in ENCODERS.items():
        (d,) = make_slices(stored_values((1, 64, 65)))
        d.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
        made[syntax] = write(folder / f"{syntax}.dcm", d)
    return made


@pytest.mark.parametrize("syntax", ENCODERS)
def test_damaged_streams_are_refused_or_other_pixels(streams, tmp_path, syntax, capfd):
    file = slice_file(streams[syntax])
    data = streams[syntax].read_bytes()
    rng, codes = np.random.default_rng(1), set()
    for attempt in range(120):
        damaged = bytearray(data)
        if attempt % 3:
            for at in rng.integers(file.header.pixel_offset, len(data), 3):
                damaged[at] ^= int(rng.integers(1, 256))
        else:
            damaged = damaged[: int(rng.integers(file.header.pixel_offset, len(data)))]
        path = tmp_path / "a.dcm"
        path.write_bytes(damaged)
        try:
            cut = slice_file(path)
            rows = read_rows(cut.path, cut.size, cut.mtime_ns, cut.header, 0, 64)
            assert rows.shape == (64, 65)
        except InputError as error:
            codes.add(error.problem.code)
    assert "E-DCM-007" in codes
    assert codes <= {"E-DCM-007", "E-FILE-003"}
    assert capfd.readouterr() == ("", "")


def test_a_stream_that_declares_more_than_the_header_is_not_decoded(streams):
    layout = Layout(64, 65, 16, 12, False)
    for syntax, field in ((JPEG2000Lossless, b"\xff\x4f\xff\x51"), (JPEGLSLossless, b"\xff\xf7")):
        frame = pydicom.encaps.get_frame(pydicom.dcmread(streams[syntax]).PixelData, 0)
        assert stream_of(frame)[:3] == (64, 65, 1)
        at = frame.index(field)
        size = at + 8 if syntax == JPEG2000Lossless else at + 5
        bomb = frame[:size] + b"\x7f\xff" + frame[size + 2 :]
        with pytest.raises(CodecError, match="a codestream of"):
            decode_frame(bomb, syntax, layout)


def test_a_header_that_declares_gigabytes_is_not_decoded(streams):
    frame = pydicom.encaps.get_frame(pydicom.dcmread(streams[RLELossless]).PixelData, 0)
    side = int((MAX_FRAME_BYTES / 2) ** 0.5) + 1
    with pytest.raises(CodecError, match="MiB"):
        decode_frame(frame, RLELossless, Layout(side, side, 16, 16, False))


@pytest.mark.parametrize(
    "syntax", ["1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.94", "1.2.840.113619.5.2", "nonsense"]
)
def test_what_no_decoder_reads_is_refused_by_name(syntax, streams):
    header = slice_file(streams[RLELossless]).header._replace(transfer_syntax=syntax)
    assert not decodable(header)


def test_a_single_slice_still_gets_a_decode_outcome(streams):
    file = slice_file(streams[JPEGLSLossless])
    judged = judge_case(
        (Case("a", "b", "c", None, unopened=SeriesFiles("1.2", (file,), SeriesRules())), 3.0, RegionRule())
    )
    assert judged.case.problem.code == "E-GEO-001"
    assert judged.files == ((file.path, None),)
    assert judged.bytes_read == 64 * 65 * 2

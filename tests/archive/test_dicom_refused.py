"""What a series must not be made of, and that the message names the files and the numbers."""

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    RLELossless,
)

from tests.archive import dicom_files as files
from tests.archive.dicom_files import (
    make_slices,
    positions,
    series_of,
    simple_series,
    stored_values,
    whole,
    write,
    write_all,
)
from tests.archive.volume_files import hu
from toolkit.archive.dicom_series import SeriesRules
from toolkit.errors import InputError


def refusal(folder, rules=None):
    with pytest.raises(InputError) as refused:
        series_of(folder, rules)
    return refused.value.problem


def of(number, keyword, value):
    """Change one element of one slice; None removes it."""

    def change(k, d):
        if k == number:
            if value is None:
                del d[keyword]
            else:
                setattr(d, keyword, value)

    return change


@pytest.mark.parametrize(
    ("keyword", "value", "code"),
    [
        ("ImageOrientationPatient", [0, 1, 0, 1, 0, 0], "E-DCM-004"),
        ("ImageOrientationPatient", None, "E-DCM-002"),
        ("ImageOrientationPatient", [1, 0, 0, 0, 1], "E-DCM-002"),
        ("ImagePositionPatient", None, "E-DCM-002"),
        ("ImagePositionPatient", ["nan", "0", "0"], "E-DCM-002"),
        ("PixelSpacing", None, "E-DCM-002"),
        ("PixelSpacing", [0.75, 0], "E-DCM-002"),
        ("PixelSpacing", [0.75, 0.6], "E-DCM-004"),
        ("Rows", 4, "E-DCM-004"),
        ("Columns", None, "E-DCM-002"),
        ("SeriesInstanceUID", None, "E-DCM-002"),
        ("RescaleSlope", None, "E-HU-001"),
        ("RescaleSlope", "0", "E-HU-001"),
        ("RescaleSlope", "nan", "E-HU-001"),
        ("RescaleIntercept", None, "E-HU-001"),
        ("RescaleIntercept", "inf", "E-HU-001"),
        ("RescaleType", "OD", "E-HU-002"),
        ("NumberOfFrames", 2, "E-DCM-005"),
        ("SOPClassUID", EnhancedCTImageStorage, "E-DCM-005"),
        ("SamplesPerPixel", 3, "E-DCM-006"),
        ("BitsAllocated", 32, "E-DCM-006"),
        ("BitsStored", None, "E-DCM-006"),
        ("PixelData", None, "E-DCM-006"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # pydicom speaks of the values that we write on purpose
def test_header_of_one_slice(tmp_path, keyword, value, code):
    paths = simple_series(tmp_path, of(3, keyword, value))
    problem = refusal(tmp_path)
    assert problem.code == code
    assert str(paths[3]) in problem.files


def test_orientation_that_is_no_rotation(tmp_path):
    simple_series(tmp_path, plane=((1, 0, 0), (0.1, 0.99, 0)))
    assert refusal(tmp_path).code == "E-GEO-006"


def test_rescale_type_that_is_hu_or_unspecified(tmp_path):
    for text in ("HU", "hu ", "US", ""):
        simple_series(tmp_path, lambda _, d, text=text: setattr(d, "RescaleType", text))
        series_of(tmp_path)


def test_no_decoder(tmp_path):
    simple_series(tmp_path)
    path = tmp_path / "0002.dcm"
    data = path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.4\0")
    path.write_bytes(data)
    problem = refusal(tmp_path)
    assert problem.code == "E-DCM-003"
    assert problem.files == (str(path),)


def test_pixels_that_cannot_be_decoded(tmp_path):
    datasets = make_slices(stored_values())
    datasets[1].file_meta.TransferSyntaxUID = RLELossless  # pydicom decodes it without a plug-in
    datasets[1].PixelData = pydicom.encaps.encapsulate([b"no codestream " * 5])
    datasets[1]["PixelData"].is_undefined_length = True
    paths = write_all(tmp_path, datasets)
    with pytest.raises(InputError, match="E-DCM-007") as refused:
        whole(series_of(tmp_path))
    assert refused.value.problem.files == (str(paths[1]),)


def test_cut_short(tmp_path):
    paths = simple_series(tmp_path)
    data = paths[4].read_bytes()
    for lost in (1, 70, *range(71, 700, 9)):  # most boxes need neither the last row nor this slice
        paths[4].write_bytes(data[:-lost])
        problem = refusal(tmp_path)
        in_header = ("E-FILE-003", "E-DCM-002", "E-DCM-006", "E-HU-001")
        assert problem.code in (("E-FILE-002",) if lost <= 70 else in_header)
        assert str(paths[4]) in problem.files


def test_pixel_element_shorter_than_the_image(tmp_path):
    simple_series(tmp_path, of(4, "PixelData", bytes(40)))
    path = tmp_path / "0004.dcm"
    path.write_bytes(path.read_bytes() + bytes(500))  # the file is long enough, the element is not
    problem = refusal(tmp_path)
    assert (problem.code, problem.measured) == ("E-FILE-002", "40 bytes")


def test_too_few_slices(tmp_path):
    write_all(tmp_path, make_slices(stored_values()[:2]))
    problem = refusal(tmp_path)
    assert (problem.code, problem.measured) == ("E-GEO-001", "2")


def test_an_identical_copy_is_dropped_and_noted(tmp_path):
    paths = simple_series(tmp_path)
    (tmp_path / "9999.dcm").write_bytes(paths[2].read_bytes())
    series, notes = files.series_and_notes(tmp_path)
    assert [(note.code, note.files) for note in notes] == [("W-DCM-001", (str(tmp_path / "9999.dcm"),))]
    np.testing.assert_array_equal(whole(series), hu(stored_values() - 1024))


@pytest.mark.parametrize("what", ["pixels", "uid", "rescale", "spacing"])
def test_two_different_slices_at_one_position(tmp_path, what):
    paths = simple_series(tmp_path)
    d = pydicom.dcmread(paths[2])
    if what == "pixels":
        d.PixelData = d.PixelData[:-1] + b"\1"
    elif what == "uid":
        d.SOPInstanceUID = "1.2.3.99"
    elif what == "rescale":
        d.RescaleIntercept = "-1000"
    else:
        d.PixelSpacing = [0.75, 0.50001]
    other = write(tmp_path / "9999.dcm", d)
    problem = refusal(tmp_path)
    assert problem.code == "E-GEO-002"
    assert set(problem.files) == {str(paths[2]), str(other)}


@pytest.mark.parametrize("how", ["deflated", "rle", "big endian", "signed cell", "padding element"])
def test_the_same_slice_in_another_encoding_is_dropped_and_noted(tmp_path, how):
    paths = simple_series(tmp_path)
    d, syntax = pydicom.dcmread(paths[2]), None
    if how == "rle":
        d.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    elif how == "signed cell":
        d.BitsStored, d.HighBit = 16, 15
    elif how == "padding element":
        d.DataSetTrailingPadding = bytes(64)
    else:
        syntax = {"deflated": DeflatedExplicitVRLittleEndian, "big endian": ExplicitVRBigEndian}[how]
    write(tmp_path / "9999.dcm", d, syntax)
    series, notes = files.series_and_notes(tmp_path)
    assert [note.code for note in notes] == ["W-DCM-001"]
    np.testing.assert_array_equal(whole(series), hu(stored_values() - 1024))


def test_a_missing_slice_is_named_by_its_neighbours(tmp_path):
    order = [3, 0, 5, 1, 4, 2, 7, 6]
    paths = write_all(tmp_path, make_slices(stored_values((8, 5, 7))), order)
    paths[4].unlink()
    problem = refusal(tmp_path)
    assert problem.code == "E-GEO-003"
    assert problem.files == (str(paths[3]), str(paths[5]))
    assert "5.00 mm" in problem.measured
    assert "about 1 lost" in problem.measured
    assert problem.expected == "2.50 mm"
    assert refusal(tmp_path, SeriesRules(allow_uneven=True)).code == "E-GEO-003"


def moved(tmp_path, number, offset, count=8):
    places = positions(count)
    places[number] += offset
    return write_all(tmp_path, make_slices(stored_values((count, 5, 7)), places=places))


def test_uneven_spacing(tmp_path):
    moved(tmp_path, 3, (0, 0, 0.1))
    problem = refusal(tmp_path)
    assert problem.code == "E-GEO-004"
    assert "2.400 to 2.600" in problem.measured
    assert refusal(tmp_path, SeriesRules(allow_missing=True)).code == "E-GEO-004"
    series_of(tmp_path, SeriesRules(allow_uneven=True))


def test_rounded_positions_are_even(tmp_path):
    moved(tmp_path, 3, (0, 0, 0.019))
    assert series_of(tmp_path).geometry.slice_positions is None


def test_allowing_missing_slices_does_not_allow_uneven_ones(tmp_path):
    paths = moved(tmp_path, 2, (0, 0, 0.4), count=9)
    paths[6].unlink()
    assert refusal(tmp_path, SeriesRules(allow_missing=True)).code == "E-GEO-004"
    assert refusal(tmp_path, SeriesRules(allow_uneven=True)).code == "E-GEO-003"
    series = series_of(tmp_path, SeriesRules(allow_uneven=True, allow_missing=True))
    assert series.geometry.slice_positions[2] == pytest.approx(2 + 0.4 / 2.5)


def test_sideways_jump(tmp_path):
    paths = moved(tmp_path, 5, (0.2, 0, 0))
    problem = refusal(tmp_path, SeriesRules(True, True))
    assert problem.code == "E-GEO-005"
    assert problem.files == (str(paths[5]),)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    return folder, [path.read_bytes() for path in simple_series(folder, padding=100)]


@settings(max_examples=150, deadline=5000)
@given(
    st.integers(0, 5),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(1, 255)), min_size=1, max_size=4),
)
def test_flipped_bytes_are_refused_or_read(sound, number, flips):
    folder, contents = sound
    damaged = bytearray(contents[number])
    for at, change in flips:
        damaged[132 + at % (len(damaged) - 132 - 70)] ^= change  # the header; pixels are only other pixels
    path = folder / f"{number:04d}.dcm"
    path.write_bytes(damaged)
    try:
        series = series_of(folder, SeriesRules(True, True))
        assert np.isfinite(series.geometry.affine).all()
        assert whole(series).shape == series.geometry.shape_zyx
    except InputError:
        pass
    finally:
        path.write_bytes(contents[number])


@pytest.mark.parametrize("syntax", [None, ExplicitVRBigEndian])
def test_an_underscore_is_no_part_of_a_number(tmp_path, syntax):
    """Python alone reads ``-1_24`` as -124; one of the two is read without pydicom."""
    write_all(tmp_path, make_slices(stored_values()), syntax=syntax)
    assert series_of(tmp_path).geometry.shape_zyx[0] == 6
    path = tmp_path / "0002.dcm"
    data = path.read_bytes()
    assert data.count(b"-1024") == 1
    path.write_bytes(data.replace(b"-1024", b"-1_24"))
    assert refusal(tmp_path).code == "E-FILE-003"

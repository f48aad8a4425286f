"""Every bad volume file gives a refusal with a code, and no other exception."""

import gzip
import struct
import tracemalloc
import zlib

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.archive.volume_files import canonical_geometry, hu, phantom, small_turn, write_itk, write_nifti
from toolkit.archive.geometry import Box
from toolkit.archive.volume import open_volume
from toolkit.errors import InputError

MHD = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "-10 20 -30",
    "ElementSpacing": "0.5 0.75 2.5",
    "DimSize": "5 6 7",
    "ElementType": "MET_SHORT",
    "ElementDataFile": "LOCAL",
}
NRRD = {
    "type": "short",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": "5 6 7",
    "space directions": "(0.5,0,0) (0,0.75,0) (0,0,2.5)",
    "endian": "little",
    "encoding": "raw",
    "space origin": "(-10,20,-30)",
}


def code_of(path, read=True):
    """Return the code that refuses a file; none if it can be read."""
    try:
        volume = open_volume(str(path))
        if read:
            volume.read_boxes([volume.geometry.box])
    except InputError as error:
        problem = error.problem
        assert path.name not in problem.public
        return problem.code
    return ""


def mhd(path, data=None, **changes):
    fields = {key: value for key, value in {**MHD, **changes}.items() if value is not None}
    fields["ElementDataFile"] = fields.pop("ElementDataFile")
    text = "".join(f"{key} = {value}\n" for key, value in fields.items())
    path.write_bytes(text.encode() + (phantom().tobytes() if data is None else data))
    return path


def nhdr(path, data=None, **changes):
    changes = {key.replace("_", " "): value for key, value in changes.items()}
    fields = {key: value for key, value in {**NRRD, **changes}.items() if value is not None}
    text = "NRRD0005\n# a comment\n" + "".join(f"{key}: {value}\n" for key, value in fields.items()) + "\n"
    path.write_bytes(text.encode() + (phantom().tobytes() if data is None else data))
    return path


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, ""),
        ({"ElementNumberOfChannels": "3"}, "E-VOL-001"),
        ({"ElementType": "MET_SHORT_ARRAY"}, "E-VOL-001"),
        ({"ElementType": "MET_OTHER"}, "E-VOL-002"),
        ({"ObjectType": "Scene"}, "E-VOL-001"),
        ({"BinaryData": "False"}, "E-VOL-002"),
        ({"NDims": "2", "DimSize": "5 42"}, "E-VOL-001"),
        ({"NDims": "4"}, "E-FILE-003"),
        ({"DimSize": "5 6 x"}, "E-FILE-003"),
        ({"DimSize": "0 6 7"}, "E-FILE-003"),
        ({"DimSize": "5 42 1"}, "E-GEO-001"),
        ({"DimSize": "5 6 8"}, "E-FILE-002"),
        ({"DimSize": "4000 4000 4000"}, "E-VOL-003"),
        ({"DimSize": "999999999999 6 7"}, "E-VOL-003"),
        ({"ElementDataFile": "LIST"}, "E-VOL-002"),
        ({"ElementDataFile": "slice%03d.raw 1 7 1"}, "E-VOL-002"),
        ({"ElementDataFile": "absent.raw"}, "E-FILE-001"),
        ({"ElementDataFile": "../secret.raw"}, "E-FILE-004"),
        ({"ElementDataFile": "/etc/hostname"}, "E-FILE-004"),
        ({"ElementDataFile": "a\0b"}, "E-FILE-001"),
        ({"ElementSpacing": None}, "E-GEO-008"),
        ({"ElementSpacing": None, "ElementSize": "0.5 0.75 2.5"}, ""),
        ({"ElementSpacing": "0.5 0.75"}, "E-FILE-003"),
        ({"ElementSpacing": "0.5 0.75 2_5"}, "E-FILE-003"),
        ({"ElementSpacing": "0.5 0.75 nan"}, "E-GEO-006"),
        ({"ElementSpacing": "0.5 0.75 -2.5"}, "E-GEO-006"),
        ({"TransformMatrix": "1 0 0 0 1 0 0 1 0"}, "E-GEO-006"),
        ({"TransformMatrix": "1 0 0 0 1 0 0 inf 0"}, "E-GEO-006"),
        ({"Position": "1 2 3"}, "E-FILE-003"),
        ({"Offset": "0 1e17 0"}, "E-GEO-006"),
        ({"Offset": None, "Origin": "1 2 3"}, ""),
        ({"DistanceUnits": "cm"}, "E-VOL-002"),
        ({"ElementToIntensityFunctionSlope": "2"}, "E-HU-001"),
        ({"HeaderSize": "-2"}, "E-FILE-003"),
        ({"HeaderSize": "0_0"}, "E-FILE-003"),
        ({"HeaderSize": "9" * 15}, "E-FILE-003"),
        ({"CompressedData": "True"}, "E-FILE-003"),
        ({"CompressedData": "True", "HeaderSize": "-1"}, "E-VOL-002"),
    ],
)
def test_meta_image_outcomes(tmp_path, changes, code):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.raw").write_bytes(phantom().tobytes())
    assert code_of(mhd(tmp_path / "in" / "v.mhd", **changes)) == code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, ""),
        ({"encoding": "ascii"}, "E-VOL-002"),
        ({"encoding": "bzip2"}, "E-VOL-002"),
        ({"encoding": "hex"}, "E-VOL-002"),
        ({"encoding": "gzip"}, "E-FILE-003"),
        ({"type": "block"}, "E-VOL-002"),
        ({"type": None}, "E-FILE-003"),
        ({"endian": None}, "E-FILE-003"),
        ({"sizes": "5 6"}, "E-FILE-003"),
        ({"sizes": "5 6 -7"}, "E-FILE-003"),
        ({"sizes": "5 6 8"}, "E-FILE-002"),
        ({"sizes": "65536 65536 65536"}, "E-VOL-003"),
        ({"dimension": "2", "sizes": "5 42", "space directions": None}, "E-VOL-001"),
        ({"space directions": "none (0,0.75,0) (0,0,2.5)"}, "E-VOL-001"),
        ({"space directions": "(0.5,0) (0,0.75) (0,2.5)"}, "E-VOL-001"),
        ({"space directions": "(0.5,0,0) (0,0.75,0) (0,0,0)"}, "E-GEO-006"),
        ({"space directions": "(0.5,0,0) (0,0.75,0) (0,nan,2.5)"}, "E-GEO-006"),
        ({"space directions": "rubbish"}, "E-FILE-003"),
        ({"space directions": None, "spacings": "0.5 0.75 2.5"}, ""),
        ({"space directions": None, "spacings": "0.5 0.75 2.5", "axis mins": "0 0 0"}, "E-GEO-008"),
        ({"space directions": None, "spacings": "0.5 0.75 2.5", "axis mins": "nan nan nan"}, ""),
        ({"space directions": None, "spacings": "0.5 0.75 2_5"}, "E-FILE-003"),
        ({"space directions": "(0.5,0,0) (0,0.75,0) (0,0,2_5)"}, "E-FILE-003"),
        ({"space directions": None}, "E-GEO-008"),
        ({"space directions": None, "spacings": "0.5 0.75 2.5", "space": "RAS"}, "E-GEO-008"),
        ({"space": None}, "E-GEO-008"),
        ({"space": "scanner-xyz"}, "E-GEO-008"),
        ({"space units": '"mm" "mm" "mm"'}, ""),
        ({"space units": '"cm" "cm" "cm"'}, "E-VOL-002"),
        ({"line skip": "2"}, "E-VOL-002"),
        ({"byte skip": "-1"}, ""),
        ({"byte skip": "-7"}, "E-FILE-003"),
        ({"byte skip": "1"}, "E-FILE-002"),
        ({"data file": "LIST"}, "E-VOL-002"),
        ({"data file": "s%03d.raw 1 7 1"}, "E-VOL-002"),
        ({"data file": "absent.raw"}, "E-FILE-001"),
        ({"data file": "../secret.raw"}, "E-FILE-004"),
        ({"data file": "/etc/hostname"}, "E-FILE-004"),
    ],
)
def test_nrrd_outcomes(tmp_path, changes, code):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.raw").write_bytes(phantom().tobytes())
    assert code_of(nhdr(tmp_path / "in" / "v.nrrd", **changes)) == code


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, ""),
        ({"sform": 0, "qform": 1}, ""),
        ({"sform": 0, "qform": 0}, "E-GEO-008"),
        ({"dim": [2, 5, 42, 1, 1, 1, 1, 1]}, "E-VOL-001"),
        ({"dim": [4, 5, 6, 7, 1, 1, 1, 1]}, ""),
        ({"dim": [4, 5, 6, 1, 7, 1, 1, 1]}, "E-VOL-001"),
        ({"dim": [9, 5, 6, 7, 1, 1, 1, 1]}, "E-FILE-003"),
        ({"dim": [3, 5, 6, -7, 1, 1, 1, 1]}, "E-FILE-003"),
        ({"dim": [3, 5, 6, 8, 1, 1, 1, 1]}, "E-FILE-002"),
        ({"dim": [3, 30000, 30000, 30000, 1, 1, 1, 1]}, "E-VOL-003"),
        ({"scl_slope": np.inf}, "E-HU-001"),
        ({"scl_slope": 0, "scl_inter": 7}, ""),
        ({"scl_slope": np.nan, "scl_inter": np.nan}, ""),
        ({"srow_x": [0, 0, 0, 0]}, "E-GEO-006"),
        ({"srow_x": [np.nan, 0, 0, 0]}, "E-GEO-006"),
        ({"xyzt_units": 5}, "E-VOL-002"),
    ],
)
@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_nifti_outcomes(tmp_path, name, fields, code):
    path = write_nifti(tmp_path / name, phantom(), canonical_geometry().affine, **fields)
    assert code_of(path) == code
    if not code:
        volume = open_volume(str(path))
        np.testing.assert_array_equal(volume.read_boxes([volume.geometry.box])[0], hu(phantom()))


@pytest.mark.parametrize(
    ("dtype", "code"),
    [(128, "E-VOL-001"), (32, "E-VOL-001"), (1536, "E-VOL-002"), (77, "E-VOL-002")],
)
def test_nifti_colours_complex_and_long_floats(tmp_path, dtype, code):
    path = write_nifti(tmp_path / "v.nii", phantom(), canonical_geometry().affine)
    data = bytearray(path.read_bytes())
    data[70:72] = struct.pack("<h", dtype)
    path.write_bytes(data)
    assert code_of(path) == code


def test_nifti_orientations_that_disagree(tmp_path):
    affine = canonical_geometry(turn=small_turn()).affine
    for shift, code in ((0.9, ""), (3.0, "E-GEO-007")):  # the slice step is 2.5 mm
        path = write_nifti(tmp_path / "v.nii", phantom(), affine, sform=1, qform=1)
        data = bytearray(path.read_bytes())
        offset = struct.unpack_from("<f", data, 276)[0]  # qoffset_z
        struct.pack_into("<f", data, 276, offset + shift)
        path.write_bytes(data)
        assert code_of(path) == code
    sheared = affine.copy()
    sheared[1, 0] += 1.0
    assert code_of(write_nifti(tmp_path / "s.nii", phantom(), sheared, sform=1, qform=1)) == "E-GEO-007"


def test_analyze_has_no_orientation(tmp_path):
    nib.save(nib.AnalyzeImage(phantom().T, None), tmp_path / "v.hdr")
    assert code_of(tmp_path / "v.hdr") == "E-GEO-008"


def test_other_layouts_that_are_read(tmp_path):
    values = phantom()
    paths = [
        mhd(tmp_path / "end.mha", b"junk" + values.tobytes(), HeaderSize="-1"),
        mhd(tmp_path / "msb.mha", values.astype(">i2").tobytes(), BinaryDataByteOrderMSB="True"),
        mhd(tmp_path / "four.mha", NDims="4", DimSize="5 6 7 1", ElementSpacing="0.5 0.75 2.5 1",
            Offset="-10 20 -30 0", TransformMatrix="1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1"),
        mhd(tmp_path / "gz.mha", gzip.compress(values.tobytes()), CompressedData="True"),
        nhdr(tmp_path / "skip.nrrd", b"junk" + values.tobytes(), byte_skip="4"),
        nhdr(tmp_path / "gzskip.nrrd", gzip.compress(b"junk" + values.tobytes()), byte_skip="4",
             encoding="gz"),
        nhdr(tmp_path / "members.nrrd", encoding="gzip",
             data=gzip.compress(values.tobytes()[:101]) + gzip.compress(values.tobytes()[101:]) + b"\0" * 9),
        nhdr(tmp_path / "four.nrrd", dimension="4", sizes="1 5 6 7",
             space_directions="none (0.5,0,0) (0,0.75,0) (0,0,2.5)"),
        nhdr(tmp_path / "ras.nrrd", space="RAS", space_origin="(10,-20,-30)",
             space_directions="(-0.5,0,0) (0,-0.75,0) (0,0,2.5)"),
        nhdr(tmp_path / "las.nrrd", space="left-anterior-superior", space_origin="(-10,-20,-30)",
             space_directions="(0.5,0,0) (0,-0.75,0) (0,0,2.5)"),
    ]  # fmt: skip
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "d.raw").write_bytes(b"1234" + values.tobytes())
    paths.append(mhd(tmp_path / "far.mhd", b"", ElementDataFile="sub/d.raw", HeaderSize="4"))
    paths.append(nhdr(tmp_path / "far.nhdr", b"", data_file="sub/d.raw", byte_skip="4"))
    for path in paths:
        volume = open_volume(str(path))
        np.testing.assert_array_equal(
            volume.read_boxes([volume.geometry.box])[0], hu(values), err_msg=path.name
        )
        np.testing.assert_allclose(volume.geometry.spacing_mm, (2.5, 0.75, 0.5))
        np.testing.assert_allclose(volume.geometry.affine[:3, 3], (-10, 20, -30))
    mha = sitk.ReadImage(str(tmp_path / "end.mha"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mha), values)


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd", "a.nii", "z.mha", "z.nrrd", "a.nii.gz"])
def test_every_truncation_is_refused(tmp_path, name):
    path = write_itk(tmp_path / name, phantom(), canonical_geometry().affine)
    whole = path.read_bytes()
    stored = open_volume(str(path)).header.stored
    data = max(stored.offset, 150)  # a .nii.gz that ends within its inflated header has no data yet
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert code_of(path).startswith("E-"), size
        if size > data:
            assert code_of(path) == "E-FILE-002", size


@pytest.mark.parametrize("name", ["z.mha", "z.nrrd", "a.nii.gz"])
def test_a_flipped_bit_in_compressed_data_is_refused_or_harmless(tmp_path, name):
    """The stream's checksum sees every changed voxel; the padding bits of deflate change none."""
    path = write_itk(tmp_path / name, phantom(), canonical_geometry().affine)
    whole = path.read_bytes()
    refused = 0
    for byte in range(open_volume(str(path)).header.stored.offset, len(whole)):
        bad = bytearray(whole)
        bad[byte] ^= 0x10
        path.write_bytes(bad)
        if code_of(path):
            refused += 1
        else:
            volume = open_volume(str(path))
            np.testing.assert_array_equal(volume.read_boxes([volume.geometry.box])[0], hu(phantom()))
    assert refused > 0.9 * len(phantom().tobytes()) / 2


def test_reading_stops_after_the_last_needed_plane(tmp_path):
    values = np.random.default_rng(0).integers(-900, 900, (64, 128, 128)).astype(np.int16)
    path = write_itk(tmp_path / "v.nii.gz", values, canonical_geometry(values.shape).affine)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    volume = open_volume(str(path))
    found = volume.read_boxes([Box((3, 4, 5), (20, 9, 100))])[0]
    np.testing.assert_array_equal(found, values[3:20, 4:9, 5:100])
    with pytest.raises(InputError) as caught:
        volume.read_boxes([Box((3, 4, 5), (63, 9, 100))])
    problem = caught.value.problem
    assert problem.code == "E-FILE-002"
    assert problem.expected == f"{352 + values.nbytes} bytes"


def test_a_bomb_allocates_nothing(tmp_path):
    """1.5 GiB of zeros in 1.5 MB: refused when declared larger, read plane by plane when honest."""
    packer = zlib.compressobj(9)
    zeros = bytes(1 << 20)
    data = b"".join(packer.compress(zeros) for _ in range(256)) + packer.flush()
    path = mhd(tmp_path / "v.mha", data, DimSize="2048 2048 1024", CompressedData="True")
    assert code_of(path, read=False) == "E-VOL-003"
    path = mhd(tmp_path / "v.mha", data, DimSize="512 512 512", CompressedData="True")
    volume = open_volume(str(path))
    tracemalloc.start()
    found = volume.read_boxes([Box((500, 10, 10), (512, 20, 20))])[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not found.any()
    assert peak < 16 << 20


def test_missing_unknown_and_unreadable_files(tmp_path):
    assert code_of(tmp_path / "absent.mha") == "E-FILE-001"
    assert code_of(tmp_path / "absent.nii.gz") == "E-FILE-001"
    (tmp_path / "v.xyz").write_bytes(b"")
    assert code_of(tmp_path / "v.xyz") == "E-VOL-002"
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(InputError) as caught:
        open_volume(str(tmp_path / "folder.nii"))
    assert caught.value.problem.code == "E-FILE-005"
    assert caught.value.problem.transient


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.raw").write_bytes(phantom().tobytes())
    (tmp_path / "in" / "d.raw").symlink_to(tmp_path / "secret.raw")
    assert code_of(mhd(tmp_path / "in" / "v.mhd", b"", ElementDataFile="d.raw")) == "E-FILE-004"


SEEDS = ["a.mha", "a.mhd", "a.nrrd", "a.nhdr", "a.nii", "a.nii.gz"]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=6)), min_size=1, max_size=4),
)
def test_damaged_headers_give_a_refusal_or_a_volume(tmp_path_factory, name, edits):
    folder = tmp_path_factory.mktemp("fuzz")
    path = write_itk(folder / name, phantom(), canonical_geometry().affine)
    data = path.read_bytes() if not name.endswith("gz") else gzip.decompress(path.read_bytes())
    for at, new in edits:
        data = data[:at] + new + data[at + len(new) :]
    path.write_bytes(gzip.compress(data, 1) if name.endswith("gz") else data)
    code_of(path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(SEEDS),
    st.binary(max_size=700),
    st.sampled_from([b"", b"NRRD0004\n", b"\x5c\x01\0\0", b"NDims = 3\n"]),
)
def test_rubbish_is_refused(tmp_path_factory, name, data, magic):
    path = tmp_path_factory.mktemp("fuzz") / name
    path.write_bytes(magic + data)
    assert code_of(path).startswith("E-")

"""Near-valid MetaImage, NRRD and NIfTI headers: what is read lies and is as SimpleITK and nibabel have it."""

import gzip
import warnings
import zlib

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from tests.archive.volume_files import small_turn
from tests.fuzz.built import examples, mostly, read_or_refused, spelled
from toolkit.archive.geometry import RAS_TO_LPS
from toolkit.archive.volume import open_volume

PLACES_VOXELS = 1e-3  # ITK keeps directions orthonormal to about 1e-4 and NIfTI holds float32
TURNS = [
    np.eye(3),
    -np.eye(3)[[2, 0, 1]],
    small_turn(),
    small_turn() @ np.diag([1.0, -1, 1]),
    np.eye(3)[[1, 0, 2]],
]
LENGTHS = spelled(0.3, 4)
SHAPES = st.tuples(*[mostly(st.integers(2, 4), st.integers(0, 1), 60)] * 3)


def voxels(shape, dtype):
    """Return values (k, j, i) that any type holds, no two planes alike."""
    return (np.arange(np.prod(shape)) * 7 % 120).reshape(shape[::-1]).astype(dtype)


def numbers_of(values, draw):
    return [draw(mostly(st.just(f"{v:.10g}"), spelled(), 200)) for v in np.ravel(values)]


def whole(path):
    volume = open_volume(str(path))
    return volume, volume.read_boxes([volume.geometry.box])[0]


def assert_same(found, array, to_index):
    """Compare HU with an independent array (k, j, i) and its map from LPS mm to (i, j, k)."""
    volume, hu = found
    assert sorted(hu.shape) == sorted(array.shape)
    index = np.argwhere(np.ones(hu.shape, bool))
    place = index @ volume.geometry.affine[:3, :3].T + volume.geometry.affine[:3, 3]
    native = to_index(place)
    nearest = np.rint(native).astype(int)
    assert np.abs(native - nearest).max() < PLACES_VOXELS
    expected = np.clip(np.rint(array.astype(np.float64)), -1024, 3071)[tuple(nearest[:, ::-1].T)]
    np.testing.assert_array_equal(hu[tuple(index.T)], expected)


def assert_as_itk(path, found):
    """Compare with SimpleITK, where that reads the file."""
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError:
        return
    steps = (
        np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing() if image.GetDimension() == 3 else None
    )
    if steps is not None:
        back = np.linalg.inv(steps)
        assert_same(found, sitk.GetArrayFromImage(image), lambda place: (place - image.GetOrigin()) @ back.T)


META_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG": "i4", "MET_LONG_LONG": "i8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip


@st.composite
def meta_images(draw):
    """Draw an .mhd file and its data, each as bytes."""
    shape, kind = draw(SHAPES), draw(st.sampled_from(list(META_TYPES)))
    msb, packed = draw(st.booleans()), draw(mostly(st.just(False), st.just(True), 4))
    data = voxels(shape, np.dtype(META_TYPES[kind]).newbyteorder(">" if msb else "<")).tobytes()
    data = zlib.compress(data) if packed else data
    skip = 0 if packed else draw(st.sampled_from([0, 0, 5, -1]))  # ITK would inflate from 0 and return noise
    turn = TURNS[draw(st.integers(0, len(TURNS) - 1))]
    fields = {
        "ObjectType": "Image",
        "NDims": draw(mostly(st.just("3"), st.sampled_from(["2", "4", "3.0", ""]), 60)),
        "BinaryData": draw(mostly(st.just("True"), st.sampled_from(["False", "1"]), 60)),
        draw(st.sampled_from(["BinaryDataByteOrderMSB", "ElementByteOrderMSB"])): str(msb),
        "CompressedData": str(packed),
        draw(st.sampled_from(["TransformMatrix", "Rotation", "Orientation"])): " ".join(
            numbers_of(turn, draw)
        ),
        draw(st.sampled_from(["Offset", "Position", "Origin"])): " ".join(
            numbers_of([-31.5, 17.25, -400], draw)
        ),
        "ElementSpacing": " ".join(draw(st.lists(LENGTHS, min_size=3, max_size=3))),
        "DimSize": " ".join(map(str, shape)),
        "HeaderSize": str(skip),
        "ElementType": draw(mostly(st.just(kind), st.sampled_from(["MET_NONE", "MET_SHORT_ARRAY"]), 60)),
        "CenterOfRotation": "0 0 0",
        "AnatomicalOrientation": draw(st.sampled_from(["RAI", "LPS", "???"])),
        "ElementNumberOfChannels": draw(mostly(st.just("1"), st.just("3"), 60)),
    }
    left = {name for name in fields if draw(st.integers(0, 15)) == 0}
    told = {name: value for name, value in fields.items() if name not in left}
    order = draw(mostly(st.just(list(told)), st.permutations(list(told)), 5))
    spaces, end = draw(st.sampled_from([" = ", "=", " =  "])), draw(st.sampled_from(["\n", "\n", "\r\n"]))
    lines = [f"{name}{spaces}{told[name]}" for name in order] + [f"ElementDataFile{spaces}a.raw"]
    return (end.join(lines) + end).encode(), b"\xee" * max(skip, 0) + data


@examples(60)
@given(built=meta_images())
def test_meta_images(tmp_path, built):
    header, data = built
    (tmp_path / "a.raw").write_bytes(data)
    (tmp_path / "a.mhd").write_bytes(header)
    found = read_or_refused(whole, tmp_path / "a.mhd")
    if found is not None:
        assert_as_itk(tmp_path / "a.mhd", found)


NRRD_TYPES = {
    "int8": "i1", "uchar": "u1", "short": "i2", "int16_t": "i2", "unsigned short": "u2", "int": "i4",
    "uint32": "u4", "longlong": "i8", "float": "f4", "double": "f8",
}  # fmt: skip
SPACES = ("left-posterior-superior", "LPS", "right-anterior-superior", "RAS", "left-anterior-superior", "LAS")


@st.composite
def nrrds(draw):
    """Draw a .nrrd file as bytes."""
    shape, kind = draw(SHAPES), draw(st.sampled_from(list(NRRD_TYPES)))
    order, encoding = draw(st.sampled_from("<>")), draw(st.sampled_from(["raw", "raw", "gzip", "gz", "GZIP"]))
    data = voxels(shape, np.dtype(NRRD_TYPES[kind]).newbyteorder(order)).tobytes()
    skip = draw(st.sampled_from([None, None, 0, 3, -1])) if encoding == "raw" else None
    turn = TURNS[draw(st.integers(0, len(TURNS) - 1))] * [0.5, 0.75, 2.5]
    vectors = " ".join("({})".format(",".join(numbers_of(turn[:, axis], draw))) for axis in range(3))
    plain = draw(st.integers(0, 4)) == 0
    fields = {
        "space": None
        if plain
        else draw(mostly(st.sampled_from(SPACES), st.sampled_from(["scanner-xyz", "LPST"]), 60)),
        "sizes": " ".join(map(str, shape)),
        "space directions": None if plain else vectors,
        "spacings": " ".join(draw(st.lists(LENGTHS, min_size=3, max_size=3))) if plain else None,
        "axis mins": "1 2 3" if plain and draw(st.integers(0, 5)) == 0 else None,
        "centerings": draw(st.sampled_from([None, "cell cell cell", "node node node"])),
        "kinds": draw(st.sampled_from([None, "domain domain domain", "space space space"])),
        "space units": None if plain else draw(mostly(st.none(), st.just('"mm" "mm" "mm"'), 4)),
        "space origin": None if plain else "({})".format(",".join(numbers_of([-31.5, 17.25, -400], draw))),
        "endian": {"<": "little", ">": "big"}[order],
        "encoding": encoding,
        "byte skip": None if skip is None else str(skip),
        "old min": draw(mostly(st.none(), st.just("0"), 9)),
    }
    left = {name for name in fields if draw(st.integers(0, 40)) == 0}
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None and name not in left]
    lines = draw(mostly(st.just(lines), st.permutations(lines), 5))
    lines.insert(
        draw(st.integers(0, len(lines))), draw(st.sampled_from(["# said", "key:=value", "content: x"]))
    )
    first = [draw(st.sampled_from(["NRRD0004", "NRRD0005"])), f"type: {kind}", "dimension: 3"]
    end = draw(mostly(st.just("\n"), st.just("\r\n"), 9))
    data = b"\xee" * max(skip or 0, 0) + data if encoding == "raw" else gzip.compress(data)
    return end.join([*first, *lines, "", ""]).encode() + data


@examples(60)
@given(data=nrrds())
def test_nrrds(tmp_path, data):
    (tmp_path / "a.nrrd").write_bytes(data)
    found = read_or_refused(whole, tmp_path / "a.nrrd")
    if found is not None:
        assert_as_itk(tmp_path / "a.nrrd", found)


UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001, 4: 1.0, 10: 1.0}
SINGLE = st.floats(width=32)


@st.composite
def niftis(draw):
    """Draw a .nii file as bytes, the same as nibabel would have it, and the length of its unit in mm."""
    shape, order = draw(SHAPES), draw(st.sampled_from("<>"))
    kind = np.dtype(draw(st.sampled_from(["i2", "u1", "u2", "i4", "f4", "f8", "i8"]))).newbyteorder(order)
    header = draw(st.sampled_from([nib.Nifti1Header, nib.Nifti2Header]))(endianness=order)
    header.set_data_dtype(kind)
    header["dim"] = [3, *shape, 1, 1, 1, 1]
    turn = TURNS[draw(st.integers(0, len(TURNS) - 1))]
    ras = np.diag([0.5, 0.75, 2.5, 1.0])
    ras[:3] = np.c_[turn @ ras[:3, :3], [-31.5, 17.25, -400]]
    header.set_qform(ras, code=1)
    header.set_sform(ras, code=1)
    header["qform_code"], header["sform_code"] = draw(
        st.sampled_from([(1, 0), (0, 1), (1, 1), (0, 2), (0, 0)])
    )
    unit = draw(mostly(st.sampled_from([0, 2]), st.sampled_from([1, 3, 4, 10]), 8))
    header["xyzt_units"] = unit
    slopes = st.sampled_from([0, 1, 2, -0.5, np.nan, 1e30, np.inf])
    header["scl_slope"], header["scl_inter"] = draw(mostly(st.just((1, 0)), st.tuples(slopes, slopes), 3))
    start = len(header.binaryblock) + 4
    offset = draw(mostly(st.just(start), st.sampled_from([0, start + 16, start - 1]), 9))
    header["vox_offset"], header["magic"] = offset, b"n+1" if start == 352 else b"n+2"
    for name in ("quatern_b", "qoffset_x", "srow_x", "pixdim", "dim"):
        if draw(st.integers(0, 25)) == 0:
            at = draw(st.integers(0, np.size(header[name]) - 1))
            values = np.array(header[name])
            values.reshape(-1)[at] = draw(st.integers(-2, 9)) if name == "dim" else draw(SINGLE)
            header[name] = values
    plain = header.copy()
    plain["vox_offset"] = max(offset, start)  # 0 means as soon as can be; nibabel reads the header itself
    rest = b"\0" * (4 + max(0, offset - start)) + voxels(shape, kind).tobytes()
    return header.binaryblock + rest, plain.binaryblock + rest, UNIT_MM[unit]


@examples(60)
@given(built=niftis())
def test_niftis(tmp_path, built):
    data, plain, unit_mm = built
    (tmp_path / "a.nii").write_bytes(data)
    found = read_or_refused(whole, tmp_path / "a.nii")
    if found is None:
        return
    (tmp_path / "plain.nii").write_bytes(plain)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nibabel's, of values that overflow
        image = nib.load(tmp_path / "plain.nii")
        array = np.asanyarray(image.dataobj, dtype=np.float64).squeeze()
    affine = RAS_TO_LPS @ np.diag([unit_mm, unit_mm, unit_mm, 1]) @ image.affine
    back = np.linalg.inv(affine)
    assert_same(found, array.T, lambda place: place @ back[:3, :3].T + back[:3, 3])

"""MetaImage (.mha, .mhd) headers, read the way ITK reads them.

The format is described at https://itk.org/Wiki/MetaIO/Documentation. World is LPS mm already.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from toolkit.archive.files import file_size, inside_folder, number, read_prefix, refusal, shown, whole
from toolkit.archive.geometry import Geometry
from toolkit.archive.stored import Encoding, StoredArray
from toolkit.archive.volume_header import VolumeHeader, check_shape, grid, make_header
from toolkit.errors import Problem

MAX_HEADER_BYTES = 1 << 20
MAX_DIMENSIONS = 10  # MetaIO's own; the matrix has the square of it

# MET_LONG has four bytes in the format, whatever the machine.
_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}


def read_header(path: str) -> VolumeHeader:
    """Read the header of a MetaImage.

    Parameters
    ----------
    path
        An .mha or .mhd file. A data file that it names must lie in its folder or below.

    Returns
    -------
    VolumeHeader
        Raw or zlib data; ``W-GEO-002`` where position or orientation are left out.

    Raises
    ------
    InputError
        E-FILE-003 for what is no MetaImage, E-VOL-001 for vectors and other dimensions, E-VOL-002
        for file lists, text data and unknown types, E-GEO-006 and E-GEO-008 for the grid.
    """
    fields, header = _fields(path)
    shape = _shape(fields, path)
    check_shape(shape, path)
    _refuse_foreign(fields, path)
    geometry, notes = _grid(fields, shape, path)
    return make_header(_stored(fields, shape, header, path), geometry, header, notes)


def _fields(path: str) -> tuple[dict[str, str], bytes]:
    """Return the header's fields and its bytes; ElementDataFile is by definition the last line."""
    prefix = read_prefix(path, MAX_HEADER_BYTES)
    fields: dict[str, str] = {}
    start = 0
    while start < len(prefix):
        end = prefix.find(b"\n", start)
        end = len(prefix) if end < 0 else end
        line, start = prefix[start:end], min(end + 1, len(prefix))
        if not line.strip():
            continue
        key, equals, value = line.decode("latin-1").partition("=")
        key, value = key.strip(), value.strip()
        if not equals or len(key) > 80 or fields.get(key, value) != value:
            raise refusal("E-FILE-003", "the MetaImage header cannot be read", path=path)
        fields[key] = value
        if key == "ElementDataFile":
            return fields, prefix[:start]
    raise refusal("E-FILE-003", "the MetaImage header has no ElementDataFile", path=path)


def _field(fields: dict[str, str], names: Sequence[str], path: str) -> str | None:
    """Return a field that has several names; refuse two different values."""
    values = {fields[name] for name in names if name in fields}
    if len(values) > 1:
        raise refusal("E-FILE-003", f"the header gives two values for {names[0]}", path=path)
    return values.pop() if values else None


def _numbers(text: str, name: str, path: str) -> NDArray[np.float64]:
    try:
        return np.array([number(part) for part in text.split()], dtype=np.float64)
    except ValueError as error:
        raise refusal("E-FILE-003", f"{name} is not numbers", shown(text), path=path) from error


def _shape(fields: dict[str, str], path: str) -> tuple[int, int, int]:
    """Return (i, j, k); a fourth axis may have the size 1."""
    text = fields.get("DimSize", "")
    if not text or not all(part.isascii() and part.isdigit() and len(part) < 20 for part in text.split()):
        raise refusal("E-FILE-003", "DimSize is missing or not numbers", shown(text), path=path)
    sizes = [int(part) for part in text.split()]
    if fields.get("NDims") != str(len(sizes)):
        measured = f"NDims {shown(fields.get('NDims', 'missing'))}, {len(sizes)} sizes"
        raise refusal("E-FILE-003", "NDims and DimSize disagree", measured, path=path)
    if not 3 <= len(sizes) <= MAX_DIMENSIONS or any(n != 1 for n in sizes[3:]):
        raise refusal("E-VOL-001", "not a three-dimensional volume", f"sizes {shown(text)}", path=path)
    return sizes[0], sizes[1], sizes[2]


def _refuse_foreign(fields: dict[str, str], path: str) -> None:
    """Refuse what the format allows and this reader does not."""
    if fields.get("ObjectType", "Image") != "Image":
        raise refusal("E-VOL-001", "not an image", shown(fields["ObjectType"]), "ObjectType Image", path=path)
    if fields.get("ElementNumberOfChannels", "1") != "1":
        channels = shown(fields["ElementNumberOfChannels"])
        raise refusal("E-VOL-001", "several values a voxel", f"{channels} channels", "1 channel", path=path)
    if not _true(fields, "BinaryData", True):
        raise refusal("E-VOL-002", "the data is text", expected="binary data", path=path)
    if fields.get("DistanceUnits", "mm") not in ("mm", "?"):
        raise refusal("E-VOL-002", "lengths are not in mm", shown(fields["DistanceUnits"]), "mm", path=path)
    # Readers disagree on whether this function is applied, so only the identity is safe.
    for name, identity in (("Slope", 1.0), ("Offset", 0.0)):
        text = fields.get(f"ElementToIntensityFunction{name}", str(identity))
        if _numbers(text, f"ElementToIntensityFunction{name}", path).tolist() != [identity]:
            raise refusal(
                "E-HU-001", "an intensity function that readers treat differently", shown(text), path=path
            )


def _true(fields: dict[str, str], name: str, default: bool) -> bool:
    return fields[name][:1] in ("T", "t", "1") if name in fields else default


def _grid(
    fields: dict[str, str], shape: tuple[int, int, int], path: str
) -> tuple[Geometry, tuple[Problem, ...]]:
    """Return the native geometry; the a-th triple of the matrix is the direction of axis a."""
    dims = int(fields["NDims"])
    spacing = _vector(fields, ("ElementSpacing", "ElementSize"), dims, path)
    if spacing is None:
        raise refusal("E-GEO-008", "the header has no ElementSpacing", path=path)
    if not (spacing[:3] > 0).all():
        measured = ", ".join(f"{n:.3g}" for n in spacing[:3])
        raise refusal("E-GEO-006", "spacings must be above 0", f"{measured} mm", path=path)
    matrix = _vector(fields, ("TransformMatrix", "Rotation", "Orientation"), dims * dims, path)
    origin = _vector(fields, ("Offset", "Position", "Origin"), dims, path)
    missing = [name for name, value in (("orientation", matrix), ("position", origin)) if value is None]
    notes: tuple[Problem, ...] = ()
    if missing:
        what = f"no {' and no '.join(missing)} in the header"
        notes = (Problem("W-GEO-002", what, action="identity and zero are taken", files=(path,)),)
    rows = np.eye(dims) if matrix is None else matrix.reshape(dims, dims)
    start = np.zeros(dims) if origin is None else origin
    return grid(shape, rows[:3, :3].T * spacing[:3], start[:3], path), notes


def _vector(
    fields: dict[str, str], names: Sequence[str], count: int, path: str
) -> NDArray[np.float64] | None:
    """Return the numbers of a field; None where the header lacks it."""
    text = _field(fields, names, path)
    if text is None:
        return None
    numbers = _numbers(text, names[0], path)
    if len(numbers) != count:
        raise refusal(
            "E-FILE-003", f"{names[0]} is incomplete", f"{len(numbers)} numbers", str(count), path=path
        )
    return numbers


def _stored(fields: dict[str, str], shape: tuple[int, int, int], header: bytes, path: str) -> StoredArray:
    """Return where the voxels are."""
    kind = fields.get("ElementType", "")
    if kind.endswith("_ARRAY"):
        raise refusal("E-VOL-001", "several values a voxel", shown(kind), path=path)
    if kind not in _TYPES:
        raise refusal("E-VOL-002", "an element type that is not supported", shown(kind), path=path)
    msb = _true(fields, "BinaryDataByteOrderMSB", _true(fields, "ElementByteOrderMSB", False))
    dtype = np.dtype(_TYPES[kind]).newbyteorder(">" if msb else "<").str
    name = fields["ElementDataFile"]
    if name.split()[:1] in (["LIST"], ["list"]) or "%" in name or not name:
        raise refusal(
            "E-VOL-002", "the data is spread over several files", expected="one data file", path=path
        )
    local = name.lower() == "local"
    data_path = path if local else inside_folder(path, name)
    offset = _offset(fields, len(header) if local else 0, path)
    compressed = _true(fields, "CompressedData", False)
    encoding: Encoding = "raw"
    if compressed:
        if offset < 0:
            raise refusal("E-VOL-002", "HeaderSize -1 with compressed data", path=path)
        magic = read_prefix(data_path, 2, offset)
        encoding = "gzip" if magic == b"\x1f\x8b" else "zlib"  # MetaIO accepts both
    stored = StoredArray(data_path, dtype, shape, offset, encoding)
    if offset >= 0:
        return stored
    start = max(0, file_size(data_path) - stored.bytes_declared)
    return StoredArray(data_path, dtype, shape, start, encoding)


def _offset(fields: dict[str, str], default: int, path: str) -> int:
    """Return the byte where the data begins; -1 where it ends with the file."""
    text = fields.get("HeaderSize", "0")
    try:
        size = whole(text) if len(text) < 20 else -2
    except ValueError:
        size = -2
    if not -1 <= size <= 1 << 40:
        raise refusal("E-FILE-003", "HeaderSize is not a size", shown(text), path=path)
    return size or default

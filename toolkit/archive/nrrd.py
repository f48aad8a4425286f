"""NRRD headers (.nrrd, .nhdr): pynrrd parses the fields, the meaning is decided here.

The format is described at https://teem.sourceforge.net/nrrd/format.html.
"""

import re
import warnings
from collections.abc import Mapping
from typing import Any

import nrrd
import numpy as np
from numpy.typing import NDArray

from toolkit.archive.files import file_size, inside_folder, read_prefix, refusal, shown
from toolkit.archive.geometry import Geometry
from toolkit.archive.stored import Encoding, StoredArray
from toolkit.archive.volume_header import VolumeHeader, check_shape, grid, make_header
from toolkit.errors import Problem

MAX_HEADER_BYTES = 1 << 20

_LPS = (1.0, 1.0, 1.0)
_SPACES = {
    "left-posterior-superior": _LPS,
    "lps": _LPS,
    "right-anterior-superior": (-1.0, -1.0, 1.0),
    "ras": (-1.0, -1.0, 1.0),
    "left-anterior-superior": (1.0, -1.0, 1.0),
    "las": (1.0, -1.0, 1.0),
}
_ENCODINGS: dict[str, Encoding] = {"raw": "raw", "gzip": "gzip", "gz": "gzip"}
_TYPES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
_DTYPES = {name: code for code, names in _TYPES.items() for name in names.split(", ")}

_NUMERIC = (
    rb"dimension|sizes|spacings|space directions|space origin|axis ?mins|axis ?maxs|(?:byte|line) ?skip"
)
_UNDERSCORE = re.compile(rb"(?m)^(?:" + _NUMERIC + rb"): .*\d_\d")  # Python alone takes 1_5 for 15


def read_header(path: str) -> VolumeHeader:
    """Read the header of a NRRD file.

    Parameters
    ----------
    path
        A .nrrd or .nhdr file. A data file that it names must lie in its folder or below.

    Returns
    -------
    VolumeHeader
        Raw or gzip data; ``W-GEO-002`` where position or orientation are left out.

    Raises
    ------
    InputError
        E-FILE-003 for what is no NRRD, E-VOL-001 for vectors and other dimensions, E-VOL-002 for
        other encodings, file lists, skipped lines and units, E-GEO-006 and E-GEO-008 for the grid.
    """
    fields, header, ended = _fields(path)
    for name in ("type", "dimension", "sizes", "encoding"):
        if name not in fields:
            raise refusal("E-FILE-003", f"the NRRD header has no field '{name}'", path=path)
    sizes = [int(n) for n in np.atleast_1d(fields["sizes"])]
    if fields["dimension"] != len(sizes):
        measured = f"dimension {fields['dimension']}, {len(sizes)} sizes"
        raise refusal("E-FILE-003", "dimension and sizes disagree", measured, path=path)
    axes, steps = _axes(fields, sizes, path)
    i, j, k = (sizes[axis] for axis in axes)
    check_shape((i, j, k), path)
    geometry, notes = _grid(fields, (i, j, k), steps, path)
    return make_header(_stored(fields, (i, j, k), header, ended, path), geometry, header, notes)


def _fields(path: str) -> tuple[Mapping[str, Any], bytes, bool]:
    """Return the parsed fields, the header's bytes and whether a blank line ended it."""
    prefix = read_prefix(path, MAX_HEADER_BYTES)
    if not prefix.startswith(b"NRRD"):
        raise refusal("E-FILE-003", "not a NRRD file", expected="the magic word NRRD", path=path)
    end = re.search(rb"\n\r?\n", prefix)
    header = prefix[: end.end()] if end else prefix
    if end is None and len(prefix) == MAX_HEADER_BYTES:
        raise refusal("E-FILE-003", "the NRRD header has no end", path=path)
    if re.search(rb"(?m)^data ?file: *(LIST|.*%)", header):
        raise refusal(
            "E-VOL-002", "the data is spread over several files", expected="one data file", path=path
        )
    if _UNDERSCORE.search(header):
        raise refusal("E-FILE-003", "an underscore in a number of the NRRD header", path=path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pynrrd speaks of fields that are given twice
            return nrrd.read_header(header.splitlines(keepends=True)), header, end is not None
    except (nrrd.NRRDError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise refusal("E-FILE-003", "the NRRD header cannot be read", path=path) from error


def _axes(
    fields: Mapping[str, Any], sizes: list[int], path: str
) -> tuple[list[int], NDArray[np.float64] | None]:
    """Return which file axes are the three of space, and their steps (3, 3), a row an axis, or None."""
    directions = fields.get("space directions")
    if directions is None:
        axes = [axis for axis in range(len(sizes)) if axis < 3 or sizes[axis] != 1]
        steps = None
    else:
        rows = [
            np.full(3, np.nan) if row is None else np.asarray(row, dtype=np.float64) for row in directions
        ]
        if len(rows) != len(sizes) or any(row.shape != (3,) for row in rows):
            raise refusal("E-VOL-001", "space directions are not three-dimensional", path=path)
        space = [axis for axis, row in enumerate(rows) if not np.isnan(row).all()]
        axes = space + [axis for axis in range(len(sizes)) if axis not in space and sizes[axis] != 1]
        steps = np.array([rows[axis] for axis in space])
    if len(axes) != 3 or (steps is not None and len(steps) != 3):
        measured = "sizes " + shown(" ".join(map(str, sizes)))
        raise refusal("E-VOL-001", "not a three-dimensional scalar volume", measured, path=path)
    return axes, steps


def _grid(
    fields: Mapping[str, Any], shape: tuple[int, int, int], steps: NDArray[np.float64] | None, path: str
) -> tuple[Geometry, tuple[Problem, ...]]:
    """Return the native geometry in LPS mm."""
    units = list(fields.get("space units", [])) + [u for u in fields.get("units", []) if u]
    if any(unit.strip().lower() not in ("mm", "", "???", "none", "millimeter") for unit in units[:3]):
        raise refusal("E-VOL-002", "lengths are not in mm", shown(" ".join(units)), "mm", path=path)
    origin = fields.get("space origin")
    missing = [name for name, value in (("orientation", steps), ("position", origin)) if value is None]
    space = str(fields.get("space", "missing")).lower()
    if steps is None:
        spacings = np.asarray(fields.get("spacings", []), dtype=np.float64)[:3]
        if spacings.shape != (3,) or not (spacings > 0).all() or _SPACES.get(space, _LPS) != _LPS:
            raise refusal("E-GEO-008", "neither space directions nor plain spacings", path=path)
        _refuse_mins(fields, path)
        signs, steps = np.ones(3), np.diag(spacings)
    else:
        if space not in _SPACES:
            expected = "LPS, RAS or LAS"
            raise refusal(
                "E-GEO-008", "a space without patient directions", shown(space), expected, path=path
            )
        signs = np.array(_SPACES[space])
    start = np.zeros(3) if origin is None else np.asarray(origin, dtype=np.float64)
    if start.shape != (3,):
        raise refusal("E-FILE-003", "the space origin is not three numbers", path=path)
    notes: tuple[Problem, ...] = ()
    if missing:
        what = f"no {' and no '.join(missing)} in the header"
        notes = (Problem("W-GEO-002", what, action="identity and zero are taken", files=(path,)),)
    return grid(shape, steps.T * signs[:, None], start * signs, path), notes


def _refuse_mins(fields: Mapping[str, Any], path: str) -> None:
    """Refuse a position that is told as the ends of axes: what they are the ends of is seldom told."""
    for name in ("axis mins", "axismins", "axis maxs", "axismaxs"):
        ends = np.asarray(fields.get(name, ()), dtype=np.float64)
        if not np.isnan(ends).all():
            expected = "space directions and space origin"
            raise refusal("E-GEO-008", "a position told as the ends of axes", name, expected, path=path)


def _stored(
    fields: Mapping[str, Any], shape: tuple[int, int, int], header: bytes, ended: bool, path: str
) -> StoredArray:
    """Return where the voxels are."""
    encoding = _ENCODINGS.get(str(fields["encoding"]).lower())
    if encoding is None:
        raise refusal(
            "E-VOL-002",
            "an encoding that is not supported",
            shown(fields["encoding"]),
            "raw or gzip",
            "save the file with one of these",
            path,
        )
    if _skip(fields, "line", path) != 0:
        raise refusal("E-VOL-002", "skipped lines are not supported", expected="line skip 0", path=path)
    name = fields.get("data file", fields.get("datafile"))
    if name is None and not ended:
        raise refusal("E-FILE-002", "the file ends with its header", f"{len(header)} bytes", path=path)
    data_path = path if name is None else inside_folder(path, str(name))
    start = len(header) if name is None else 0
    dtype = _dtype(fields, path)
    skip = _skip(fields, "byte", path)
    if encoding != "raw":
        if skip < 0:
            raise refusal("E-VOL-002", "byte skip -1 with compressed data", path=path)
        return StoredArray(data_path, dtype, shape, start, encoding, skip)
    if skip < 0:  # the data ends with the file
        need = StoredArray(data_path, dtype, shape, 0).bytes_declared
        return StoredArray(data_path, dtype, shape, max(start, file_size(data_path) - need))
    return StoredArray(data_path, dtype, shape, start + skip)


def _skip(fields: Mapping[str, Any], kind: str, path: str) -> int:
    count = int(fields.get(f"{kind} skip", fields.get(f"{kind}skip", 0)))
    if count < -1 or count > 1 << 40:
        raise refusal("E-FILE-003", f"{kind} skip is not a size", path=path)
    return count


def _dtype(fields: Mapping[str, Any], path: str) -> str:
    """Return the NumPy type string, with byte order."""
    code = _DTYPES.get(str(fields["type"]).lower())
    if code is None:
        raise refusal("E-VOL-002", "a type that is not supported", shown(fields["type"]), path=path)
    order = {"little": "<", "big": ">"}.get(
        str(fields.get("endian", "little" if code[1] == "1" else "")).lower()
    )
    if order is None:
        raise refusal("E-FILE-003", "the byte order is missing", expected="endian little or big", path=path)
    return np.dtype(code).newbyteorder("<" if order == "<" else ">").str

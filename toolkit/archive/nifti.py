"""NIfTI-1 and -2 headers (.nii, .nii.gz, .hdr with .img), turned from RAS into LPS mm here.

The format is described at https://nifti.nimh.nih.gov/nifti-1.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header, Nifti1PairHeader
from nibabel.nifti2 import Nifti2Header, Nifti2PairHeader
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from toolkit.archive.files import inflate_prefix, read_prefix, refusal, shown
from toolkit.archive.geometry import RAS_TO_LPS, Geometry, largest_corner_shift_voxels
from toolkit.archive.stored import StoredArray
from toolkit.archive.volume_header import VolumeHeader, check_shape, grid, make_header

MAX_CORNER_SHIFT_VOXELS = 0.5

_UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # unknown, m, mm, um; unknown means mm in practice
_CLASSES = {348: (Nifti1Header, Nifti1PairHeader), 540: (Nifti2Header, Nifti2PairHeader)}


def read_header(path: str) -> VolumeHeader:
    """Read the header of a NIfTI file; of a .nii.gz only the first bytes are inflated.

    Parameters
    ----------
    path
        A .nii, .nii.gz, .hdr or .img file; the last two need each other.

    Returns
    -------
    VolumeHeader
        Raw or gzip data. The sform is used where both are set and agree. Any invertible affine is
        kept as it is: a shear is sampled exactly later.

    Raises
    ------
    InputError
        E-FILE-003 for what is no NIfTI, E-VOL-001 for vectors, colours and other dimensions,
        E-GEO-007 where sform and qform move a corner by more than 0.5 voxel, E-GEO-008 where
        neither is set, E-GEO-006 for a singular one.
    """
    suffix = Path(path).suffix.lower()
    header_path = str(Path(path).with_suffix(_like(Path(path).suffix, ".hdr"))) if suffix == ".img" else path
    data_path = str(Path(path).with_suffix(_like(Path(path).suffix, ".img"))) if suffix == ".hdr" else path
    block = inflate_prefix(path, 540) if suffix == ".gz" else read_prefix(header_path, 540)
    header, used = _parse(block, path)
    shape = _shape(header, path)
    check_shape(shape, path)
    dtype = _dtype(header, path)
    slope, intercept = _scaling(header, path)
    geometry = _grid(header, shape, path)
    offset = _data_offset(header, paired=suffix in (".hdr", ".img"), path=path)
    place = StoredArray(data_path, dtype, shape, offset, slope=slope, intercept=intercept)
    if suffix == ".gz":
        place = replace(place, offset=0, encoding="gzip", skip=offset)
    return make_header(place, geometry, used)


def _like(suffix: str, new: str) -> str:
    """Return a suffix in the case of another one."""
    return new.upper() if suffix.isupper() else new


def _parse(block: bytes, path: str) -> tuple[Any, bytes]:
    """Return nibabel's header and the bytes that it was made from."""
    for size, (single, pair) in _CLASSES.items():
        if block[:4] not in (size.to_bytes(4, "little"), size.to_bytes(4, "big")):
            continue
        if len(block) < size:
            raise refusal(
                "E-FILE-002", "the header is cut short", f"{len(block)} bytes", f"{size} bytes", path=path
            )
        magic = block[344:348] if size == 348 else block[4:8]
        if magic[:1] != b"n":
            raise refusal("E-GEO-008", "an Analyze header, which knows no orientation", path=path)
        kind = pair if magic[1:2] == b"i" else single
        return kind(block[:size], check=False), block[:size]
    if len(block) < 4:
        raise refusal("E-FILE-002", "the header is cut short", f"{len(block)} bytes", "348 bytes", path=path)
    raise refusal("E-FILE-003", "not a NIfTI header", expected="a header size of 348 or 540", path=path)


def _shape(header: Any, path: str) -> tuple[int, int, int]:
    """Return (i, j, k); further axes may have the size 1."""
    dims = [int(n) for n in header["dim"]]
    if not 1 <= dims[0] <= 7:
        raise refusal("E-FILE-003", "the number of dimensions is impossible", str(dims[0]), path=path)
    sizes = dims[1 : dims[0] + 1]
    if len(sizes) < 3 or any(n != 1 for n in sizes[3:]):
        text = shown(" ".join(map(str, sizes)))
        raise refusal("E-VOL-001", "not a three-dimensional volume", f"sizes {text}", path=path)
    return sizes[0], sizes[1], sizes[2]


def _dtype(header: Any, path: str) -> str:
    """Return the NumPy type string, with byte order."""
    code = int(header["datatype"])
    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, LookupError) as error:
        raise refusal("E-VOL-002", "an unknown data type", f"code {code}", path=path) from error
    if dtype.kind in "cV" and dtype.itemsize > 0:
        raise refusal("E-VOL-001", "several values a voxel", f"data type code {code}", path=path)
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise refusal("E-VOL-002", "a data type that is not supported", f"code {code}", path=path)
    return str(dtype.str)


def _scaling(header: Any, path: str) -> tuple[float, float]:
    """Return slope and intercept; a slope of 0 or NaN means none (NIfTI-1, scl_slope)."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or np.isnan(slope):
        return 1.0, 0.0
    if not np.isfinite(slope) or not np.isfinite(intercept):
        measured = f"slope {slope:g}, intercept {intercept:g}"
        raise refusal("E-HU-001", "the scaling is not finite", measured, path=path)
    return slope, intercept


def _data_offset(header: Any, paired: bool, path: str) -> int:
    """Return the byte where the data begins."""
    value = float(header["vox_offset"])
    lowest = 0 if paired else int(header.single_vox_offset)
    if not np.isfinite(value) or value < 0 or value > 1 << 40 or 0 < value < lowest:
        raise refusal(
            "E-FILE-003", "the data offset is impossible", f"byte {value:g}", f"{lowest} or more", path=path
        )
    return max(int(value), lowest)


def _grid(header: Any, shape: tuple[int, int, int], path: str) -> Geometry:
    """Return the native geometry in LPS mm, from the one orientation or from two that agree."""
    unit = int(header["xyzt_units"]) & 7
    if unit not in _UNIT_MM:
        raise refusal("E-VOL-002", "an unknown unit of length", f"code {unit}", "m, mm or um", path=path)
    scale = np.diag([_UNIT_MM[unit]] * 3 + [1.0])
    found = []
    if int(header["sform_code"]) > 0:
        found.append(_geometry(RAS_TO_LPS @ scale @ header.get_sform(), shape, path))
    if int(header["qform_code"]) > 0:
        found.append(_geometry(RAS_TO_LPS @ scale @ _qform(header, path), shape, path))
    if not found:
        raise refusal(
            "E-GEO-008", "neither sform nor qform is set", "codes 0 and 0", "one above 0", path=path
        )
    if len(found) == 2:
        shift = largest_corner_shift_voxels(found[0], found[1])
        if not shift <= MAX_CORNER_SHIFT_VOXELS:
            raise refusal(
                "E-GEO-007",
                "sform and qform disagree",
                f"a corner moves by {shift:.2f} voxels",
                f"at most {MAX_CORNER_SHIFT_VOXELS}",
                "nobody can tell which is right, so the file is refused",
                path,
            )
    return found[0]


def _geometry(affine: NDArray[np.float64], shape: tuple[int, int, int], path: str) -> Geometry:
    return grid(shape, affine[:3, :3], affine[:3, 3], path)


def _qform(header: Any, path: str) -> NDArray[np.float64]:
    try:
        return np.asarray(header.get_qform(), dtype=np.float64)
    except (HeaderDataError, ValueError) as error:
        raise refusal("E-GEO-006", "the qform is not a rotation with spacings", path=path) from error

"""Volume files as lazy sources: canonical boxes of HU, or of labels, from MHD, NRRD and NIfTI."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.archive import meta_image, nifti, nrrd
from toolkit.archive.files import refusal, shown
from toolkit.archive.geometry import Box, Geometry, Reorientation, canonical
from toolkit.archive.hu import AIR_HU, MAX_HU, Tally
from toolkit.archive.stored import StoredArray, iter_slabs, read_boxes
from toolkit.archive.volume_header import VolumeHeader

MAX_LABEL = (1 << 31) - 1

_READERS = {
    ".mha": meta_image.read_header,
    ".mhd": meta_image.read_header,
    ".nrrd": nrrd.read_header,
    ".nhdr": nrrd.read_header,
    ".nii": nifti.read_header,
    ".nii.gz": nifti.read_header,
    ".hdr": nifti.read_header,
    ".img": nifti.read_header,
}
SUFFIXES = tuple(_READERS)


@dataclass(frozen=True, eq=False)
class FileVolume:
    """A scan in one volume file; a `VolumeSource`.

    Attributes
    ----------
    header
        What the file says; enough to rebuild the rest (`file_volume`).
    geometry
        Canonical geometry.
    reorientation
        How the canonical array comes out of the file's.
    """

    header: VolumeHeader
    geometry: Geometry
    reorientation: Reorientation

    def read_boxes(self, boxes: Sequence[Box], tally: Tally | None = None) -> list[NDArray[np.int16]]:
        """Read HU of canonical boxes in one pass.

        Returns
        -------
        list of int16 arrays
            ``rint(stored * slope + intercept)``, clipped to [-1024, 3071]: padding becomes -1024.

        Raises
        ------
        InputError
            E-HU-002 where a value is not finite; E-FILE codes as in `stored.read_boxes`.
        ValueError
            Where a box leaves the volume.
        """
        stored = self.header.stored
        found = read_boxes(stored, _native(boxes, self.geometry, self.reorientation, stored))
        if tally is not None:
            tally.below += sum(below_air(array, stored) for array in found)
        return [np.ascontiguousarray(self.reorientation.array(to_hu(array, stored))) for array in found]


@dataclass(frozen=True, eq=False)
class FileLabels:
    """A label volume in one file; a `LabelSource`. Attributes as in `FileVolume`."""

    header: VolumeHeader
    geometry: Geometry
    reorientation: Reorientation

    def read_boxes(self, boxes: Sequence[Box]) -> list[NDArray[np.integer]]:
        """Read labels of canonical boxes in one pass.

        Raises
        ------
        InputError
            E-MASK-003 where a value is negative, not a whole number or above 2^31 - 1; E-FILE codes
            as in `stored.read_boxes`.
        ValueError
            Where a box leaves the volume.
        """
        stored = self.header.stored
        found = read_boxes(stored, _native(boxes, self.geometry, self.reorientation, stored))
        return [np.ascontiguousarray(self.reorientation.array(to_labels(array, stored))) for array in found]

    def regions(self) -> Iterator[tuple[Box, NDArray[np.integer]]]:
        """Yield disjoint canonical boxes, with their labels, that hold every label above 0.

        One pass over the file, a few MiB at a time. Errors as in `read_boxes`.
        """
        stored = self.header.stored
        back = inverse(self.reorientation)
        for start, slab in iter_slabs(stored, 0, stored.shape_zyx[0]):
            labels = to_labels(slab, stored)
            for box in occupied(labels):
                a, b = box.start_zyx[0], box.stop_zyx[0]
                native = Box((start + a, *box.start_zyx[1:]), (start + b, *box.stop_zyx[1:]))
                array = self.reorientation.array(labels[box.slices])
                yield back.box(native, self.geometry.shape_zyx), np.array(array, order="C")


def open_header(path: str) -> VolumeHeader:
    """Read the header of a volume file, chosen by its suffix; E-VOL-002 where that is unknown."""
    name = Path(path).name.lower()
    suffix = ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix
    if suffix not in _READERS:
        raise refusal(
            "E-VOL-002", "a file type that is not supported", shown(suffix), ", ".join(SUFFIXES), path=path
        )
    with np.errstate(all="ignore"):  # what overflows is infinite, and is refused with its numbers
        return _READERS[suffix](path)


def open_volume(path: str) -> FileVolume:
    """Open a scan: .mha, .mhd, .nrrd, .nhdr, .nii, .nii.gz, .hdr or .img. Only the header is read.

    Raises
    ------
    InputError
        As the three readers say.
    """
    return file_volume(open_header(path))


def open_labels(path: str) -> FileLabels:
    """Open a label volume; as `open_volume`."""
    return file_labels(open_header(path))


def file_volume(header: VolumeHeader) -> FileVolume:
    """Return the lazy scan of a header that was read before."""
    return FileVolume(header, *canonical(header.geometry))


def file_labels(header: VolumeHeader) -> FileLabels:
    """Return the lazy label volume of a header that was read before."""
    return FileLabels(header, *canonical(header.geometry))


def to_hu(values: NDArray[Any], stored: StoredArray) -> NDArray[np.int16]:
    """Turn stored values (k, j, i) into int16 HU; E-HU-002 where one is not finite."""
    out = np.empty(values.shape, np.int16)
    if values.dtype.kind in "iu" and stored.slope == 1 and stored.intercept == 0:
        limits = np.iinfo(values.dtype)  # clip in the stored type: nothing wraps, nothing is widened
        low, high = max(AIR_HU, int(limits.min)), min(MAX_HU, int(limits.max))
        np.clip(values, low, high, out=out, casting="unsafe")
        return out
    bad = 0
    for plane, target in zip(values, out, strict=True):  # a plane at a time: float64 stays small
        with np.errstate(invalid="ignore"):  # of a signalling NaN
            hu = plane.astype(np.float64)
        if values.dtype.kind == "f":
            bad += hu.size - int(np.count_nonzero(np.isfinite(hu)))
        if not bad:
            with np.errstate(over="ignore"):  # infinite, and clipped
                hu *= stored.slope
                hu += stored.intercept
            target[...] = np.clip(np.rint(hu, out=hu), AIR_HU, MAX_HU, out=hu)
    if bad:
        measured = f"{bad} of {values.size} voxels are NaN or infinite"
        raise refusal(
            "E-HU-002", "values are not Hounsfield units", measured, "finite values", path=stored.path
        )
    return out


def below_air(values: NDArray[Any], stored: StoredArray) -> int:
    """Count the stored values that are less than -1024 HU."""
    if values.dtype.kind == "u" and stored.slope > 0 and stored.intercept >= AIR_HU:
        return 0
    lowest = AIR_HU - 0.5
    with np.errstate(invalid="ignore", over="ignore"):  # `to_hu` refuses the one and clips the other
        if stored.slope == 1 and stored.intercept == 0:
            return int(np.count_nonzero(values < lowest))
        slope, intercept = np.float64(stored.slope), stored.intercept
        return sum(int(np.count_nonzero(plane * slope + intercept < lowest)) for plane in values)


def to_labels(values: NDArray[Any], stored: StoredArray) -> NDArray[np.integer]:
    """Return stored values (k, j, i) as labels; E-MASK-003 where they are none."""
    plain = stored.slope == 1 and stored.intercept == 0
    if values.size == 0:
        return np.zeros(values.shape, np.int32)
    if values.dtype.kind in "iu" and plain:
        low, high = int(values.min()) if values.dtype.kind == "i" else 0, int(values.max())
        if low < 0 or high > MAX_LABEL:
            raise _not_labels(f"a value of {low if low < 0 else high}", stored.path)
        return values
    with np.errstate(invalid="ignore", over="ignore"):
        true = values.astype(np.float64)
        if not plain:
            true = true * stored.slope + stored.intercept
        whole = (np.rint(true) == true) & (true >= 0) & (true <= MAX_LABEL)
    if not whole.all():
        count = whole.size - int(np.count_nonzero(whole))
        raise _not_labels(
            f"{count} of the {whole.size} voxels checked, such as {true[~whole][0]:g}", stored.path
        )
    return true.astype(np.int32)


def _not_labels(measured: str, path: str) -> Exception:
    expected = f"whole numbers from 0 to {MAX_LABEL}"
    return refusal("E-MASK-003", "mask values are not labels", measured, expected, path=path)


def _native(
    boxes: Sequence[Box], geometry: Geometry, reorientation: Reorientation, stored: StoredArray
) -> list[Box]:
    """Return the file's boxes of canonical ones."""
    for box in boxes:
        if min(box.start_zyx) < 0 or any(
            b > n for b, n in zip(box.stop_zyx, geometry.shape_zyx, strict=True)
        ):
            raise ValueError(f"{box} leaves the volume of shape {geometry.shape_zyx}")
    return [reorientation.box(box, stored.shape_zyx) for box in boxes]


def inverse(reorientation: Reorientation) -> Reorientation:
    """Return the relabelling that leads back from canonical to native axes."""
    z, y, x = (reorientation.order.index(axis) for axis in range(3))
    flips = reorientation.flips
    return Reorientation((z, y, x), (flips[z], flips[y], flips[x]))


def occupied(labels: NDArray[np.integer]) -> Iterator[Box]:
    """Yield a box around the labels above 0 of each run of planes that holds some.

    A plane's maximum costs a tenth of looking for its voxels, and most planes of a mask are empty.
    """
    full = [bool(plane.max()) for plane in labels]
    edges = np.flatnonzero(np.diff([False, *full, False]))
    for a, b in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        rows = np.flatnonzero(labels[a:b].max(axis=(0, 2)))
        columns = np.flatnonzero(labels[a:b].max(axis=(0, 1)))
        yield Box((a, int(rows[0]), int(columns[0])), (b, int(rows[-1]) + 1, int(columns[-1]) + 1))

"""Frames of a DICOM Segmentation as runs on the grid of the scan, one decoded at a time."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.archive.codecs import DECODED, Layout, decode_frame
from toolkit.archive.dicom_fields import EXPLICIT_LITTLE, IMPLICIT_LITTLE
from toolkit.archive.dicom_seg import Frame, Segmentation
from toolkit.archive.files import refusal, shown
from toolkit.archive.geometry import Box
from toolkit.archive.mask_object import opened, trusted
from toolkit.archive.masks import MAX_RUNS, by_number, texture
from toolkit.archive.runs import Runs, encode, join
from toolkit.archive.seg_place import Place


def segment_runs(
    seg: Segmentation,
    places: Mapping[int, Place],
    wanted: Sequence[int],
    shape_zyx: tuple[int, int, int],
    path: str,
) -> dict[int, Runs]:
    """Return the runs of each wanted segment that has a voxel, on the canonical grid.

    Raises `InputError` E-DCM-003 without a decoder, E-FILE-003 for pixels that it cannot decode, E-SEG-002
    for a label that no segment describes, E-MASK-003 for texture.
    """
    parts: dict[int, list[Runs]] = defaultdict(list)
    known, count = np.array([0, *sorted(region.number for region in seg.regions)]), 0
    for frame, pixels in _decoded(seg, path):
        labels = _labels(pixels, frame, seg, known, wanted, path)
        found = _encode(labels, places[frame.number], shape_zyx)
        if found is None:
            continue
        parts[frame.segment].append(found)
        count += len(found)
        if count > MAX_RUNS:
            raise texture(path)
    if seg.kind == "LABELMAP":
        runs = join(parts[0], shape_zyx)
        return by_number(runs, runs.value)
    return {number: join(parts[number], shape_zyx) for number in sorted(parts)}


def _labels(
    pixels: NDArray[Any],
    frame: Frame,
    seg: Segmentation,
    known: NDArray[np.int64],
    wanted: Sequence[int],
    path: str,
) -> NDArray[np.integer]:
    """Return a frame with 0 where it marks nothing; in a label map what marks a wanted segment stays."""
    if seg.kind == "FRACTIONAL":
        return np.asarray(2 * pixels.astype(np.uint16) >= seg.maximum).view(np.uint8)
    if seg.kind == "BINARY":
        return np.asarray(pixels != 0).view(np.uint8)
    found = np.unique(pixels)
    strange = found[~np.isin(found, known)]
    if strange.size:
        measured = f"value {int(strange[0])} in frame {frame.number + 1}"
        expected = "numbers of the described segments"
        raise refusal("E-SEG-002", "labels that no segment describes", measured, expected, path=path)
    return np.asarray(np.where(np.isin(pixels, wanted), pixels, 0))


def _encode(labels: NDArray[np.integer], place: Place, shape_zyx: tuple[int, int, int]) -> Runs | None:
    """Return the runs of one frame at its place; None where it is empty."""
    rows = np.flatnonzero(labels.any(axis=1))
    if not rows.size:
        return None
    steps = (
        slice(None, None, -1 if place.flip_rows else 1),
        slice(None, None, -1 if place.flip_columns else 1),
    )
    plane = labels[steps]
    if place.row_axis > place.column_axis:
        plane = plane.T
    rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    start = [int(rows[0]), int(columns[0])]
    stop = [int(rows[-1]) + 1, int(columns[-1]) + 1]
    cut = plane[start[0] : stop[0], start[1] : stop[1]]
    start.insert(place.slice_axis, place.slice_number)
    stop.insert(place.slice_axis, place.slice_number + 1)
    box = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
    return encode(box, np.ascontiguousarray(np.expand_dims(cut, place.slice_axis)), shape_zyx)


def _decoded(seg: Segmentation, path: str) -> Iterator[tuple[Frame, NDArray[Any]]]:
    """Yield frames that may hold a voxel, with their stored values (rows, columns)."""
    if seg.syntax in (EXPLICIT_LITTLE, IMPLICIT_LITTLE):
        yield from _plain(seg, path)
        return
    if seg.syntax not in DECODED:
        action = "the file is refused; write it anew without compression"
        measured = f"transfer syntax {shown(seg.syntax)}"
        raise refusal("E-DCM-003", "no decoder for the segmentation", measured, "", action, path)
    yield from _compressed(seg, path)


def _compressed(seg: Segmentation, path: str) -> Iterator[tuple[Frame, NDArray[Any]]]:
    """Yield compressed frames, each after its codestream was compared with the header."""
    from pydicom.encaps import generate_frames

    wanted = {frame.number: frame for frame in seg.frames}
    layout = Layout(seg.rows, seg.columns, seg.bits, seg.bits, signed=False)
    with trusted("seg", path), opened(path) as found:
        found.stream.seek(seg.pixel_offset)
        count = int(found.dataset.get("NumberOfFrames") or 1)
        for number, data in enumerate(generate_frames(found.stream, number_of_frames=count)):
            frame = wanted.pop(number, None)
            if frame is not None:
                yield frame, decode_frame(data, seg.syntax, layout)
        if wanted:
            raise ValueError("fewer frames than the header counts")


def _plain(seg: Segmentation, path: str) -> Iterator[tuple[Frame, NDArray[Any]]]:
    """Yield uncompressed frames; of single bits, packed across frames (PS3.5 8.1.1), no empty ones."""
    size = seg.rows * seg.columns
    with trusted("seg", path), opened(path) as found:
        for frame in seg.frames:
            first = frame.number * size * seg.bits
            begin, skip = divmod(first, 8)
            end = (first + size * seg.bits + 7) // 8
            found.stream.seek(seg.pixel_offset + begin)
            data = found.stream.read(end - begin)
            if not data.strip(b"\0"):
                continue
            if seg.bits == 1:
                bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
                yield frame, bits[skip : skip + size].reshape(seg.rows, seg.columns)
            else:
                yield frame, np.frombuffer(data, f"<u{seg.bits // 8}").reshape(seg.rows, seg.columns)

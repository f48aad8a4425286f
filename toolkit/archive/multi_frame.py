"""Enhanced and Legacy Converted Enhanced CT (PS3.3 A.38.1, A.70): one file becomes one header a frame.

Everything behind this treats a frame as it treats a file: frames are ordered by their own positions,
never by their number.
"""

from pathlib import Path
from typing import Any

from toolkit.archive.dicom_fields import DEFLATED, SliceHeader, trim
from toolkit.archive.dicom_general import fields_of, sequences
from toolkit.errors import InputError, Problem

MULTI_FRAME_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
MAX_FRAMES = 20_000

# PS3.3 C.7.6.16.2, C.8.15.3, C.7.6.16.2.25: where a frame keeps what a single image has at the top
_GROUPS = {
    "PlanePositionSequence": ("position",),
    "PlaneOrientationSequence": ("orientation",),
    "PixelMeasuresSequence": ("spacing",),
    "PixelValueTransformationSequence": ("slope", "intercept", "rescale_type"),
    "CTReconstructionSequence": ("kernel",),
    "UnassignedSharedConvertedAttributesSequence": ("kernel", "padding", "padding_limit", "acquisition"),
    "UnassignedPerFrameConvertedAttributesSequence": ("kernel", "padding", "padding_limit", "acquisition"),
}
_NEEDED = ("position", "orientation", "spacing", "slope", "intercept")
_UNIT = "rescale_type"


def is_multi_frame(header: SliceHeader) -> bool:
    """Tell whether a CT file holds frames with places of their own."""
    return header.sop_class in MULTI_FRAME_CT


def expand(path: Path, header: SliceHeader) -> list[SliceHeader]:
    """Return one header a frame, in the order of the file.

    Raises `InputError` E-DCM-005 where a functional group that geometry or HU need is missing or
    broken, E-HU-002 where frames are in another unit than HU.
    """
    shared, frames = _functional_groups(path, header)
    count = int(header.frames or 0)
    if not 1 <= count <= MAX_FRAMES or len(frames) != count:
        measured = f"{len(frames)} functional groups for {count} frames"
        raise _refuse(
            "functional groups and frames do not match", measured, f"1 to {MAX_FRAMES} of both", path
        )
    length = int(header.rows or 0) * int(header.columns or 0) * int(header.bits_allocated or 0) // 8
    try:
        common = {name: value for group in shared for name, value in _fields(group).items()}
        said = [_fields(frame) for frame in frames]
    except MemoryError:
        raise
    except Exception as error:  # as in `_functional_groups`: items are parsed when they are looked at
        raise _refuse("functional groups cannot be read", type(error).__name__, "", path) from error
    made = []
    for number, own in enumerate(said, start=1):
        found = {**common, **own}
        missing = [name for name in _NEEDED if found.get(name) in (None, ())]
        if missing:
            raise _refuse("functional groups incomplete", f"frame {number} has no {missing[0]}", "", path)
        if str(found.get(_UNIT, "")).upper() not in ("", "HU"):
            problem = Problem(
                "E-HU-002", "RescaleType", str(found[_UNIT])[:16], "HU", "File skipped", (str(path),)
            )
            raise InputError(problem)
        if header.uncompressed or header.transfer_syntax == DEFLATED:
            found["pixel_offset"] = header.pixel_offset + (number - 1) * length
            found["pixel_length"] = min(length, header.pixel_length - (number - 1) * length)
        made.append(header._replace(**found, frame=number))
    return made


def _refuse(what: str, measured: str, expected: str, path: Path) -> InputError:
    return InputError(Problem("E-DCM-005", what, measured, expected, "File skipped", (str(path),)))


def _functional_groups(path: Path, header: SliceHeader) -> tuple[list[Any], list[Any]]:
    """Return the items that all frames share (one or none), and the items of the frames."""
    shared, frames = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
    try:
        dataset = sequences(path, header, [shared, frames])
        return list(dataset.get(shared) or ()), list(dataset.get(frames) or ())
    except MemoryError:
        raise
    except Exception as error:  # pydicom raises nearly anything on malformed files
        raise _refuse("functional groups cannot be read", type(error).__name__, "", path) from error


def _fields(group: Any) -> dict[str, Any]:
    """Return what one functional group item says, as fields of a `SliceHeader`."""
    found: dict[str, Any] = {}
    for keyword, names in _GROUPS.items():
        for item in group.get(keyword) or ():
            said = fields_of(item)
            found.update({name: said[name] for name in names if said.get(name) is not None})
    content = group.get("FrameContentSequence") or ()
    if content and content[0].get("FrameAcquisitionNumber") is not None:
        found["acquisition"] = int(content[0].FrameAcquisitionNumber)
    kind = group.get("CTImageFrameTypeSequence") or ()
    if kind and kind[0].get("FrameType"):
        found["image_type"] = trim("\\".join(kind[0].FrameType))
    return found

"""The nodules of a phantom patient as an LIDC annotation file: four readers outline each of them.

The known answer: readers 1 and 2 outline the truth, reader 3 one pixel more, reader 4 one pixel less,
so "inside for at least 2 of 4 readers" is the truth, voxel for voxel.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from toolkit.phantom.anatomy import PhantomNodule, PhantomPatient
from toolkit.phantom.outline import outlines, traceable
from toolkit.phantom.write_dicom import series_uid, slice_positions_mm, sop_uid, study_uid

_CROSS = ndimage.generate_binary_structure(2, 1)
_CUBE = np.ones((3, 3, 3))
_HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<LidcReadMessage uid="{message}" xmlns="http://www.nih.gov" \
xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" \
xsi:schemaLocation="http://www.nih.gov http://troll.rad.med.umich.edu/lidc/LidcReadMessage.xsd">
<ResponseHeader>
<Version>1.8.1</Version>
<MessageId>{number}</MessageId>
<DateRequest>2000-01-01</DateRequest>
<TimeRequest>12:00:00</TimeRequest>
<RequestingSite>removed</RequestingSite>
<ServicingSite>removed</ServicingSite>
<TaskDescription>Second unblinded read</TaskDescription>
<CtImageFile>removed</CtImageFile>
<SeriesInstanceUid>{series}</SeriesInstanceUid>
<DateService>2000-01-01</DateService>
<TimeService>12:00:00</TimeService>
<ResponseDescription>1 - Reading complete</ResponseDescription>
<StudyInstanceUID>{study}</StudyInstanceUID></ResponseHeader>
"""


def write_lidc(patient: PhantomPatient, seed: int, path: Path) -> None:
    """Write the annotation file that goes with the patient's DICOM series.

    Raises
    ------
    OSError
        Where the disk refuses.
    """
    series, study = series_uid(patient, seed), study_uid(patient, seed)
    lines = [_HEAD.format(message=f"{study}.0", number=patient.index + 1, series=series, study=study)]
    readings = [reader_masks(nodule.mask) for nodule in patient.nodules]
    for reader in range(4):
        lines.append("<readingSession>\n<annotationVersion>3.12</annotationVersion>\n")
        lines.append(f"<servicingRadiologistID>{1000 + reader}</servicingRadiologistID>\n")
        for k, (nodule, masks) in enumerate(zip(patient.nodules, readings, strict=True), start=1):
            # Each reader has numbers of his own: a session like another one would pass for its copy.
            lines.append(f"<unblindedReadNodule>\n<noduleID>{1000 * reader + k}</noduleID>\n")
            lines.append(_characteristics(nodule, reader))
            lines.extend(_rois(patient, seed, nodule, masks[reader]))
            lines.append("</unblindedReadNodule>\n")
        lines.append("</readingSession>\n")
    lines.append("</LidcReadMessage>\n")
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def reader_masks(mask_zyx: NDArray[np.uint8]) -> list[NDArray[np.bool_]]:
    """Return what each of the four readers outlines, on the mask's box grown by two pixels in plane."""
    truth = np.pad(mask_zyx.astype(bool), ((0, 0), (2, 2), (2, 2)))
    more = traceable(np.stack([ndimage.binary_dilation(part, _CROSS) for part in truth]))
    less = np.stack([ndimage.binary_erosion(part, _CROSS) for part in truth])
    for k, part in enumerate(truth):
        if ndimage.label(less[k])[1] != 1 or ndimage.label(part)[1] != 1:
            less[k] = part  # a reader who lost a slice, or tore it, would mark another nodule
    less = traceable(less)
    if ndimage.label(less, _CUBE)[1] != 1:
        less = truth
    return [truth, truth, more, less]


def _characteristics(nodule: PhantomNodule, reader: int) -> str:
    """Ratings as a reader of this nodule would give them; malignancy follows the label alone."""
    p = nodule.params
    scale = {
        "subtlety": 5 if p.diameter_mm > 8 and p.texture == "solid" else 4,
        "internalStructure": 1,
        "calcification": 6,
        "sphericity": 5 - round(2 * p.lobulation),
        "margin": 5 - round(4 * p.blur),
        "lobulation": 1 + round(4 * p.lobulation),
        "spiculation": 1 + round(4 * p.spiculation),
        "texture": {"solid": 5, "part-solid": 3, "ground-glass": 1}[p.texture],
        "malignancy": ((1, 2), (4, 5))[nodule.label][(p.seed >> reader) & 1],
    }
    inner = "".join(f"<{name}>{value}</{name}>\n" for name, value in scale.items())
    return f"<characteristics>\n{inner}</characteristics>\n"


def _rois(
    patient: PhantomPatient, seed: int, nodule: PhantomNodule, mask_zyx: NDArray[np.bool_]
) -> Iterator[str]:
    positions = slice_positions_mm(patient)
    first_z, first_row, first_column = nodule.box.start_zyx
    for k, part in enumerate(mask_zyx, start=first_z):
        for chain in outlines(part):
            yield (
                f"<roi>\n<imageZposition>{positions[k]:.6f} </imageZposition>\n"
                f"<imageSOP_UID>{sop_uid(patient, seed, k)}</imageSOP_UID>\n<inclusion>TRUE</inclusion>\n"
            )
            for row, column in chain:
                x, y = column + first_column - 2, row + first_row - 2
                yield f"<edgeMap>\n<xCoord>{x}</xCoord>\n<yCoord>{y}</yCoord>\n</edgeMap>\n"
            yield "</roi>\n"

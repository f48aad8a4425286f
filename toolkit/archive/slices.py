"""The CT slices of an archive as they come, folder by folder: what is a slice, and what is something else."""

import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.archive.dicom_fields import SliceFile, SliceHeader
from toolkit.archive.entries import ScannedFolder, frame_headers, slice_header
from toolkit.archive.files import shown
from toolkit.archive.multi_frame import MULTI_FRAME_CT
from toolkit.archive.packed import PackedSlices
from toolkit.archive.scan import broken
from toolkit.archive.slice_checks import CT_IMAGE
from toolkit.errors import Problem

# ImageType values (PS3.3 C.7.6.1.1.2, C.8.16.1) of pictures that are no cross-sections of a patient,
# as scanners and workstations write them; all else, reformatted planes too, is read.
_PICTURES = {
    "LOCALIZER": "CT localizers",
    **dict.fromkeys(("SCREEN SAVE", "SCREENSAVE", "SCREEN", "CAPTURE"), "CT screen saves"),
    **dict.fromkeys(("DOSE", "DOSE_INFO", "DOSE INFO", "DOSE REPORT", "DOSE_REPORT"), "CT dose reports"),
    **dict.fromkeys(
        (
            "MIP",
            "MAX_IP",
            "MINIP",
            "MIN_IP",
            "MAXIMUM",
            "MINIMUM",
            "PROJECTION IMAGE",
            "VRT",
            "VOLREN",
            "SSD",
        ),
        "CT projections",
    ),
}
SLICE_KINDS = ("dicom", "frames", "broken")


@dataclass
class Slices:
    """The CT slices of some folders by series UID, what cannot be read, and what is something else.

    Folders may come in any order.
    """

    by_uid: dict[str, list[tuple[str, PackedSlices]]] = field(default_factory=lambda: defaultdict(list))
    unread: list[tuple[str, str, Problem]] = field(default_factory=list)
    other: list[tuple[str, str]] = field(default_factory=list)

    def add_folder(self, folder: str, scanned: ScannedFolder) -> None:
        """Take what is DICOM of the files of a folder: its slices, and entries of `SLICE_KINDS`."""
        table = scanned.slices
        header = next(table.headers(), SliceHeader())
        here: dict[str, list[SliceFile]] = defaultdict(list)
        if header.series_uid and table.alike("series_uid", *_DECIDING) and not not_a_slice(header):
            all_of_it = PackedSlices.of_folder(folder, scanned.packed, len(table.names))
            self.by_uid[header.series_uid].append((folder, all_of_it))
        else:
            for name, size, time, header in zip(*table[:3], table.headers(), strict=True):
                self._add(SliceFile(os.path.join(folder, name), size, time, header), here)  # noqa: PTH118
        for name, size, time, kind, facts in scanned.entries:
            path = os.path.join(folder, name)  # noqa: PTH118
            if kind == "broken":
                uid, problem = broken(facts)
                self.unread.append((path, uid, problem))
            elif kind in SLICE_KINDS:
                for header in frame_headers(facts) if kind == "frames" else [slice_header(facts)]:
                    self._add(SliceFile(path, size, time, header), here)
        for uid, files in here.items():
            self.by_uid[uid].append((folder, PackedSlices(files)))

    def files_of(self, uid: str) -> PackedSlices:
        """Return the slices of a series, in the order of their folders."""
        found = self.by_uid[uid]
        if len(found) > 1:
            found = sorted(found, key=lambda part: Path(part[0]))
        return PackedSlices.joined([files for _, files in found])

    def owners(self, sop_uids: set[str]) -> dict[str, str]:
        """Return the series of those of some images that are here."""
        if not sop_uids:
            return {}
        found: dict[str, str] = {}
        for uid in sorted(self.by_uid):
            images = self.files_of(uid).table().column("sop_uid")
            found |= dict.fromkeys(sop_uids.intersection(images), uid)
        return found

    def _add(self, file: SliceFile, here: dict[str, list[SliceFile]]) -> None:
        """Take one slice, or say what else it is."""
        path, header = file.path, file.header
        other = not_a_slice(header)
        if other == MULTI_FRAME:
            measured = f"{header.frames} frames of another class than Enhanced CT"
            action = "File skipped; only Enhanced and Legacy Converted Enhanced CT are read"
            problem = Problem("E-DCM-005", "multi-frame object", measured, "", action, (path,))
            self.unread.append((path, header.series_uid, problem))
        elif other:
            self.other.append((path, other))
        elif not header.series_uid:  # a header that ends early looks like this
            what, measured = "header incomplete", "no usable SeriesInstanceUID"
            problem = Problem("E-DCM-002", what, measured, "", "File skipped", (path,))
            self.unread.append((path, "", problem))
        else:
            here[header.series_uid].append(file)


MULTI_FRAME = "multi-frame CT of another class"
_DECIDING = ("sop_class", "modality", "frames", "image_type")


def not_a_slice(header: SliceHeader) -> str:
    """Return what a DICOM file is, if it is no slice of a CT; `_DECIDING` fields tell."""
    if header.sop_class not in (CT_IMAGE, *MULTI_FRAME_CT):
        if header.modality == "CT" and (header.frames or 1) > 1:
            return MULTI_FRAME
        return f"DICOM {shown(header.modality) or 'objects'} that is no CT image"
    values = header.image_type.upper().split("\\")
    return next((_PICTURES[value] for value in values if value in _PICTURES), "")

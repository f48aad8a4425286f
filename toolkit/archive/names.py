"""The usual conventions of file names: what is a volume, what is a mask, what belongs together."""

import re
from pathlib import Path

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd")
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
LUNG_MASK_FOLDERS = ("seg-lungs-luna16",)  # beside the scans of LUNA16, under their names
MASK_FOLDERS = {"labelstr": "imagestr", "labelsts": "imagests"}

_MASK_NAME = re.compile(r"(^|[._-])(mask|masks|seg|segs|segmentation|label|labels)$", re.IGNORECASE)
_IMAGE_NAME = re.compile(r"((^|[._-])(image|img|ct|scan|vol|volume)|_0000)$", re.IGNORECASE)


def volume_suffix(name: str) -> str:
    """Return the suffix of a volume file's name, or an empty string."""
    return next((suffix for suffix in VOLUME_SUFFIXES if name.lower().endswith(suffix)), "")


def is_mask_name(path: Path) -> bool:
    """Tell whether a volume file is a mask by its name or by its folder's."""
    stem = path.name[: len(path.name) - len(volume_suffix(path.name))]
    return path.parent.name.lower() in MASK_FOLDERS or bool(_MASK_NAME.search(stem))


def common_stem(path: Path) -> str:
    """Return what the name of an image and the names of its masks have in common."""
    stem = path.name[: len(path.name) - len(volume_suffix(path.name))]
    return _IMAGE_NAME.sub("", _MASK_NAME.sub("", stem))

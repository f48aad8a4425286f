"""What belongs together: masks with images by reference or by name, positions with the scans they name."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from toolkit.archive.case import Case, MaskFile
from toolkit.archive.cases import digest_of, mask_digest, series_uid, volume_case
from toolkit.archive.entries import FileEntry
from toolkit.archive.luna16 import LunaRow, points_of
from toolkit.archive.names import MASK_FOLDERS, common_stem, is_mask_name, volume_suffix
from toolkit.archive.scan import mask_head
from toolkit.archive.slices import Slices
from toolkit.errors import Problem


def join_objects(
    objects: Iterable[tuple[Path, FileEntry]], slices: Slices, refused: list[Problem]
) -> Iterator[tuple[str, MaskFile, str]]:
    """Yield the series that each DICOM mask object belongs to, the mask, and the digest of its content.

    It is the series that the object names, else the one that holds the images that it references. None
    of them here is E-MASK-002, several are E-MASK-005, added to `refused`.
    """
    heads = [(path, entry, mask_head(entry.facts)) for path, entry in objects]
    owner = slices.owners({uid for *_, head in heads if not head.series_uids for uid in head.sop_uids})
    for path, entry, head in heads:
        named = head.series_uids or {owner[uid] for uid in head.sop_uids if uid in owner}
        here = [uid for uid in named if uid in slices.by_uid]
        action = "File skipped; name its image in a manifest (--cases)"
        if len(here) == 1:
            mask = MaskFile(str(path), "seg" if entry.kind == "seg" else "rtstruct", regions=head.regions)
            yield here[0], mask, mask_digest(path, entry)
        elif here:
            what, measured = "mask of several series", f"{len(here)} of them in the archive"
            refused.append(Problem("E-MASK-005", what, measured, "1", action, (str(path),)))
        else:
            measured = f"references {len(head.series_uids)} series, {len(head.sop_uids)} images, none here"
            refused.append(Problem("E-MASK-002", "mask without an image", measured, "", action, (str(path),)))


def volume_cases(root: Path, volumes: Mapping[Path, FileEntry], refused: list[Problem]) -> list[Case]:
    """Pair volumes with their masks by folder and name."""
    folders = {(path.parent.parent, path.parent.name.lower()): path.parent for path in volumes}
    masks: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    images: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in volumes:
        if is_mask_name(path):
            partner = MASK_FOLDERS.get(path.parent.name.lower(), path.parent.name.lower())
            folder = folders.get((path.parent.parent, partner), path.parent)
            masks[folder, common_stem(path)].append(path)
        else:
            images[path.parent, common_stem(path)].append(path)
    cases = []
    for key, paths in images.items():
        found = sorted(masks.pop(key, []))
        for path in paths:
            suffix = volume_suffix(path.name)
            own = [mask for mask in found if volume_suffix(mask.name) == suffix] if len(paths) > 1 else []
            files = [
                (MaskFile(str(mask), "labels"), mask_digest(mask, volumes[mask])) for mask in own or found
            ]
            name = path.relative_to(root).as_posix()
            case_id = name if len(paths) > 1 else name[: -len(suffix)]
            cases.append(volume_case(case_id, case_id, path, volumes[path], files))
    for paths in masks.values():
        action = "File skipped; name its image in a manifest (--cases)"
        refused.extend(
            Problem("E-MASK-002", "mask without an image", action=action, files=(str(p),)) for p in paths
        )
    return cases


def positions(tables: Sequence[tuple[str, FileEntry]]) -> dict[str, list[LunaRow]]:
    """Return the rows of tables of positions by series UID."""
    rows: dict[str, list[LunaRow]] = defaultdict(list)
    for _, entry in tables:
        for row in entry.facts:
            rows[row[0]].append(LunaRow(*row))
    return rows


def with_positions(case: Case, rows: Mapping[str, list[LunaRow]]) -> Case:
    """Give a case without masks the positions that tables have for its series, or its file's name."""
    found = rows.get(series_uid(case)) or rows.get(case.case_id.rpartition("/")[2])
    if case.masks or not found:
        return case
    points = points_of(found)
    told = [f"{point.center_lps_mm} {point.diameter_mm}" for point in points]
    return replace(case, points=points, digest=digest_of([case.digest, *told]))

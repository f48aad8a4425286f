"""The page of a nodule store: what is in it, what was refused, which crop settings would fit."""

import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import Problem, UsageError
from toolkit.report import figures, sections
from toolkit.report.contents import Contents, label_name, notes, read_contents, refusals, source_spacings
from toolkit.report.flags import FLAGS, flags_of
from toolkit.report.measure import Survey, survey
from toolkit.report.page import Section, is_ours, render
from toolkit.report.sheet import Sheet, make_sheet, sheet_json
from toolkit.report.suggest import Advice, Crop, Extent, MarginOf, ball, suggest
from toolkit.store.files import write_atomic

HEAD_BYTES = 4096  # holds the generator's name


@dataclass(frozen=True, eq=False)
class Inspection:
    """Everything that was found in a store, and its page."""

    contents: Contents
    survey: Survey
    flags: tuple[tuple[str, ...], ...]
    advice: Advice | None
    sheet: Sheet
    page: bytes


def inspect_store(path: Path, margin_of: MarginOf, most: int | None = None) -> Inspection:
    """Look at every nodule of a store and make its page.

    Parameters
    ----------
    margin_of
        Margin (voxels) that a crop of some size (voxels) and spacing (mm) should have.
    most
        Show no more nodules than that, flagged ones first.

    Raises
    ------
    StoreError
        E-STORE-001 where there is no store, E-STORE-003 where it is damaged.
    """
    contents = read_contents(path)
    store = contents.store
    found = survey(store)
    flags = tuple(flags_of(store.nodules, found.measured, contents.digests))
    advice = _advice(contents, found, margin_of)
    sheet = make_sheet(store, found.measured, flags, most)
    return Inspection(contents, found, flags, advice, sheet, make_page(contents, found, flags, advice, sheet))


def write_page(out: Path, page: bytes, *, force: bool = False) -> None:
    """Write a page in one step; raises `UsageError` E-OUT-001 where another file has its name."""
    if out.exists() and not force and not _is_page(out):
        action = "Left as it is; --force replaces it, --out names another"
        raise UsageError(
            Problem("E-OUT-001", "something else is there already", action=action, files=(str(out),))
        )
    write_atomic(out, page)


def _is_page(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return is_ours(file.read(HEAD_BYTES))


def _advice(contents: Contents, found: Survey, margin_of: MarginOf) -> Advice | None:
    """Fit crop settings to the masks, or to the stated diameters where there are none."""
    store = contents.store
    extents = []
    for nodule, one in zip(store.nodules, found.measured, strict=True):
        diameter = nodule.diameter_mm
        if diameter is None or not (math.isfinite(diameter) and diameter > 0):
            continue
        reach = max(one.reach_mm or 0.0, diameter / 2)  # a mask that is cut tells too little
        volume = ball(diameter) if nodule.volume_mm3 is None else nodule.volume_mm3
        extents.append(Extent(reach, diameter, volume))
    _, within = source_spacings(contents.entries)
    source = float(np.median(within)) if within else None
    return suggest(extents, Crop(store.spacing_mm, store.size, store.margin), margin_of, source)


def make_page(
    contents: Contents,
    found: Survey,
    flags: tuple[tuple[str, ...], ...],
    advice: Advice | None,
    sheet: Sheet,
) -> bytes:
    """Return the page of what was found."""
    store = contents.store
    data = sheet_json(sheet, store, found.measured, flags)
    parts = [
        Section("summary", "Summary", sections.summary(contents, flags)),
        Section("crops", "Crops", sections.crops(contents, sheet, data, flags)),
        Section("distributions", "Distributions", figures.distributions(contents, found)),
        Section(
            "refused",
            "Refused and noted",
            sections.fates(refusals(contents.entries), notes(contents.entries)),
        ),
        Section("settings", "Crop settings", figures.settings(advice)),
    ]
    name = str(store.settings.get("config_digest", ""))[:8]
    lead = f"Settings {name}. Identifiers are hashes; the pixels are not de-identified."
    blocks = ((f"n{k}", f"{strip.image} {strip.mask}".strip()) for k, strip in enumerate(sheet.strips))
    scripts = ("slices.js", "sheet.js") if store.nodules else ()
    return render("Nodule store", lead, parts, scripts, blocks)


def as_json(found: Inspection) -> dict[str, Any]:
    """Return the figures of an inspection as plain JSON types."""
    contents = found.contents
    status = Counter(entry.status for entry in contents.entries)
    raised = Counter(key for keys in found.flags for key in keys)
    nodules = contents.store.nodules
    return {
        "cases": {name: status[name] for name in ("done", "empty", "refused")},
        "nodules": len(nodules),
        "patients": len({nodule.patient_id for nodule in nodules}),
        "labels": dict(Counter(label_name(nodule.label) for nodule in nodules)),
        "mask_sources": dict(Counter(nodule.mask_source for nodule in nodules)),
        "unfinished_shards": contents.unfinished,
        "flags": {flag.key: raised[flag.key] for flag in FLAGS},
        "flagged": {
            nodule.nodule_id: list(keys) for nodule, keys in zip(nodules, found.flags, strict=True) if keys
        },
        "refused": [asdict(group) for group in refusals(contents.entries)],
        "notes": [asdict(group) for group in notes(contents.entries)],
        "advice": None if found.advice is None else asdict(found.advice),
        "shown": len(found.sheet.indices),
        "page_bytes": len(found.page),
    }

"""The contact sheet: a few slices of every crop, small enough that thousands fit in one page."""

import io
import json
import math
from base64 import b64encode
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from toolkit.memory import cores
from toolkit.progress import bar
from toolkit.report.contents import label_name
from toolkit.report.flags import FLAGS
from toolkit.report.measure import INSIDE, Measured
from toolkit.store.reader import Store

# Hounsfield units to eight bits: 3 HU a step where soft tissue lies, 8 where lung does.
TONE_HU = (-1024, -160, 240, 1200)
TONE = (0, 110, 240, 255)
BUDGET = 52_000_000  # bytes of all strips as text; browsers open such a page in about a second
CONTEXT_MM = 4.0  # seen above and below the mask
LEAST_MM = 8.0  # seen above and below the centre
SAMPLE = 32


@dataclass(frozen=True)
class Level:
    """How much is held of a nodule: slices (odd, so that one is the middle), pixels a side, quality."""

    slices: int
    pixels: int
    quality: int


LEVELS = (Level(17, 96, 80), Level(13, 64, 75), Level(9, 64, 70), Level(7, 64, 60), Level(5, 48, 60))


@dataclass(frozen=True)
class Strip:
    """The slices of one nodule, below each other.

    Attributes
    ----------
    image
        WebP, `TONE` of the HU; base64.
    mask
        PNG of one bit; base64, empty where no pixel is in the mask.
    offsets_mm
        Where each slice lies above (+) or below the crop's centre.
    """

    image: str
    mask: str
    offsets_mm: tuple[float, ...]


@dataclass(frozen=True)
class Sheet:
    """What the page holds: the indices of the nodules shown, their strips, and at what level."""

    indices: tuple[int, ...]
    strips: tuple[Strip, ...]
    level: Level
    pixels: int


def make_sheet(
    store: Store,
    measured: Sequence[Measured],
    flags: Sequence[Sequence[str]],
    most: int | None = None,
    budget: int = BUDGET,
) -> Sheet:
    """Make the strips of all nodules, or of the `most` that `choose` names, within some bytes of text."""
    indices = choose([bool(raised) for raised in flags], len(store) if most is None else most)
    reach = [_shown_mm(one, nodule.diameter_mm) for one, nodule in zip(measured, store.nodules, strict=True)]
    level, count = _affordable(store, indices, reach, budget)
    if count < len(indices):
        indices = choose([bool(raised) for raised in flags], count)
    strips = []
    with bar("contact sheet", len(indices), "nodules") as advance:
        for strip in _in_threads(store, indices, reach, level):
            strips.append(strip)
            advance()
    return Sheet(tuple(indices), tuple(strips), level, min(store.size, level.pixels))


def choose(flagged: Sequence[bool], most: int) -> list[int]:
    """Return at most `most` indices in order: flagged ones first, then evenly from the others."""
    doubtful = [i for i, raised in enumerate(flagged) if raised]
    others = [i for i, raised in enumerate(flagged) if not raised]
    taken = evenly(doubtful, most)
    return sorted(taken + evenly(others, most - len(taken)))


def evenly(items: Sequence[int], most: int) -> list[int]:
    """Return at most `most` items, evenly spread over all."""
    if most >= len(items):
        return list(items)
    return [items[k * len(items) // most] for k in range(most)]


def _shown_mm(one: Measured, diameter_mm: float | None) -> float:
    """Return how far above and below the centre slices are worth showing."""
    reach = (diameter_mm or 0.0) / 2 if one.reach_mm is None or math.isnan(one.reach_mm) else one.reach_mm
    return max(LEAST_MM, reach + CONTEXT_MM)


def slice_indices(size: int, spacing_mm: float, shown_mm: float, most: int) -> list[int]:
    """Return up to `most` slices of a crop, evenly about its middle slice, which is one of them."""
    middle = size // 2
    half = min(size - 1 - middle, math.ceil(shown_mm / spacing_mm))
    return sorted({middle + round(k) for k in np.linspace(-half, half, most)})


def _affordable(
    store: Store, indices: Sequence[int], reach: Sequence[float], budget: int
) -> tuple[Level, int]:
    """Return the best level at which all fit, judged by a sample; else the last, and how many fit."""
    sample = evenly(indices, SAMPLE)
    size = 0.0
    for level in LEVELS:
        strips = [make_strip(store, i, reach[i], level) for i in sample]
        size = sum(len(s.image) + len(s.mask) + 50 for s in strips) / max(1, len(strips))
        if size * len(indices) <= budget:
            return level, len(indices)
    return LEVELS[-1], int(budget / size)


def _in_threads(
    store: Store, indices: Sequence[int], reach: Sequence[float], level: Level
) -> Iterator[Strip]:
    """Make strips in threads: the encoder works outside the interpreter's lock."""
    with ThreadPoolExecutor(cores()) as pool:
        rest = iter(indices)
        while run := list(islice(rest, 256)):
            yield from pool.map(lambda i: make_strip(store, i, reach[i], level), run)


def make_strip(store: Store, index: int, shown_mm: float, level: Level) -> Strip:
    """Return some slices of a nodule's crop, without its margin, as one image and one mask."""
    chosen = slice_indices(store.size, store.spacing_mm, shown_mm, level.slices)
    inner = slice(store.margin, store.margin + store.size)
    rows = [store.margin + z for z in chosen][::-1]  # the uppermost slice first
    hu = np.asarray(store.image(index)[rows, inner, inner])
    occupancy = np.asarray(store.mask(index)[rows, inner, inner])
    pixels = min(store.size, level.pixels)
    picture = _stacked(np.interp(hu, TONE_HU, TONE).round().astype(np.uint8), pixels)
    mask = _stacked(occupancy, pixels) >= INSIDE
    center = (store.size - 1) / 2
    offsets = tuple(round((z - center) * store.spacing_mm, 2) for z in reversed(chosen))
    encoded = _encode(Image.fromarray(picture), format="WEBP", quality=level.quality, method=2)
    drawn = _encode(Image.fromarray(mask), format="PNG") if mask.any() else ""
    return Strip(encoded, drawn, offsets)


def _stacked(slices: NDArray[np.uint8], pixels: int) -> NDArray[np.uint8]:
    """Bring slices (k, s, s) to `pixels` a side and lay them below each other (k * pixels, pixels)."""
    if slices.shape[1] != pixels:
        small = [Image.fromarray(one).resize((pixels, pixels), Image.Resampling.BILINEAR) for one in slices]
        slices = np.stack([np.asarray(one) for one in small])
    return slices.reshape(-1, pixels)


def _encode(image: Image.Image, **how: Any) -> str:
    data = io.BytesIO()
    image.save(data, **how)
    return b64encode(data.getvalue()).decode()


def sheet_json(
    sheet: Sheet, store: Store, measured: Sequence[Measured], flags: Sequence[Sequence[str]]
) -> str:
    """Return what the script needs to know, by column, safe inside a script element."""
    bit = {flag.key: 1 << k for k, flag in enumerate(FLAGS)}
    nodules = [store.nodules[i] for i in sheet.indices]
    value = {
        "pixels": sheet.pixels,
        "toneHu": TONE_HU,
        "tone": TONE,
        "flags": [[flag.key, flag.short] for flag in FLAGS],
        "id": [n.nodule_id for n in nodules],
        "patient": [n.patient_id for n in nodules],
        "label": [label_name(n.label) for n in nodules],
        "diameter": [_number(n.diameter_mm, 1) for n in nodules],
        "volume": [_number(n.volume_mm3, 0) for n in nodules],
        "occupancy": [None if n.mask_source == "none" else _number(n.occupancy, 4) for n in nodules],
        "hu": [_number(measured[i].inside_hu, 0) for i in sheet.indices],
        "raised": [sum(bit[key] for key in flags[i]) for i in sheet.indices],
        "offsets": [strip.offsets_mm for strip in sheet.strips],
    }
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _number(value: float | None, digits: int) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, digits)

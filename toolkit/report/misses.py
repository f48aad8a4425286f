"""The decisions that were most wrong, slice by slice, with what spoke for malignancy laid over them."""

import json
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from toolkit.evaluation.predictions import Predictions
from toolkit.report.page import block
from toolkit.report.sheet import CONTEXT_MM, LEAST_MM, TONE, TONE_HU, Level, make_strip, slice_indices
from toolkit.report.words import chance, plain
from toolkit.store import Store

Explain = Callable[[int], NDArray[np.float32]]
"""Evidence for malignancy in [0, 1] over the patch (d, h, w) of the nodule of that number in the store."""

MOST = 12
LEVEL = Level(slices=41, pixels=96, quality=80)
HEAT_QUALITY = 60


@dataclass(frozen=True)
class Miss:
    """One wrong decision: its line of the predictions, its number in the store, what it was called."""

    line: int
    index: int
    called: str


@dataclass(frozen=True)
class Viewer:
    """HTML of the section, and the blocks of data that it needs."""

    body: str
    blocks: tuple[tuple[str, str], ...]


def worst(predictions: Predictions, most: int = MOST) -> tuple[list[int], list[int]]:
    """Return lines of missed malignant nodules and of false alarms, the farthest from the threshold first.

    Distances are of probabilities, which can be compared between folds. A nodule is shown once.
    """
    found = []
    for label, sign in ((1, 1.0), (0, -1.0)):
        wrong = np.flatnonzero((predictions.label == label) & (predictions.decision != label))
        order = wrong[np.lexsort((predictions.nodule_id[wrong], sign * predictions.probability[wrong]))]
        _, first = np.unique(predictions.nodule_id[order], return_index=True)
        found.append([int(line) for line in order[np.sort(first)][:most]])
    return found[0], found[1]


def viewer(predictions: Predictions, store: Store, explain: Explain | None, side: str) -> Viewer:
    """Return the section of the worst misses; `side` is told as the side that they are of."""
    by_id = {nodule.nodule_id: k for k, nodule in enumerate(store.nodules)}
    missed, alarms = worst(predictions)
    groups = [
        [Miss(line, by_id[str(predictions.nodule_id[line])], called) for line in lines]
        for lines, called in ((missed, "benign"), (alarms, "malignant"))
    ]
    every = groups[0] + groups[1]
    if not every:
        return Viewer(f"<p>No decision on the {escape(side)} side was wrong.</p>", ())
    strips = [_strips(store, miss.index, explain) for miss in every]
    counts = [int(((predictions.label == k) & (predictions.decision != k)).sum()) for k in (1, 0)]
    titles = ("Malignant, called benign", "Benign, called malignant")
    parts, number = [], 0
    for group, title, count in zip(groups, titles, counts, strict=True):
        parts.append(f"<h3>{title} <span class='quiet'>{_of(len(group), count)}</span></h3>")
        cards = "".join(_card(predictions, miss, number + k) for k, miss in enumerate(group))
        parts.append(f'<div class="looks">{cards}</div>' if group else "<p>None.</p>")
        number += len(group)
    data = {
        "pixels": min(store.size, LEVEL.pixels),
        "toneHu": TONE_HU,
        "tone": TONE,
        "offsets": [offsets for _, offsets in strips],
    }
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    body = _lead(side, explain) + _tools(explain) + "".join(parts) + _NO_SCRIPT
    return Viewer(
        body + block("application/json", "misses-data", text),
        tuple((f"n{k}", strip) for k, (strip, _) in enumerate(strips)),
    )


_NO_SCRIPT = "<noscript><p>The pictures need JavaScript; the rest of the page does not.</p></noscript>"


def _of(shown: int, count: int) -> str:
    return f"{count:,}" if shown == count else f"the worst {shown:,} of {count:,}"


def _lead(side: str, explain: Explain | None) -> str:
    """Say what is shown and how to move in it."""
    heat = (
        " Red is Grad-CAM: where a late feature map of the network speaks for malignancy. It is coarse, "
        "scaled to each nodule's own largest value, and no proof of a cause."
        if explain
        else " No Grad-CAM here: it needs the run's model beside the store."
    )
    return (
        f"<p>Wrong decisions on the {escape(side)} side, the most confident first. Click a picture and turn "
        "the wheel or press the up and down keys to go through its slices; the slider and dragging sideways "
        f"work at once. Front of the body is up, the patient's left is on the right.{heat}</p>"
    )


def _tools(explain: Explain | None) -> str:
    heat = '<label class="check"><input type="checkbox" name="heat" checked> Grad-CAM</label>'
    return (
        '<form id="look" class="tools"><fieldset aria-label="Window">'
        '<label><input type="radio" name="window" value="lung" checked>Lung</label>'
        '<label><input type="radio" name="window" value="soft">Soft tissue</label></fieldset>'
        '<label class="check"><input type="checkbox" name="outline" checked> Outline</label>'
        f"{heat if explain else ''}</form>"
    )


def _card(predictions: Predictions, miss: Miss, number: int) -> str:
    """Return a card in words; the script puts the picture in its place."""
    line = miss.line
    label = "malignant" if predictions.label[line] else "benign"
    diameter = float(predictions.diameter_mm[line])
    size = f"{plain(diameter)} mm" if np.isfinite(diameter) else "size unknown"
    identity = str(predictions.nodule_id[line])
    told_chance = chance(float(predictions.probability[line]))
    target = float(predictions.target[line])
    soft = "" if target in (0, 1) else f'<p class="second"><span>target {plain(target)}</span></p>'
    told = f"{identity}, {label}, {size}, probability {told_chance}, called {miss.called}"
    return (
        f'<article class="card"><div class="hold" data-nodule="{number}" data-told="{escape(told)}"></div>'
        f'<p class="first"><b class="{label}">{label}</b><span>{size}</span></p>'
        f'<p class="second"><span>called {miss.called}</span><span>at {told_chance}</span></p>'
        f"{soft}"
        f'<p class="id" title="nodule {escape(identity)}">{escape(identity)}</p></article>'
    )


def _strips(store: Store, index: int, explain: Explain | None) -> tuple[str, Sequence[float]]:
    """Return image, mask and evidence of one nodule as text, and where its slices lie."""
    diameter = store.nodules[index].diameter_mm
    shown_mm = max(LEAST_MM, (diameter or 0.0) / 2 + CONTEXT_MM)
    strip = make_strip(store, index, shown_mm, LEVEL)
    heat = ""
    if explain is not None:
        chosen = slice_indices(store.size, store.spacing_mm, shown_mm, LEVEL.slices)[::-1]
        heat = _heat(explain(index), store.size, chosen)
    return f"{strip.image} {strip.mask} {heat}", strip.offsets_mm


def _heat(evidence: NDArray[np.float32], size: int, chosen: Sequence[int]) -> str:
    """Return slices of the evidence over the crop as one grey WebP; a smaller patch lies at its centre."""
    whole = np.zeros((size,) * 3, np.float32)
    inner = tuple(slice((size - n) // 2, (size - n) // 2 + n) for n in evidence.shape)
    whole[inner] = evidence
    grey = np.rint(np.clip(whole[list(chosen)], 0, 1) * 255).astype(np.uint8)
    pixels = min(size, LEVEL.pixels)
    small = [
        np.asarray(Image.fromarray(one).resize((pixels, pixels), Image.Resampling.BILINEAR)) for one in grey
    ]
    file = BytesIO()
    Image.fromarray(np.concatenate(small)).save(file, "WEBP", quality=HEAT_QUALITY, method=2)
    return b64encode(file.getvalue()).decode()

"""Distributions over a store, and the crop settings that would fit it, as HTML."""

from collections.abc import Sequence
from html import escape

import numpy as np

from toolkit.report.charts import Bars, Series, figure, histogram
from toolkit.report.contents import LABELS, Contents, label_name, source_spacings
from toolkit.report.measure import HU_STEP, LOW_HU, OUTSIDE_HU, Survey
from toolkit.report.suggest import ACROSS, CONTEXT_MM, FIT, MULTIPLE, Advice, Option
from toolkit.report.words import percent, plain, size

HU_MERGED = 5  # bins of a survey in one bar
HU_BARS = 20  # as far as 1000 HU
FLOOR = {
    True: "the median in-plane spacing of the scans",
    False: "since this store keeps nothing about its scans",
}


def distributions(contents: Contents, survey: Survey) -> str:
    """Return all histograms."""
    nodules = contents.store.nodules
    between, within = source_spacings(contents.entries)
    masked = [(n, m) for n, m in zip(nodules, survey.measured, strict=True) if n.mask_source != "none"]
    held = [
        (m.held_share or 0.0) * n.facts.get("mask_share_in_cube", 1.0)
        for n, m in masked
        if m.held_share is not None
    ]
    by_label = [
        Series(
            name,
            [n.diameter_mm for n in nodules if label_name(n.label) == name and n.diameter_mm is not None],
            name,
        )
        for name in LABELS
    ]
    parts = [
        ("diameter", histogram("Diameter", "mm", by_label)),
        ("background", _percent("Background", "% of the crop", [1 - n.occupancy for n, _ in masked])),
        ("cut", _percent("Mask cut off", "% of the mask", [max(0.0, 1 - h) for h in held])),
        ("Hounsfield units", _hounsfield(survey)),
        (
            "air",
            _percent(
                "Air or outside",
                f"% of the crop at {OUTSIDE_HU} HU",
                [m.outside_share for m in survey.measured],
            ),
        ),
        ("slice spacing", histogram("Slice spacing of the scans", "mm", [Series("", between)])),
        ("in-plane spacing", histogram("In-plane spacing of the scans", "mm", [Series("", within)])),
    ]
    missing = ", ".join(name for name, chart in parts if not chart)
    note = f'<p class="quiet">Not in this store: {missing}.</p>' if missing else ""
    lead = (
        "<p>Beside each name: how many, their median, and in brackets the middle 90 %. Point at a bar for "
        "its numbers.</p>"
    )
    return f'{lead}<div class="charts">{"".join(chart for _, chart in parts)}</div>{note}'


def _percent(title: str, unit: str, shares: Sequence[float]) -> str:
    return histogram(title, unit, [Series("", [100 * share for share in shares])])


def _hounsfield(survey: Survey) -> str:
    """Return HU inside masks and in whole crops, by voxels."""
    edges = LOW_HU + HU_STEP * HU_MERGED * np.arange(HU_BARS + 1, dtype=np.float64)
    rows = []
    for name, counts in (("in masks", survey.inside_counts), ("in crops", survey.crop_counts)):
        total = int(counts.sum())
        if total:
            merged = counts[: HU_MERGED * HU_BARS].reshape(-1, HU_MERGED).sum(axis=1)
            middle = LOW_HU + HU_STEP * (int(np.searchsorted(np.cumsum(counts), total / 2)) + 0.5)
            rows.append(Bars(name, merged, f"{total:,} voxels · median {plain(middle)}"))
    note = f"Not drawn: above {edges[-1]:g} HU, and in crops {OUTSIDE_HU} HU itself."
    return figure("Hounsfield units", "HU", rows, edges, note) if rows else ""


def settings(advice: Advice | None) -> str:
    """Return which crop settings fit, by which rule, and what others would mean."""
    if advice is None:
        return "<p>Without nodules there is nothing to fit a crop to.</p>"
    best, now = advice.suggested, advice.now
    same = (best.crop.spacing_mm, best.crop.size) == (now.crop.spacing_mm, now.crop.size)
    words = (
        f"--spacing {best.crop.spacing_mm:g}",
        f"--size {best.crop.size}",
        f"--margin {best.crop.margin}",
    )
    flags = " ".join(f'<span class="keep">{word}</span>' for word in words)
    rows = "".join(_option(option) for option in (now, best, *advice.others))
    head = (
        '<th></th><th class="n">Spacing</th><th class="n">Size</th><th class="n">Side</th>'
        '<th class="n">Margin</th><th class="n">Nodules cut</th><th class="n">Background</th>'
        '<th class="n">Across the small</th><th class="n">Voxels</th><th class="n">Store</th>'
        '<th class="n">Training cost</th>'
    )
    opening = (
        "<p>The crops of this store are what the rule would choose.</p>"
        if same
        else f"<pre>toolkit preprocess ARCHIVE NEW_STORE {flags}</pre>"
    )
    return (
        f'{opening}<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        f"</div><p>Size: {percent(FIT)} of the nodules are no more than {plain(advice.fit_mm)} mm across, "
        f"measured about the centre of their crop; {CONTEXT_MM:g} mm is added on each side, and the "
        f"whole rounded up to a multiple of {MULTIPLE} voxels. Spacing: the small nodules (fifth percentile, "
        f"{plain(advice.small_mm)} mm) are to be {ACROSS} voxels across, but no voxel is finer than "
        f"{plain(advice.floor_mm)} mm, {FLOOR[advice.floor_known]}. Margin: what augmentation by default "
        "needs. Training cost: voxels a crop, this store being 1.</p>"
        "<p>A crop is mostly background whatever its size: a ball fills 52 % of the tightest cube about it, "
        "and 7 % of one twice as wide. Background costs voxels and shows what a nodule touches; it does not "
        "unbalance the classes.</p>"
    )


def _option(option: Option) -> str:
    crop = option.crop
    cells = (
        f"{crop.spacing_mm:g} mm",
        f"{crop.size}",
        f"{plain(crop.size_mm)} mm",
        f"{crop.margin}",
        percent(option.cut_share, 1),
        percent(option.background, 1),
        plain(option.across),
        f"{crop.size**3:,}",
        size(option.stored_bytes),
        f"{plain(option.cost)} &times;",
    )
    kind = ' class="best"' if option.name == "suggested" else ""
    name = escape(option.name.capitalize())
    return f"<tr{kind}><td>{name}</td>{''.join(f'<td class=n>{cell}</td>' for cell in cells)}</tr>"

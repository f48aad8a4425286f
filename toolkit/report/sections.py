"""What a store holds, shows and refused, as HTML."""

from collections import Counter
from collections.abc import Sequence
from html import escape

import numpy as np

from toolkit.report.contents import LABELS, CodeGroup, Contents, label_name
from toolkit.report.flags import FLAGS
from toolkit.report.page import block
from toolkit.report.sheet import Sheet
from toolkit.report.words import percent, plain, plural, sentence, size


def warnings(contents: Contents, flags: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """Return what a person should know first: (number, sentence)."""
    status = Counter(entry.status for entry in contents.entries)
    raised = Counter(key for keys in flags for key in keys)
    labels = Counter(label_name(nodule.label) for nodule in contents.store.nodules)
    found = []
    if contents.unfinished:
        shards = plural(contents.unfinished, "shard")
        found.append((shards, "planned but not made yet; run preprocess again to finish the store."))
    if status["refused"]:
        found.append((plural(status["refused"], "case"), "refused; the reasons stand below."))
    found += [
        (plural(raised[flag.key], "nodule"), f"{flag.title}: {flag.rule}.")
        for flag in FLAGS
        if raised[flag.key]
    ]
    if contents.store.nodules and not (labels["malignant"] and labels["benign"]):
        found.append(("Labels", "do not hold both classes; nothing can be trained on them."))
    return found


def summary(contents: Contents, flags: Sequence[Sequence[str]]) -> str:
    """Return the store in figures, warnings first."""
    store = contents.store
    status = Counter(entry.status for entry in contents.entries)
    labels = Counter(label_name(nodule.label) for nodule in store.nodules)
    masks = Counter(nodule.mask_source for nodule in store.nodules)
    told = warnings(contents, flags)
    first = "".join(f"<li><b>{escape(number)}</b> {escape(what)}</li>" for number, what in told)
    stored = len(store) * (store.size + 2 * store.margin) ** 3 * 3  # int16 and uint8
    refused = status["refused"]
    cases = f"{status['done']:,} done, {status['empty']:,} empty, {refused:,} refused"
    shares = ", ".join(f"{masks[name]:,} {name}" for name in sorted(masks)) or "no nodule"
    crop = f"{store.spacing_mm:g} mm voxels, {store.size}³, margin {store.margin}"
    tiles = [
        ("Cases", f"{len(contents.entries):,}", cases),
        ("Nodules", f"{len(store.nodules):,}", f"masks: {shares}"),
        ("Patients", f"{len({n.patient_id for n in store.nodules}):,}", "with a nodule"),
        ("Malignant", f"{labels['malignant']:,}", _ratio(labels)),
        ("Benign", f"{labels['benign']:,}", f"{labels['open']:,} open"),
        ("Crop", f"{plain(store.size * store.spacing_mm)} mm", crop),
        ("On disk", size(stored), "images and masks"),
    ]
    shown = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)} <small>{escape(more)}</small></dd></div>"
        for name, value, more in tiles
    )
    return (
        (f'<ul class="warnings">{first}</ul>' if told else "")
        + f'<dl class="tiles">{shown}</dl>'
        + _size_alone(contents)
    )


def _ratio(labels: Counter[str]) -> str:
    bad, good = labels["malignant"], labels["benign"]
    if not bad or not good:
        return ""
    return f"1 to {plain(good / bad)} benign" if good >= bad else f"{plain(bad / good)} to 1 benign"


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Return the chance that a positive value exceeds a negative one, ties counted half."""
    low = np.sort(np.asarray(negative, np.float64))
    high = np.asarray(positive, np.float64)
    below = np.searchsorted(low, high, side="left") + np.searchsorted(low, high, side="right")
    return float(below.mean() / (2 * len(low)))


def _size_alone(contents: Contents) -> str:
    """Return how well diameter alone tells the classes apart: what any model has to beat."""
    sizes: dict[str, list[float]] = {name: [] for name in LABELS}
    for nodule in contents.store.nodules:
        if nodule.diameter_mm is not None:
            sizes[label_name(nodule.label)].append(nodule.diameter_mm)
    if not sizes["malignant"] or not sizes["benign"]:
        return ""
    share = auroc(sizes["malignant"], sizes["benign"])
    return (
        f"<p>Diameter alone ranks a malignant nodule above a benign one in {percent(share)} of pairs "
        f"(AUROC {share:.2f}). A model has to beat that.</p>"
    )


def crops(contents: Contents, sheet: Sheet, sheet_data: str, flags: Sequence[Sequence[str]]) -> str:
    """Return the contact sheet's frame; `sheet.js` fills it."""
    if not contents.store.nodules:
        return "<p>The store holds no nodule.</p>"
    raised = Counter(key for keys in flags for key in keys)
    doubtful = sum(bool(keys) for keys in flags)
    chips = "".join(
        f'<button type="button" data-flag="{flag.key}" aria-pressed="false" title="{escape(flag.rule)}">'
        f"{escape(flag.title)} <b>{raised[flag.key]:,}</b></button>"
        for flag in FLAGS
        if raised[flag.key]
    )
    chips = f'<div class="flag-list">{chips}</div>' if chips else '<p class="quiet">No flag is raised.</p>'
    return (
        f"<p>{_held(sheet, len(contents.store.nodules))} Click a crop and turn the wheel or press the up and "
        "down keys to go through its slices; dragging sideways works at once. Front of the body is up, the "
        f"patient's left is on the right.</p>{chips}{_tools(raised, doubtful, len(flags))}"
        '<div id="cards"></div>'
        f'<div class="pager" data-place="below">{_PAGER}</div>'
        "<noscript><p>The sheet needs JavaScript; the rest of the page does not.</p></noscript>"
        + block("application/json", "sheet-data", sheet_data)
    )


def _held(sheet: Sheet, nodules: int) -> str:
    """Say what the sheet holds, where that is not all."""
    slices = f"Up to {sheet.level.slices} slices each, {sheet.pixels} pixels wide, from head to foot."
    if len(sheet.indices) == nodules:
        return slices
    rule = "flagged ones first, then an even sample; all figures on this page are of all nodules"
    return f"{len(sheet.indices):,} of {nodules:,} nodules are shown: {rule}. {slices}"


_PAGER = (
    '<button type="button" data-step="-1" aria-label="Previous page">&lsaquo;</button><output></output>'
    '<button type="button" data-step="1" aria-label="Next page">&rsaquo;</button>'
)
_SORTS = (
    ("order", "As stored"),
    ("flags", "Most flags first"),
    ("largest", "Largest first"),
    ("smallest", "Smallest first"),
    ("fullest", "Most mask in the crop"),
    ("emptiest", "Least mask in the crop"),
    ("bright", "Brightest mask first"),
    ("dark", "Darkest mask first"),
    ("label", "By label"),
)


def _tools(raised: Counter[str], doubtful: int, nodules: int) -> str:
    """Return the tool bar of the sheet."""
    states = [
        ("", "All crops"),
        ("any", f"Flagged ({doubtful:,})"),
        ("none", f"Not flagged ({nodules - doubtful:,})"),
    ]
    states += [(f.key, f"{f.title} ({raised[f.key]:,})") for f in FLAGS if raised[f.key]]
    labels = [("", "All labels"), *((name, name.capitalize()) for name in LABELS)]
    return (
        '<form id="tools"><fieldset aria-label="Window">'
        '<label><input type="radio" name="window" value="lung" checked>Lung</label>'
        '<label><input type="radio" name="window" value="soft">Soft tissue</label></fieldset>'
        '<label class="check"><input type="checkbox" name="outline" checked> Outline</label>'
        + _choice("label", "Label", labels)
        + _choice("flag", "Flag", states)
        + _choice("sort", "Order", _SORTS)
        + '<input type="search" name="text" placeholder="Id" aria-label="Part of an id">'
        + f'<span class="pager">{_PAGER}</span></form>'
    )


def _choice(name: str, title: str, options: Sequence[tuple[str, str]]) -> str:
    inner = "".join(f'<option value="{value}">{escape(text)}</option>' for value, text in options)
    return f'<select name="{name}" aria-label="{title}">{inner}</select>'


def fates(refused: Sequence[CodeGroup], noted: Sequence[CodeGroup]) -> str:
    """Return refusals and notes by code, with what to do."""
    parts = []
    if refused:
        parts.append(_codes("Refused", refused))
    else:
        parts.append("<p>No case was refused.</p>")
    if noted:
        parts.append("<h3>Read, with a note</h3>" + _codes("Noted", noted))
    more = "A store holds no file names: preprocess and index say which file it was, and name stray files."
    return "".join(parts) + f'<p class="quiet">{more}</p>'


def _codes(title: str, groups: Sequence[CodeGroup]) -> str:
    lines = []
    for group in groups:
        shown = "".join(
            f"<p>{escape(sentence(text))}"
            + (f' <span class="quiet">({count:,} times)</span></p>' if count > 1 else "</p>")
            for text, count in group.messages
        )
        rest = group.cases - sum(count for _, count in group.messages)
        shown += f'<p class="quiet">and {rest:,} more with other numbers</p>' if rest else ""
        shown += "<p>Run preprocess again: it may pass then.</p>" if group.transient else ""
        lines.append(
            f'<tr><td><code>{escape(group.code)}</code></td><td class="n">{group.cases:,}</td>'
            f"<td><p><b>{escape(sentence(group.meaning))}</b></p>{shown}</td></tr>"
        )
    return (
        f'<div class="scroll"><table><thead><tr><th>Code</th><th class="n">{title}</th>'
        f"<th>Why, and what changes it</th></tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )

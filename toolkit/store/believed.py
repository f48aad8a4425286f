"""What the lines of a store may hold: a digest says that a line is whole, not who wrote it."""

from collections.abc import Mapping
from math import isnan
from operator import itemgetter
from pathlib import Path
from typing import Any

from toolkit.store.format import damaged

MAX_SIDE = 2048  # voxels of a crop; its array has the cube of it
_MOST = 1e12  # far beyond any millimetre, count or voxel
_texts_of = itemgetter("nodule_id", "case_id", "patient_id", "mask_source", "image", "mask")
_numbers_of = itemgetter("occupancy", "label", "diameter_mm", "volume_mm3", "rating")  # or None


def check_settings(value: Mapping[str, Any], path: Path) -> None:
    """Refuse a ``store.json`` whose sizes are none; raises `StoreError` E-STORE-003."""
    try:
        size, margin, spacing = (value[name] for name in ("size", "margin", "spacing_mm"))
        whole = type(size) is int and type(margin) is int and 0 <= margin < MAX_SIDE
        sound = whole and size >= 1 and size + 2 * margin <= MAX_SIDE and 0 < spacing < _MOST
        sound = sound and type(value["config_digest"]) is str
    except (KeyError, TypeError):
        sound = False
    if not sound:
        raise damaged(path, "size, margin, spacing or digest missing or impossible")


def check_entry(value: Mapping[str, Any], path: Path) -> None:
    """Refuse a line of a ledger with a field of another kind; raises `StoreError` E-STORE-003."""
    try:
        texts = [value[name] for name in ("case_id", "patient_id", "key", "status")]
        texts += [value.get(name, "") for name in ("code", "message")]
        _check_facts(value.get("facts") or {}, texts)
        numbers: list[Any] = [0.0]
        for nodule in value["nodules"]:
            texts += _texts_of(nodule)
            texts.append(nodule.get("split", ""))
            x, y, z = nodule["center_lps_mm"]
            occupancy, *others = _numbers_of(nodule)
            numbers += (x, y, z, occupancy, nodule.get("readers", 0))
            numbers += nodule.get("facts", {}).values()
            numbers += [number for number in others if number is not None]
            _, diameter_mm, volume_mm3, _ = others  # what a label may be is the training's question
            if (diameter_mm or 0) < 0 or (volume_mm3 or 0) < 0:
                raise ValueError
        if not (min(numbers) > -_MOST and max(numbers) < _MOST and not isnan(sum(numbers))):
            raise ValueError
        "".join(texts).encode()  # no text, or half a character, which cannot be written anywhere
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(path, "a line with a field that is missing or of another kind") from error


def _check_facts(facts: Mapping[str, Any], texts: list[Any]) -> None:
    """Check what was kept of a scan; texts are added to `texts`."""
    for pair in facts.get("notes", ()):
        code, message = pair
        texts += (code, message)
    if facts.get("spacing_mm") is not None:
        z, y, x = facts["spacing_mm"]
        if not all(0 < length < _MOST for length in (z, y, x)):
            raise ValueError

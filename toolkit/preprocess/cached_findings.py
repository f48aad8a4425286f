"""Findings of a case as they lie in the index, so that a mask is scanned once."""

import base64
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from toolkit.archive.case import Case, Finding
from toolkit.archive.geometry import Box
from toolkit.archive.index_cache import IndexCache
from toolkit.errors import Problem
from toolkit.preprocess.plan import STAGE_VERSION, Settings
from toolkit.store.format import canonical_json, digest

KIND = "findings"


def key_of(case: Case, settings: Settings) -> str:
    """Return what the findings of a case depend on: input, rules and minimum diameter, no crop setting."""
    resolved = settings.resolved()
    rules = {name: resolved[name] for name in ("min_diameter_mm", "stack_rules", "label_rule", "region_rule")}
    return digest(canonical_json([STAGE_VERSION, case.digest, rules]))


def load(
    cache: IndexCache, case: Case, settings: Settings
) -> tuple[tuple[Finding, ...], tuple[Problem, ...]] | None:
    """Return the findings and notes of an earlier run, or None."""
    value = cache.get(KIND, key_of(case, settings)) if case.masks else None
    if value is None:
        return None
    notes = tuple(Problem(**{**note, "files": tuple(note["files"])}) for note in value["notes"])
    return tuple(_from_json(found) for found in value["findings"]), notes


def pack(findings: Sequence[Finding], notes: Sequence[Problem]) -> dict[str, Any]:
    """Return findings and notes as small plain JSON types."""
    return {"findings": [_to_json(f) for f in findings], "notes": [asdict(note) for note in notes]}


def keep(cache: IndexCache, case: Case, settings: Settings, packed: dict[str, Any]) -> None:
    """Remember what took a scan of a mask to find."""
    cache.put(KIND, key_of(case, settings), packed)


def _to_json(finding: Finding) -> dict[str, Any]:
    value = {
        name: getattr(finding, name) for name in Finding.__dataclass_fields__ if name not in ("box", "mask")
    }
    if finding.box is not None and finding.mask is not None:
        packed = zlib.compress(np.packbits(finding.mask).tobytes(), 1)
        value["box"] = [finding.box.start_zyx, finding.box.stop_zyx]
        value["mask"] = base64.b64encode(packed).decode()
    return value


def _from_json(value: dict[str, Any]) -> Finding:
    x, y, z = value["center_lps_mm"]
    rest = {name: value[name] for name in value if name not in ("box", "mask", "center_lps_mm")}
    if "box" not in value:
        return Finding(center_lps_mm=(x, y, z), **rest)
    start, stop = (tuple(corner) for corner in value["box"])
    box = Box(start, stop)
    bits = np.frombuffer(zlib.decompress(base64.b64decode(value["mask"])), np.uint8)
    count = int(np.prod(box.shape_zyx))
    mask = np.unpackbits(bits, count=count).reshape(box.shape_zyx)
    return Finding(center_lps_mm=(x, y, z), box=box, mask=mask, **rest)

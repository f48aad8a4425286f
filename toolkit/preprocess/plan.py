"""What will be made of which case: settings, keys, and the shard each case goes to.

Everything here is a pure function of the manifest, the settings and the plan that the store already
holds; workers, engines and the order in which work is done play no part.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from kernels import MAX_HALF_WIDTH
from toolkit.archive.case import Case
from toolkit.archive.consensus import LIDC_RULE
from toolkit.archive.dicom_series import SeriesRules
from toolkit.archive.region_rule import RegionRule
from toolkit.preprocess.identity import IdKey
from toolkit.store.files import write_atomic
from toolkit.store.format import canonical_json, damaged, digest, sealed_lines, shard_name, unseal_lines

STAGE_VERSION = 1  # part of every key: raise it when the same input would give other bytes
CASES_PER_SHARD = 8

# What default augmentation needs around a crop: the worst corner of a cube that is turned about any
# axis, enlarged and moved.
MAX_ROTATION_DEGREES = 15.0
MAX_SCALE = 1.1
MAX_SHIFT_MM = 2.0


@dataclass(frozen=True)
class Settings:
    """How crops are made; all of it is part of a store's identity.

    Attributes
    ----------
    spacing_mm
        Isotropic voxel spacing of the crops.
    size
        Voxels along each side of a crop.
    margin
        Voxels more on each side, for augmentation.
    min_diameter_mm
        Components of a binary mask below this equal-volume diameter are dropped.
    rules
        Which irregular DICOM stacks are read.
    regions
        Which regions of segmentations and structure sets are nodules.
    label_source
        ``own``: labels are what annotations and manifest say; ``table``: a table of labels speaks last.
    """

    spacing_mm: float = 1.0
    size: int = 64
    margin: int = 16
    min_diameter_mm: float = 3.0
    rules: SeriesRules = field(default_factory=SeriesRules)
    regions: RegionRule = field(default_factory=RegionRule)
    label_source: Literal["own", "table"] = "own"

    @property
    def side(self) -> int:
        """Voxels along each side of a stored cube."""
        return self.size + 2 * self.margin

    def resolved(self) -> dict[str, Any]:
        """Return all settings and named rules as plain JSON types."""
        return {
            "stage_version": STAGE_VERSION,
            "spacing_mm": self.spacing_mm,
            "size": self.size,
            "margin": self.margin,
            "min_diameter_mm": self.min_diameter_mm,
            "stack_rules": asdict(self.rules),
            "label_rule": asdict(LIDC_RULE),
            "region_rule": asdict(self.regions),
            "label_source": self.label_source,
            "filter": {"name": "tent", "half_width": "max(1, row norm)", "max_half_width": MAX_HALF_WIDTH},
        }


def default_margin(size: int, spacing_mm: float) -> int:
    """Return the margin in voxels that keeps default augmentation inside the stored cube.

    A cube of half-side a turned by t about any axis reaches at most a (cos t + sqrt(2) sin t) along
    an axis when the rotation axis is normal to it, which is its worst case for t up to 15 degrees.
    """
    angle = math.radians(MAX_ROTATION_DEGREES)
    reach = MAX_SCALE * (math.cos(angle) + math.sqrt(2) * math.sin(angle))
    return math.ceil(size / 2 * (reach - 1) + MAX_SHIFT_MM / spacing_mm)


@dataclass(frozen=True)
class PlannedShard:
    """A shard and the hashed ids of its cases, in order."""

    name: str
    case_ids: tuple[str, ...]


def case_key(case: Case, settings: Settings, id_key: IdKey) -> str:
    """Return the digest that a case's result depends on: input headers and sizes, settings, ids."""
    ids = [id_key.hash("case", case.case_id), id_key.hash("patient", case.patient_id), case.split]
    parts = (canonical_json(ids), canonical_json(case.digest), _canonical(settings))
    return digest(b'{"ids":%b,"input":%b,"settings":%b}' % parts)  # as canonical_json puts it


@lru_cache(maxsize=8)
def _canonical(settings: Settings) -> bytes:
    """Return all settings as JSON; it is part of every key, and the same for all cases."""
    return canonical_json(settings.resolved())


def read_plan(store: Path) -> list[PlannedShard]:
    """Return the plan that a store holds; empty where it has none.

    Raises `StoreError` E-STORE-003 where it is damaged, or its names are none that `shard_name` gives: they
    become file names.
    """
    path = store / "plan.jsonl"
    if not path.exists():
        return []
    try:
        plan = [PlannedShard(value["shard"], tuple(value["cases"])) for value in unseal_lines(path)]
    except (KeyError, TypeError) as error:
        raise damaged(path, "a line without shard and cases") from error
    if not all(type(case_id) is str for shard in plan for case_id in shard.case_ids):
        raise damaged(path, "ids of cases that are no text")
    if [shard.name for shard in plan] != [shard_name(number) for number in range(len(plan))]:
        raise damaged(path, "names that are no shard's, or not in order")
    return plan


def extend_plan(plan: Sequence[PlannedShard], case_ids: Sequence[str]) -> list[PlannedShard]:
    """Return the plan with new cases in new shards of nearly equal length, at most 8 cases each."""
    planned = {case_id for shard in plan for case_id in shard.case_ids}
    new = [case_id for case_id in case_ids if case_id not in planned]
    count = math.ceil(len(new) / CASES_PER_SHARD)
    bounds = [round(i * len(new) / count) for i in range(count + 1)] if count else [0]
    added = [
        PlannedShard(shard_name(len(plan) + i), tuple(new[a:b])) for i, (a, b) in enumerate(pairwise(bounds))
    ]
    return [*plan, *added]


def write_plan(store: Path, plan: Sequence[PlannedShard]) -> None:
    """Write the plan; several processes of one run write the same bytes."""
    write_atomic(
        store / "plan.jsonl", sealed_lines([{"shard": s.name, "cases": list(s.case_ids)} for s in plan])
    )


def own_shards(plan: Sequence[PlannedShard], part: tuple[int, int]) -> list[PlannedShard]:
    """Return the shards that part i of N makes: those whose number is i modulo N."""
    index, parts = part
    return [shard for number, shard in enumerate(plan) if number % parts == index % parts]


def stored_bytes(nodules: int, settings: Settings) -> int:
    """Return the bytes that the crops of some nodules take."""
    return nodules * settings.side**3 * 3

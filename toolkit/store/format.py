"""What a nodule store consists of, and the names and bytes of its files.

A store is a folder::

    store.json         format version, spacing_mm, size, margin, rules, config digest
    plan.jsonl         which case goes to which shard, a line a shard
    shards/NNNNN.images.npy   int16 (n, s, s, s) HU zyx, s = size + 2 margin
    shards/NNNNN.masks.npy    uint8 (n, s, s, s) share of the voxel that is nodule, 0-255
    ledger/NNNNN.jsonl a line a case: digests, facts and nodules, or the refusal
    nodules.csv        index for people, made from the ledgers
    qc.html            page for people, made by inspect; no part of the store's identity
    log/               times and hosts; no part of the store's identity

A shard is committed when its ledger exists; images and masks come first. A shard without nodules
has a ledger only. Every line of JSON ends with the digest of the rest of it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from sys import intern
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from toolkit.errors import Problem, StoreError

FORMAT_VERSION = 1
IMAGE_TYPE, MASK_TYPE = "<i2", "|u1"
_REPEATED = ("case_id", "patient_id", "mask_source", "split")


@dataclass(frozen=True, slots=True)  # a store may hold a million
class Nodule:
    """One nodule of a store.

    Attributes
    ----------
    nodule_id, case_id, patient_id
        Keyed hashes.
    label
        Malignancy in [0, 1]; None where unknown or indeterminate.
    diameter_mm
        Of the sphere of the mask's volume, or as stated for a point; None where nobody measured it.
    volume_mm3
        Of the mask; None for a point.
    center_lps_mm
        Centre of the crop in the patient, (x, y, z) LPS mm.
    occupancy
        Share of the crop, without its margin, that is nodule; in [0, 1].
    mask_source
        ``reader``, ``consensus``, ``volume`` or ``none``.
    rating
        Mean malignancy rating of the readers, 1 to 5; None where there is none.
    readers
        How many readers outlined it; 0 where unknown.
    split
        As the manifest has it; empty where it has none.
    facts
        What was measured on the way: share of air in the source box, share of the mask in the crop.
    """

    nodule_id: str
    case_id: str
    patient_id: str
    label: float | None
    diameter_mm: float | None
    volume_mm3: float | None
    center_lps_mm: tuple[float, float, float]
    occupancy: float
    mask_source: str
    rating: float | None = None
    readers: int = 0
    split: str = ""
    facts: Mapping[str, float] = field(default_factory=dict)


def digest(data: bytes | memoryview | NDArray[Any]) -> str:
    """Return half of the SHA-256 of bytes or of an array's C-ordered bytes, as 32 hex digits."""
    raw = np.ascontiguousarray(data).data if isinstance(data, np.ndarray) else data
    return sha256(raw).hexdigest()[:32]


def canonical_json(value: Any) -> bytes:
    """Return JSON with sorted keys and no white space, the form that digests are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sealed(value: Mapping[str, Any]) -> bytes:
    """Return a line of JSON with a digest of its content."""
    return canonical_json({**value, "digest": digest(canonical_json(value))}) + b"\n"


def unseal(line: bytes, path: Path) -> dict[str, Any]:
    """Return the content of a sealed line; raises `StoreError` E-STORE-003 where it is damaged."""
    try:
        value = json.loads(line)
        told = value.pop("digest")
        # the sealed bytes are those of the line without its digest: to write them anew costs far more
        rest = line[:-1].replace(b'"digest":"%b",' % told.encode(), b"", 1)
        whole = line.endswith(b"\n") and len(rest) < len(line) - 1 and digest(rest) == told
        if not whole:  # the digest stands last, or the line is damaged
            whole = line == canonical_json({**value, "digest": told}) + b"\n"
            whole = whole and told == digest(canonical_json(value))
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):  # another type, or too deep
        whole, value = False, {}
    if not whole:
        raise damaged(path, "a line whose digest does not match")
    return dict(value)


def sealed_lines(values: Sequence[Mapping[str, Any]]) -> bytes:
    """Return sealed lines that know their number and how many there are, so that none can get lost."""
    return b"".join(sealed({**value, "line": [k, len(values)]}) for k, value in enumerate(values, start=1))


def unseal_lines(path: Path) -> list[dict[str, Any]]:
    """Return what `sealed_lines` wrote; raises `StoreError` E-STORE-003 where a line is damaged or lost."""
    lines = path.read_bytes().splitlines(keepends=True)
    values = [unseal(line, path) for line in lines]
    for k, value in enumerate(values, start=1):
        if value.pop("line", None) != [k, len(values)]:
            raise damaged(path, f"{len(values)} lines, not all of them or not in order")
    if not values:
        raise damaged(path, "an empty file")
    return values


CURES = {
    "store.json": "Put it back from a copy: equal settings and id key give an equal file in any store",
    "plan.jsonl": "Put it back from a copy, or remove it with ledger/ and shards/ and run preprocess again",
}


def damaged(path: Path, measured: str, expected: str = "") -> StoreError:
    """Return the error that names a damaged store file, and the way out."""
    shard = "Remove the shard's file in ledger/ and run preprocess again to make the shard anew"
    action = CURES.get(path.name, shard)
    return StoreError(Problem("E-STORE-003", "damaged store file", measured, expected, action, (str(path),)))


def array_header(dtype: str, count: int, side: int) -> bytes:
    """Return the 128 bytes that begin a shard array: NumPy's format 1.0, padded so that it can grow."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({count}, {side}, {side}, {side}), }}"
    return npy.magic(1, 0) + (118).to_bytes(2, "little") + text.ljust(117).encode() + b"\n"


def array_bytes(dtype: str, count: int, side: int) -> int:
    """Return the size of a shard array's file."""
    return len(array_header(dtype, count, side)) + count * side**3 * np.dtype(dtype).itemsize


def shard_name(number: int) -> str:
    """Return the name of a shard."""
    return f"{number:05d}"


def images_path(store: Path, shard: str) -> Path:
    """Return where a shard's images lie."""
    return store / "shards" / f"{shard}.images.npy"


def masks_path(store: Path, shard: str) -> Path:
    """Return where a shard's masks lie."""
    return store / "shards" / f"{shard}.masks.npy"


def ledger_path(store: Path, shard: str) -> Path:
    """Return where a shard's ledger lies."""
    return store / "ledger" / f"{shard}.jsonl"


def nodule_json(nodule: Nodule) -> dict[str, Any]:
    """Return a nodule as plain JSON types."""
    return {**asdict(nodule), "center_lps_mm": list(nodule.center_lps_mm), "facts": dict(nodule.facts)}


def nodule_from_json(value: Mapping[str, Any]) -> Nodule:
    """Rebuild a nodule; fields of the ledger that are not the nodule's are left out."""
    fields = {name: value[name] for name in Nodule.__dataclass_fields__ if name in value}
    x, y, z = fields["center_lps_mm"]
    fields["center_lps_mm"] = (x, y, z)
    for name in _REPEATED:  # one text in memory for all nodules of a case or patient
        if type(fields.get(name)) is str:
            fields[name] = intern(fields[name])
    return Nodule(**fields)


CSV_COLUMNS = (
    "index",
    "nodule_id",
    "case_id",
    "patient_id",
    "label",
    "rating",
    "readers",
    "diameter_mm",
    "volume_mm3",
    "x_mm",
    "y_mm",
    "z_mm",
    "occupancy",
    "mask_source",
    "split",
    "shard",
    "row",
)


def csv_line(index: int, nodule: Mapping[str, Any], shard: str, row: int) -> Sequence[Any]:
    """Return a nodule, as `nodule_json` puts it, as a line of ``nodules.csv``."""
    x, y, z = nodule["center_lps_mm"]
    label, rating = nodule["label"], nodule["rating"]
    diameter, volume = nodule["diameter_mm"], nodule["volume_mm3"]
    return (
        index,
        nodule["nodule_id"],
        nodule["case_id"],
        nodule["patient_id"],
        "" if label is None else f"{label:g}",
        "" if rating is None else f"{rating:g}",
        nodule.get("readers", 0),
        "" if diameter is None else f"{diameter:.3f}",
        "" if volume is None else f"{volume:.3f}",
        f"{x:.3f}",
        f"{y:.3f}",
        f"{z:.3f}",
        f"{nodule['occupancy']:.5f}",
        nodule["mask_source"],
        nodule.get("split", ""),
        shard,
        row,
    )

"""Stores of balls with known answers, and how tests make a page of one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.report.store_page import Inspection, inspect_store
from toolkit.store import Nodule, Store

SIZE, MARGIN = 24, 4
LUNG_HU, NODULE_HU = -850, 100


def margin_of(size: int, spacing_mm: float) -> int:
    return size // 4


def ball(
    side: int, radius_mm: float, spacing_mm: float = 1.0, at_mm=(0.0, 0.0, 0.0), hu=(NODULE_HU, LUNG_HU)
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """A cube with a ball `at_mm` (zyx) from its centre: HU in and around it, and its mask."""
    places = (np.indices((side,) * 3) - (side - 1) / 2) * spacing_mm
    away = np.sqrt(sum((place - at) ** 2 for place, at in zip(places, at_mm, strict=True)))
    inside = away <= radius_mm
    return np.where(inside, *hu).astype(np.int16), inside.astype(np.uint8) * np.uint8(255)


def nodule(number: int = 0, diameter_mm: float = 8.0, **changes: object) -> Nodule:
    volume = np.pi / 6 * diameter_mm**3
    made = Nodule(
        nodule_id=f"{number:016x}-001",
        case_id=f"{number:016x}",
        patient_id=f"{number // 2:016x}",
        label=float(number % 2),
        diameter_mm=diameter_mm,
        volume_mm3=volume,
        center_lps_mm=(0.0, 0.0, 0.0),
        occupancy=volume / SIZE**3,
        mask_source="volume",
    )
    return replace(made, **changes)


def make(path: Path, count: int = 6, margin: int = MARGIN, noise: int = 0, **changes: object) -> Store:
    """A store of balls, their diameters from 5 mm on, the labels in turn."""
    rng = np.random.default_rng(0)
    diameters = [5.0 + k % 8 for k in range(count)]
    side = SIZE + 2 * margin
    pairs = [ball(side, d / 2) for d in diameters]
    images = np.stack([image for image, _ in pairs])
    images += rng.integers(-noise - 1, noise + 2, images.shape, dtype=np.int16)
    masks = np.stack([mask for _, mask in pairs])
    if changes.get("mask_source") == "none":
        masks[:] = 0
    records = [nodule(k, d, **changes) for k, d in enumerate(diameters)]
    return Store.create(path, records, images, masks, 1.0, margin=margin)


def inspected(path: Path, most: int | None = None) -> Inspection:
    return inspect_store(path, margin_of, most)

"""One synthetic patient: a chest with nodules whose place, volume and label are known."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.archive.geometry import Box, Geometry
from toolkit.phantom.nodule import NoduleParams, draw_label, draw_params
from toolkit.phantom.place import PlacedNodule, place_nodules
from toolkit.phantom.scene import VESSEL_HU, make_scene, noise_hu
from toolkit.phantom.vessels import draw_tube

MIN_HU, MAX_HU = -1024, 3071

_SLICES_MM = (0.6, 0.625, 0.7, 0.75, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)
_SLICE_SHARES = (0.03, 0.06, 0.03, 0.06, 0.06, 0.24, 0.22, 0.08, 0.08, 0.10, 0.04)
_COUNT_SHARES = (0.20, 0.35, 0.30, 0.15)  # one to four nodules
_PADDED_SHARE = 0.3


@dataclass(frozen=True, eq=False)
class PhantomNodule:
    """A nodule as the archive holds it.

    Attributes
    ----------
    label
        1 malignant, 0 benign.
    center_lps_mm
        Centre of mass of the mask.
    box, mask
        The box around the mask, and the uint8 0/1 mask inside it (zyx).
    volume_mm3, diameter_mm
        Of the mask: voxels times their volume, and the sphere of that volume.
    """

    params: NoduleParams
    label: int
    center_lps_mm: tuple[float, float, float]
    box: Box
    mask: NDArray[np.uint8]
    volume_mm3: float
    diameter_mm: float


@dataclass(frozen=True, eq=False)
class PhantomPatient:
    """A patient before any file format.

    Attributes
    ----------
    hu
        int16 zyx, canonical (towards head, back, left), in [-1024, 3071].
    padded
        True where the scan has no values outside the `reconstruction_circle`; `hu` is -1024 there.
    """

    patient_id: str
    index: int
    hu: NDArray[np.int16]
    geometry: Geometry
    nodules: tuple[PhantomNodule, ...]
    padded: bool


def make_patient(seed: int, index: int) -> PhantomPatient:
    """Make patient `index`: a function of the two numbers alone.

    Parameters
    ----------
    seed
        Of the archive, >= 0.
    index
        From 0; the identifier counts from 1 (PHANTOM-0001).
    """
    streams = np.random.SeedSequence([seed, index]).spawn(5)
    scan, chest, placing, noise, drawing = (np.random.default_rng(s) for s in streams)
    geometry = _draw_geometry(scan)
    padded = bool(scan.random() < _PADDED_SHARE)
    circle = reconstruction_circle(geometry.shape_zyx[1:]) if padded else None
    scene = make_scene(chest, geometry.shape_zyx, geometry.spacing_mm)
    count = 1 + int(drawing.choice(len(_COUNT_SHARES), p=_COUNT_SHARES))
    labels = dict(_draw_nodule(stream) for stream in streams[4].spawn(count))
    placed = place_nodules(placing, scene, list(labels), circle)

    hu = scene.hu
    tubes = np.zeros(geometry.shape_zyx, dtype=np.float32)
    for tube in (*scene.tubes, *(spicule for nodule in placed for spicule in nodule.spicules)):
        draw_tube(tubes, geometry.spacing_mm, tube)
    hu += tubes * np.maximum(np.float32(VESSEL_HU) - hu, 0)
    for nodule in placed:
        part = hu[nodule.box.slices]
        np.maximum(part, part + nodule.share * (nodule.hu - part), out=part)
    hu += noise_hu(noise, geometry.shape_zyx)
    np.clip(np.rint(hu, out=hu), MIN_HU, MAX_HU, out=hu)
    whole = hu.astype(np.int16)
    if circle is not None:
        whole[:, ~circle] = MIN_HU
    nodules = tuple(_measure(nodule, labels[nodule.params], geometry) for nodule in placed)
    return PhantomPatient(f"PHANTOM-{index + 1:04d}", index, whole, geometry, nodules, padded)


def reconstruction_circle(shape_yx: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return where a scanner with a round field has values: the largest circle in a slice."""
    rows, columns = shape_yx
    y, x = np.arange(rows)[:, None] - (rows - 1) / 2, np.arange(columns) - (columns - 1) / 2
    inside: NDArray[np.bool_] = y**2 + x**2 <= (min(rows, columns) / 2) ** 2
    return inside


def _draw_geometry(rng: np.random.Generator) -> Geometry:
    # Multiples of 1/512: exact in binary and in the 16 characters of a DICOM decimal string.
    in_plane = round(rng.uniform(0.6, 0.9) * 512) / 512
    rows = next(n for n in (128, 144, 160, 176) if n * in_plane >= 100)
    between = float(rng.choice(_SLICES_MM, p=_SLICE_SHARES))
    slices = math.ceil((80 if between < 1 else rng.uniform(80, 112)) / between)
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = between, in_plane, in_plane, 1
    affine[:3, 3] = np.round(rng.uniform([-140, -120, -320], [20, -20, -120]), 1)
    return Geometry((slices, rows, rows), affine)


def _draw_nodule(stream: np.random.SeedSequence) -> tuple[NoduleParams, int]:
    rng = np.random.default_rng(stream)
    params = draw_params(rng)
    return params, draw_label(params, rng)


def _measure(nodule: PlacedNodule, label: int, geometry: Geometry) -> PhantomNodule:
    where = np.argwhere(nodule.mask)
    start, stop = where.min(0), where.max(0) + 1
    mask = nodule.mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))].astype(np.uint8)
    corner = np.asarray(nodule.box.start_zyx)
    box = Box(tuple((start + corner).tolist()), tuple((stop + corner).tolist()))
    x, y, z = geometry.to_lps(where.mean(0) + corner)
    volume = len(where) * geometry.voxel_mm3
    diameter = (6 * volume / math.pi) ** (1 / 3)
    return PhantomNodule(nodule.params, label, (float(x), float(y), float(z)), box, mask, volume, diameter)

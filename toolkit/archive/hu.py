"""Stored values to Hounsfield units, once, before anything is interpolated."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

AIR_HU = -1024
MAX_HU = 3071


def clip_hu(values: NDArray[np.floating]) -> NDArray[np.int16]:
    """Round HU to whole numbers and clip them to [-1024, 3071]; int16."""
    rounded: NDArray[np.int16] = np.clip(np.rint(values), AIR_HU, MAX_HU).astype(np.int16)
    return rounded


def reinterpret(value: int, bits: int, signed: bool) -> int:
    """Return what a `bits`-wide pattern means with the other sign rule.

    Scanners store PixelPaddingValue with the VR of an unsigned number while pixels are signed
    (63536 for -2000); the pattern is what counts.
    """
    pattern = value % (1 << bits)
    return pattern - (1 << bits) if signed and pattern >> (bits - 1) else pattern


@dataclass
class Tally:
    """What a reader saw and clipped away.

    Attributes
    ----------
    below
        Voxels below -1024 HU in files that name no padding value.
    """

    below: int = 0


@lru_cache(maxsize=64)
def hu_table(
    slope: float,
    intercept: float,
    bits_allocated: int,
    bits_stored: int,
    high_bit: int,
    signed: bool,
    padding: tuple[int, int] | None,
) -> NDArray[np.int16]:
    """Return HU for every pattern of 8 or 16 allocated bits, int16 (2 ** bits_allocated,).

    One look-up does all of DICOM's steps in their order: unused bits off, sign, padding (a closed
    range of stored values, PS3.3 C.7.5.1.1.2), modality rescale (PS3.3 C.11.1), rounding, clipping.
    """
    pattern = np.arange(1 << bits_allocated)
    value = stored_values(bits_allocated, bits_stored, high_bit, signed)
    hu = clip_hu(value * slope + intercept)
    if padding is not None:
        low, high = sorted(padding)
        hu[(value >= low) & (value <= high)] = AIR_HU
        if high_bit == bits_stored - 1:  # a padding value too wide for the cell is meant for the whole word
            negative = signed & (pattern >> (bits_allocated - 1))
            word = pattern - (negative << bits_allocated)
            hu[(word >= low) & (word <= high)] = AIR_HU
    hu.flags.writeable = False
    return hu


@lru_cache(maxsize=64)
def below_table(
    slope: float, intercept: float, bits_allocated: int, bits_stored: int, high_bit: int, signed: bool
) -> NDArray[np.bool_] | None:
    """Tell for every pattern whether it is less than -1024 HU, (2 ** bits_allocated,); None if none is."""
    hu = stored_values(bits_allocated, bits_stored, high_bit, signed) * slope + intercept
    below: NDArray[np.bool_] = np.rint(hu) < AIR_HU
    below.flags.writeable = False
    return below if below.any() else None


def stored_values(bits_allocated: int, bits_stored: int, high_bit: int, signed: bool) -> NDArray[np.int64]:
    """Return the stored value of every pattern: the bits of the pixel cell, with their sign."""
    pattern = np.arange(1 << bits_allocated)
    value = (pattern >> (high_bit + 1 - bits_stored)) & ((1 << bits_stored) - 1)
    if signed:
        value = np.where(value >> (bits_stored - 1), value - (1 << bits_stored), value)
    return value

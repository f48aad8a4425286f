"""Fused crop + resample + mask of ragged bricks; the array's type chooses the back end."""

from kernels.bricks import Brick, Bricks, extract, pack

__all__ = ["Brick", "Bricks", "extract", "pack"]

"""Fused crop + resample + mask of ragged bricks; the array's type chooses the back end."""

from kernels.bricks import MAX_HALF_WIDTH, Brick, Bricks, extract, pack, to_device

__all__ = ["MAX_HALF_WIDTH", "Brick", "Bricks", "extract", "pack", "to_device"]

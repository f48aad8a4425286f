"""The CPU kernels of augmentation, from the cache or compiled for it; only training asks for them."""

from kernels._cache import compiled

with compiled():
    from kernels.augment_cpu import augment_direct, augment_rows
    from kernels.spread_cpu import mask_box, spread_box

__all__ = ["augment_direct", "augment_rows", "mask_box", "spread_box"]

"""The CPU kernels of extraction, from the cache or compiled for it."""

from kernels._cache import cache_folder, compiled

with compiled():
    from kernels.cpu import extract_aligned, extract_direct
    from kernels.cpu_rows import extract_rows

__all__ = ["cache_folder", "extract_aligned", "extract_direct", "extract_rows"]

"""Where compiled CPU kernels are kept.

Numba's cache watches only the file of the cached function: an edited `arith.py` would keep its old
result. The cache folder's name therefore carries a digest of every source file in `kernels/`.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numba
from numba.core import config
from platformdirs import user_cache_path


def cache_folder() -> Path:
    """Return a writable folder for the compiled kernels of this source and this Numba."""
    digest = hashlib.blake2b(numba.__version__.encode(), digest_size=8)
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    folder = user_cache_path("toolkit") / "kernels" / digest.hexdigest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="toolkit-kernels-"))


@contextmanager
def compiled() -> Iterator[None]:
    """Make Numba look into `cache_folder` for what is imported inside."""
    outer, config.CACHE_DIR = config.CACHE_DIR, str(cache_folder())
    try:
        yield
    finally:
        config.CACHE_DIR = outer

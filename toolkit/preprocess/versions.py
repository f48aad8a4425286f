"""What decides the bytes of a store besides its input: our code and the libraries that decode."""

import platform
from functools import cache
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import kernels
import toolkit

ROOMS = ("archive", "preprocess", "store")
LIBRARIES = (
    "isal",
    "nibabel",
    "numba",
    "numpy",
    "pydicom",
    "pyjpegls",
    "pylibjpeg",
    "pylibjpeg-openjpeg",
    "pynrrd",
    "python-gdcm",
    "scipy",
)


@cache
def versions() -> dict[str, str]:
    """Return what must be equal wherever shards of one store are made; ``code`` is a digest of our source."""
    python = ".".join(platform.python_version_tuple()[:2])
    found = {"toolkit": toolkit.__version__, "code": _code(), "python": python}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def differences(ours: dict[str, str], theirs: dict[str, str]) -> list[str]:
    """Say what differs, each as ``name theirs (ours here)``."""
    return [
        f"{name} {theirs.get(name, 'none')} ({ours.get(name, 'none')} here)"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    ]


def _code() -> str:
    folders = [Path(kernels.__file__).parent]
    folders += [Path(toolkit.__file__).parent / room for room in ROOMS]
    digest = blake2b(digest_size=8)
    for folder in folders:
        for source in sorted(folder.glob("*.py")):
            digest.update(f"{folder.name}/{source.name}\0".encode() + source.read_bytes())
    return digest.hexdigest()

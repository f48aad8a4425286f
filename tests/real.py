"""The real CT data, which is not part of the product: where it lies, and how it is unpacked."""

import os
import tarfile
from pathlib import Path

import pytest


def real_data(name: str) -> Path:
    """Return a file of the real data, or skip the test with the reason."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("TOOLKIT_TEST_DATA") or beside) / name
    if not path.exists():
        pytest.skip(f"real CT data is absent: {name} (TOOLKIT_TEST_DATA names its folder)")
    return path


def unpack(archive: Path, into: Path) -> Path:
    """Unpack a tar file and return the folder."""
    with tarfile.open(archive) as tar:
        # Python before 3.11.4 has no filters
        tar.extractall(into, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return into

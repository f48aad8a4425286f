"""Real files as more seeds, where they are; the largest is cut to what its header and first bytes say."""

import os
import tarfile
from functools import cache
from pathlib import Path

MOST_BYTES = 1 << 18


@cache
def _folder() -> Path | None:
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get("TOOLKIT_TEST_DATA") or beside)
    return folder if folder.is_dir() and not os.environ.get("TOOLKIT_FUZZ_NO_REAL") else None


def real_files(*endings: str, archive: str = "dirty_archive.tar.xz", most: int = 40) -> dict[str, bytes]:
    """Return small real files by name, those whose name ends so."""
    folder = _folder()
    if folder is None or not (folder / archive).exists():
        return {}
    found = {}
    with tarfile.open(folder / archive) as tar:
        for member in tar:
            if len(found) == most:
                break
            if member.isfile() and member.name.endswith(endings) and member.size <= MOST_BYTES:
                file = tar.extractfile(member)
                assert file is not None
                found[member.name] = file.read()
    return found

"""What a model folder may hold and ask for, whoever made it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from toolkit.errors import Problem, UsageError

TRUSTED = ("monai.networks", "toolkit", "torch.nn", "torchvision.models")
ELSEWHERE = re.compile("pretrain|url|download|weights|checkpoint_path", re.IGNORECASE)


def check_architecture(architecture: Mapping[str, Any], path: Path) -> None:
    """Refuse code of packages that are not trusted, and options that fetch weights from elsewhere.

    Raises `UsageError` E-MODEL-005.
    """
    name, options = str(architecture.get("name", "")), architecture.get("options", {})
    package = name.partition(":")[0]
    if ":" in name and not any(package == each or package.startswith(each + ".") for each in TRUSTED):
        measured, expected = f"{package!r:.100}", "one of " + ", ".join(TRUSTED)
        _outside(path, "the model folder names code of another package", measured, expected)
    fetching = [key for key, value in options.items() if value and ELSEWHERE.search(key)]
    if ":" in name and fetching:
        expected = "none: the weights lie in the folder"
        _outside(path, "the model folder asks for weights from elsewhere", f"{fetching[0]!r:.100}", expected)


def _outside(path: Path, what: str, measured: str, expected: str) -> NoReturn:
    action = "Nothing imported; allow it where you trust whoever made the folder"
    raise UsageError(Problem("E-MODEL-005", what, measured, expected, action, (str(path),)))


def check_member(name: str, path: Path) -> None:
    """Refuse a member's name that leads out of a folder, or a link; raises `UsageError` E-MODEL-002."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", name):
        expected = "letters, digits, dot, dash and underscore"
        refuse(path, "a member's name that is no folder name", f"{name!r:.60}", expected)
    if (path / name).is_symlink():
        refuse(path / name, "a link inside the model folder", "", "the folder itself")


def read_regular(path: Path, limit: int | None = None) -> bytes:
    """Return the bytes of a regular file; raises `UsageError` E-MODEL-002 where it is none, or too long.

    A link is none.
    """
    try:
        if path.is_symlink():
            refuse(path, "a link inside the model folder", "", "the file itself")
        if not path.is_file():
            refuse(path, "a file of the model folder is missing", "no regular file")
        size = path.stat().st_size
        if limit is not None and size > limit:
            refuse(path, "a file of the model folder is too large", f"{size} bytes", f"at most {limit}")
        return path.read_bytes()
    except OSError as error:
        refuse(path, "a file of the model folder cannot be read", error.strerror or "", cause=error)


def refuse(
    path: Path,
    what: str,
    measured: str,
    expected: str = "",
    *,
    code: str = "E-MODEL-002",
    cause: BaseException | None = None,
) -> NoReturn:
    """Raise `UsageError` on a file of a model folder."""
    action = "Nothing loaded; take the folder from where it was made"
    raise UsageError(Problem(code, what, measured, expected, action, (str(path),))) from cause

"""Text of files and of their names, made fit for a terminal."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def plain(text: str, *, fold: bool = False) -> "Text":
    """Return text without markup whose control characters are written out: a name may not steer a terminal.

    Lone halves of a pair, as names that are no UTF-8 have them, are written out, too.
    """
    from rich.text import Text

    safe = _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
    safe = safe.encode("utf-8", "backslashreplace").decode()
    return Text(safe, overflow="fold" if fold else None)

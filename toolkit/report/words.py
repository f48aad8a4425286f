"""Numbers and sentences as people read them."""

import math


def plain(value: float) -> str:
    """Return a number with three digits, without an exponent."""
    if abs(value) < 0.005:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    text = f"{value:,.{min(3, max(0, digits))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(share: float, digits: int = 0) -> str:
    """Return a share as per cent."""
    return f"{100 * share:.{digits}f} %"


def plural(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def size(number: int) -> str:
    """Return bytes as MB or GB."""
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def sentence(text: str) -> str:
    """Return a text that begins with a capital letter."""
    return text[:1].upper() + text[1:]

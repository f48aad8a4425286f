"""Numbers and sentences as people read them."""

import math
import re
from html import escape

from toolkit.evaluation.results import Interval


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


def chance(probability: float) -> str:
    """Return a probability as per cent with one decimal, never rounded to certainty."""
    if probability < 0.0005:
        return "below 0.1 %"
    return "above 99.9 %" if probability >= 0.9995 else percent(probability, 1)


def plural(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def size(number: int) -> str:
    """Return bytes as kB, MB or GB."""
    if number < 100_000:
        return f"{number / 1e3:.1f} kB"
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def sentence(text: str) -> str:
    """Return a text that begins with a capital letter."""
    return text[:1].upper() + text[1:]


def fixed(value: float, digits: int = 2) -> str:
    """Return a number with so many decimals and a true minus sign; NaN is ``not defined``."""
    if math.isnan(value):
        return "not defined"
    text = f"{value:,.{digits}f}"
    return text.replace("-", "\u2212") if float(text.replace(",", "")) else text.lstrip("-")


def ranged(value: Interval, digits: int = 2) -> str:
    """Return an estimate with its interval: ``0.87 (0.82 to 0.91)``."""
    if math.isnan(value.value):
        return "not defined"
    if math.isnan(value.low):
        return fixed(value.value, digits)
    return f"{fixed(value.value, digits)} ({fixed(value.low, digits)} to {fixed(value.high, digits)})"


def ranged_percent(value: Interval, digits: int = 0) -> str:
    """Return a share with its interval as per cent: ``87 % (82 to 91)``."""
    if math.isnan(value.value):
        return "not defined"
    if math.isnan(value.low):
        return percent(value.value, digits)
    ends = f"{fixed(100 * value.low, digits)} to {fixed(100 * value.high, digits)}"
    return f"{percent(value.value, digits)} ({ends})"


def prose(text: str) -> str:
    """Return plain text as HTML: commands between backticks as code, true minus signs, units kept."""
    parts = escape(text).split("`")
    for k in range(0, len(parts), 2):
        parts[k] = re.sub(r"(?<![\w-])-(?=\d)", "\u2212", parts[k]).replace(" %", "\u00a0%")
    parts[1::2] = [f"<code>{command}</code>" for command in parts[1::2]]
    return "".join(parts)

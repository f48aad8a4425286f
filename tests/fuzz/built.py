"""What the tests of built files share: how many, odd spellings of numbers, and what a number is."""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.long import LONG
from toolkit.errors import CODES, ToolkitError

T = TypeVar("T")


def examples(short: int) -> settings:
    """Return how many files are built; a hundred times as many where tests are long."""
    shared = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much]
    return settings(max_examples=short * (100 if LONG else 1), deadline=None, suppress_health_check=shared)


_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
ODD = (
    *(
        "",
        "nan",
        "inf",
        "-Infinity",
        "1,5",
        "1_0",
        "1_0.5",
        "0x10",
        "1e400",
        "1e-400",
        "1e",
        "--1",
        "+ 1",
        "1.5.2",
    ),
    *("\u0661", "1e5", "-0", ".5", "5.", "+3", "00012", "9" * 30, "1 2", "1f", "None", "true", "2147483648"),
)


def spelled(low: float = -1000, high: float = 1000) -> st.SearchStrategy[str]:
    """Return spellings of numbers in a range, now and then of something else."""
    plain = st.one_of(
        st.floats(low, high).map(repr),
        st.floats(low, high).map(lambda x: f"{x:.3e}"),
        st.integers(int(low), int(high)).map(str),
    )
    spaced = st.tuples(st.sampled_from(["", "", "", " ", "\t"]), plain, st.sampled_from(["", "", " "])).map(
        "".join
    )
    return mostly(spaced, st.sampled_from(ODD), 40)


def mostly(usual: st.SearchStrategy[T], odd: st.SearchStrategy[T], times: int) -> st.SearchStrategy[T]:
    """Draw the odd one about once in `times`."""
    return st.integers(1, times).flatmap(lambda k: odd if k == times else usual)


def number_of(text: str) -> float:
    """Return the number that a text is in any language; ValueError for what only Python takes for one."""
    if not _NUMBER.fullmatch(text.strip()):
        raise ValueError(text)
    return float(Decimal(text.strip()))


def read_or_refused(read: Callable[..., T], *args: object) -> T | None:
    """Return what a reader returns; None where it refuses with a code that is registered."""
    try:
        return read(*args)
    except ToolkitError as error:
        code = error.problem.code
    assert code in CODES
    return None

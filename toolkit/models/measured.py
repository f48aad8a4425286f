"""Measured features of a nodule, which a network may fuse at its last layer."""

from collections.abc import Iterable

from toolkit.errors import Problem, UsageError

FEATURES = ("diameter", "volume", "mean_hu", "solid_share")


def check_features(names: Iterable[str]) -> None:
    """Raise `UsageError` E-MODEL-004 on a name that is no feature, or that comes twice."""
    names = tuple(names)
    for name in names:
        if name not in FEATURES or names.count(name) > 1:
            what = (
                "a measured feature is unknown" if name not in FEATURES else "a measured feature comes twice"
            )
            expected = ", ".join(FEATURES)
            raise UsageError(Problem("E-MODEL-004", what, f"{name!r:.60}", expected, "Nothing done"))

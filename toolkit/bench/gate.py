"""Right before fast: no speed is shown of what gives wrong numbers."""

from toolkit.errors import Problem, ToolkitError


def check(stage: str, what: str, apart: float, allowed: float) -> str:
    """Return a sentence where two results are at most `allowed` apart (NaN is not).

    Raises `ToolkitError` E-BENCH-001, exit code 1, where they are not.
    """
    if not apart <= allowed:
        action = "No speed is shown; `toolkit doctor` looks for the cause"
        measured, expected = f"{what}: {apart:.3g} apart", f"at most {allowed:.3g}"
        raise ToolkitError(Problem("E-BENCH-001", f"{stage} gives wrong numbers", measured, expected, action))
    return f"{stage}: {what}: at most {apart:.2g} apart"

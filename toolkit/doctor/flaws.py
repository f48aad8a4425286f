"""Packages with known security flaws: one table for the doctor, and for the floors in pyproject.toml.

Named are flaws of what we depend on directly, not those of their dependencies; `tests/doctor/test_flaws.py`
holds pyproject.toml and constraints.txt to it.
"""

from typing import NamedTuple


class Flaw(NamedTuple):
    """First version without the flaw, older lines that were mended (their first), ids, and what it is."""

    first: str
    mended: tuple[str, ...]
    ids: tuple[str, ...]
    what: str


FLAWS: dict[str, Flaw] = {
    "pydicom": Flaw("3.0.2", ("2.4.5",), ("CVE-2026-32711",), "a DICOMDIR can name files outside its folder"),
    "python-gdcm": Flaw("3.2.6", (), ("CVE-2026-3650",), "a small file can fill the memory"),
    "torch": Flaw("2.10", (), ("CVE-2026-24747", "CVE-2025-32434"), "loading foreign weights can run code"),
    "pillow": Flaw(
        "12.3", (), ("CVE-2026-59199", "CVE-2026-25990"), "pictures can write beyond their memory"
    ),
    "monai": Flaw(
        "1.6.1",
        (),
        (
            *("CVE-2025-58755", "CVE-2025-58756", "CVE-2025-58757", "CVE-2026-21851", "CVE-2026-100844"),
            *("CVE-2026-100846", "CVE-2026-109360", "CVE-2026-109361"),
        ),
        "bundles, checkpoints and configurations can run code",
    ),
    "wandb": Flaw(
        "0.28.1", (), ("CVE-2025-47914", "CVE-2025-58181", "GHSA-f5wc-c3c7-36mc"), "flaws of its Go libraries"
    ),
}

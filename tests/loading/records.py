"""Nodules for tests of splits and samplers."""

from toolkit.store import Nodule


def nodule(
    name: str, patient: str, label: float | None = None, diameter: float | None = 8.0, split: str = ""
) -> Nodule:
    return Nodule(
        name, f"c-{patient}", patient, label, diameter, None, (0.0, 0.0, 0.0), 0.1, "none", split=split
    )

"""The evidence: what is claimed about speed, and the scripts that anyone can rerun."""

from pathlib import Path

RESULTS = Path(__file__).parent / "results"

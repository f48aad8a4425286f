"""The GPU's kernels, without a GPU: under Triton's interpreter they are plain torch, and they compile."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="Triton has wheels for Linux alone")
def test_kernels_are_plain_torch() -> None:
    """Every piece, and a whole network forward and back, tile by tile."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.models.fast_triton_worker"]
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == ["equal"]

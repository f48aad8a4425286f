"""The short form of ``python -m tests.faults``: a few seeds; the long ones are run by hand and recorded."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.door import compiler

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(compiler() is None, reason="the shim needs Linux and a C compiler"),
]


def faults(*arguments: str) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.faults", *arguments]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_preprocessing_loses_nothing_and_a_missing_safeguard_is_noticed() -> None:
    told = faults("preprocess", "--seeds", "8", "--prove", "--processes", "2")
    assert told["tried"] >= 8
    assert told["found"] == told["lost"] == 0
    assert len(told["safeguards taken out, noticed at seed"]) == 4


def test_training_loses_nothing() -> None:
    told = faults("training", "--seeds", "2", "--processes", "2")
    assert told["tried"] >= 2
    assert told["found"] == told["lost"] == 0

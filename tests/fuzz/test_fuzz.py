"""Short form of ``python -m tests.fuzz``: every kept finding again, and a few inputs of every reader."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.child import alone
from tests.fuzz.mutate import damaged_json
from tests.fuzz.target import outcome
from tests.fuzz.targets import TARGETS

KEPT = sorted((Path(__file__).parent / "corpus").glob("*/*.bin"))


@pytest.mark.parametrize("path", [p for p in KEPT if p.parent.name != "pixels-jpeg"], ids=lambda p: p.stem)
def test_a_kept_finding_is_none_any_more(path, tmp_path):
    target = TARGETS[path.parent.name]
    outcome(target.reader(tmp_path), path.read_bytes())


def test_a_decoder_that_aborts_takes_its_own_process_alone(tmp_path):
    """GDCM still aborts on this stream: a worker dies of it, and its parent says so."""
    (path,) = [p for p in KEPT if p.parent.name == "pixels-jpeg"]
    target = TARGETS["pixels-jpeg"]
    assert alone(target, target.reader(tmp_path), path.read_bytes()) in ("", "the process ended with -6")


@pytest.mark.parametrize("name", [n for n, t in TARGETS.items() if not t.native])
def test_damaged_files_are_refused_or_read(name, tmp_path):
    target = TARGETS[name]
    (tmp_path / "seeds").mkdir()
    (tmp_path / "work").mkdir()
    inputs, read = target.inputs(tmp_path / "seeds"), target.reader(tmp_path / "work")
    for number in range(100):
        outcome(read, inputs.number(number, 3))


def test_damage_does_not_depend_on_what_was_damaged_before():
    def damage(rng):
        return json.dumps(damaged_json([{"a": [1, {"b": 2}], "c": {}}], rng))

    first = [damage(Random(k)) for k in range(2000)]
    assert first == [damage(Random(k)) for k in range(2000)]


@pytest.mark.slow  # atheris rewrites the bytecode of all that is imported
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris comes with the extra `fuzz`")
@pytest.mark.parametrize("target", ["luna16", "index-cache"])  # the other one without a word to try
def test_coverage_leads_to_inputs_that_are_kept(tmp_path, target):
    words = [sys.executable, "-m", "tests.fuzz.atheris", target, "--seconds", "120", "--runs", "300"]
    done = subprocess.run([*words, "--findings", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["tried"] == 300
    assert told["edges"] > 0
    assert told["kept"] > len(TARGETS[target].seeds(tmp_path))

"""The table of hazards names codes and tests that exist, and all 32 hazards."""

import ast
import re
from pathlib import Path

from toolkit.errors import CODES

ROOT = Path(__file__).parents[2]


def test_every_row_names_registered_codes_and_real_tests():
    lines = (ROOT / "toolkit" / "archive" / "HAZARDS.md").read_text().splitlines()
    rows = [line.split("|")[1:-1] for line in lines if re.match(r"\| \d", line)]
    assert [int(row[0]) for row in rows] == list(range(1, 33))
    defined: dict[str, set[str]] = {}
    for _, hazard, fate, codes, proofs in rows:
        assert hazard.strip()
        assert fate.strip()
        assert set(codes.split()) <= set(CODES), hazard
        named = re.findall(r"`([^`]+)::(\w+)`", proofs)
        assert named, hazard
        for file, function in named:
            if file not in defined:
                tree = ast.parse((ROOT / "tests" / file).read_text())
                defined[file] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert function in defined[file], f"{file}::{function}"

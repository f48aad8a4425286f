"""SECURITY.md says nothing without a test that shows it."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "SECURITY.md").read_text("utf-8")


def test_every_claim_names_tests_that_exist() -> None:
    claims = PAGE.split("## What is done")[1].split("## What is not claimed")[0]
    for claim in re.findall(r"^\*\*.*?(?=^\*\*|\Z)", claims, re.MULTILINE | re.DOTALL):
        named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", claim)
        assert named, claim
        for file, test in named:
            assert f"def {test}(" in (TESTS / file).read_text("utf-8"), (file, test)

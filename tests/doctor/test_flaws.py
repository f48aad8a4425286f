"""No version with a known flaw can be installed with us: floors and pins against the doctor's table."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.doctor.machines import with_version
from toolkit.doctor.flaws import FLAWS
from toolkit.doctor.traps import flaw

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
GROUPS = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if line)


def flawed(groups: dict[str, list[str]], pins: dict[str, str]) -> list[str]:
    """Return what allows a version below its floor."""
    found = []
    for group, lines in groups.items():
        for asked in map(Requirement, lines):
            known = FLAWS.get(canonicalize_name(asked.name))
            floors = [Version(each.version) for each in asked.specifier if each.operator in (">=", "==")]
            if known is not None and not any(each >= Version(known.first) for each in floors):
                found.append(f"{group}: {asked}")
    named = {canonicalize_name(name): pin for name, pin in pins.items()}
    found += [
        f"constraints: {name}=={named.get(name)}"
        for name, known in FLAWS.items()
        if name not in named or Version(named[name]) < Version(known.first)
    ]
    return found


def test_no_flawed_version_can_be_installed() -> None:
    assert flawed(GROUPS, PINS) == []
    asked = {canonicalize_name(Requirement(line).name) for lines in GROUPS.values() for line in lines}
    assert {*FLAWS} <= asked, "a package that nobody asks for needs no floor"


@pytest.mark.parametrize("name", FLAWS)
def test_a_floor_or_pin_that_is_too_low_is_found(name: str) -> None:
    assert flawed({"x": [name]}, PINS) == [f"x: {name}"]
    assert flawed({"x": [f"{name}>=0.1,!=9"]}, PINS) != []
    assert flawed({"x": [f"{name}<99"]}, PINS) != []
    assert flawed({}, {**PINS, name: "0.1"}) == [f"constraints: {name}==0.1"]


@pytest.mark.parametrize("name", FLAWS)
def test_each_flaw_has_an_id_and_the_doctor_knows_it(name: str) -> None:
    known = FLAWS[name]
    assert known.ids
    assert all(re.fullmatch(r"CVE-20\d\d-\d{4,}|GHSA(-[0-9a-z]{4}){3}", each) for each in known.ids)
    first = flaw(with_version(**{name.replace("-", "_"): known.first}), name)
    assert first.status == "ok"
    old = flaw(with_version(**{name.replace("-", "_"): "0.0.1"}), name)
    assert (old.status, known.ids[0] in old.consequence, known.first in old.fix) == ("trap", True, True)

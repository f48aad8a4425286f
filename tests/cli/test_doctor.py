"""``toolkit doctor`` as a user and a program meet it."""

import json
import os
import socket
from importlib.metadata import version
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from tests.cli.test_cli import toolkit
from toolkit.doctor.report import Report

SCHEMA = TypeAdapter(Report)


def report(text: str) -> Report:
    return SCHEMA.validate_json(text, strict=True)


@pytest.fixture(scope="module")
def printed() -> str:
    shown = toolkit("doctor", "--json")
    assert shown.returncode == 0, shown.stdout
    assert shown.stderr == ""
    return shown.stdout


def test_json_is_what_the_schema_says(printed: str) -> None:
    found = report(printed)
    assert found.schema == 1
    assert found.status in ("ok", "note", "trap")
    assert {each.group for each in found.findings} == {"back ends", "transfer syntaxes", "self-test", "traps"}
    assert found.versions["torch"] == version("torch")
    assert found.versions["numba"] == version("numba")
    assert len(found.syntaxes) == 14
    assert found.chosen.amp in ("float32", "bfloat16", "float16")


def test_the_schema_refuses_what_it_does_not_know(printed: str) -> None:
    for change in ({"more": 1}, {"status": "fine"}, {"machine": None}, {"findings": [{"group": "traps"}]}):
        with pytest.raises(ValidationError):
            report(json.dumps(json.loads(printed) | change))


def test_no_path_and_no_host_name(printed: str) -> None:
    for private in (str(Path.home()), str(Path.cwd()), socket.gethostname(), os.environ["XDG_CONFIG_HOME"]):
        assert private == "/" or private not in printed


def test_quick_computes_nothing() -> None:
    found = report(toolkit("doctor", "--quick", "--json").stdout)
    assert {each.group for each in found.findings} == {"back ends", "traps"}
    assert found.syntaxes == ()
    assert toolkit("doctor", "--quick", "--compile").returncode == 2


def test_the_table_names_fixes_and_counts(tmp_path: Path) -> None:
    (tmp_path / "in-the-way").write_text("")
    shown = toolkit("doctor", COLUMNS="200", XDG_CONFIG_HOME=str(tmp_path / "in-the-way"))
    assert shown.returncode == 0
    assert "fix: give a key with --id-key FILE" in shown.stdout
    assert "trap" in shown.stdout.splitlines()[-1]


def test_a_broken_torch_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise OSError('/secret/libcudart.so: cannot open')\n")
    path = os.pathsep.join([str(tmp_path), str(Path.cwd())])
    shown = toolkit("doctor", "--json", PYTHONPATH=path)
    assert shown.returncode == 1
    assert "Traceback" not in shown.stderr
    assert "/secret" not in shown.stdout
    found = report(shown.stdout)
    failed = [(each.name, each.found) for each in found.findings if each.status == "failed"]
    assert failed == [("training", "torch cannot be imported: OSError")]

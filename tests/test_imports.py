"""Data flows one way, and imports follow it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BASE = {"toolkit", "toolkit.errors", "toolkit.memory"}
# room: the rooms that it may import from, besides itself
ALLOWED = {
    "kernels": set(),
    "toolkit.errors": set(),
    "toolkit.__main__": BASE | {"toolkit.cli"},
    "toolkit.progress": set(),
    "toolkit.device": BASE,
    "toolkit.memory": set(),
    "toolkit.archive": BASE,
    "toolkit.store": BASE,
    "toolkit.preprocess": BASE
    | {
        "kernels",
        "toolkit.archive",
        "toolkit.store",
        "toolkit.progress",
        "toolkit.device",
        "toolkit.memory",
    },
    "toolkit.evaluation": BASE | {"toolkit.store"},
    "toolkit.models": BASE | {"toolkit.store", "toolkit.evaluation", "toolkit.loading"},
    "toolkit.training": BASE
    | {"toolkit.store", "toolkit.loading", "toolkit.models", "toolkit.evaluation", "toolkit.device"},
    "toolkit.inference": BASE
    | {
        "toolkit.archive",
        "toolkit.preprocess",
        "toolkit.store",
        "toolkit.loading",
        "toolkit.models",
        "toolkit.evaluation",
        "toolkit.training",
        "toolkit.progress",
        "toolkit.device",
    },
    "toolkit.report": BASE
    | {
        "kernels",
        "toolkit.store",
        "toolkit.loading",
        "toolkit.evaluation",
        "toolkit.training",
        "toolkit.progress",
    },
    "toolkit.bench": BASE
    | {
        "kernels",
        "toolkit.archive",
        "toolkit.preprocess",
        "toolkit.phantom",
        "toolkit.store",
        "toolkit.loading",
        "toolkit.models",
        "toolkit.training",
        "toolkit.device",
    },
    "toolkit.loading": BASE | {"kernels", "toolkit.store", "toolkit.device", "toolkit.progress"},
    "toolkit.phantom": BASE | {"toolkit.archive"},
    "toolkit.doctor": BASE
    | {
        "kernels",
        "toolkit.archive",
        "toolkit.loading",
        "toolkit.models",
        "toolkit.training",
        "toolkit.device",
        "toolkit.memory",
    },
    "toolkit.cli": BASE
    | {
        "toolkit.archive",
        "toolkit.store",
        "toolkit.preprocess",
        "toolkit.report",
        "toolkit.loading",
        "toolkit.phantom",
        "toolkit.models",
        "toolkit.training",
        "toolkit.evaluation",
        "toolkit.inference",
        "toolkit.doctor",
        "toolkit.bench",
        "toolkit.device",
    },
}


def room(module: str) -> str:
    parts = module.split(".")
    return parts[0] if parts[0] == "kernels" or len(parts) == 1 else ".".join(parts[:2])


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""}
    return {name for name in found if name.split(".")[0] in ("toolkit", "kernels", "benchmarks", "tests")}


@pytest.mark.parametrize(
    "path",
    [p for folder in ("toolkit", "kernels") for p in sorted((ROOT / folder).rglob("*.py"))],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_imports_follow_the_flow(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    if module == "toolkit":
        assert not imported(path)
        return
    own = room(module)
    wrong = {name for name in imported(path) if room(name) not in ALLOWED[own] | {own}}
    assert not wrong, f"{module} must not import {sorted(wrong)}"


def test_every_room_is_in_the_table() -> None:
    rooms = {
        room(".".join(p.relative_to(ROOT).with_suffix("").parts)) for p in (ROOT / "toolkit").rglob("*.py")
    }
    assert rooms - {"toolkit.__init__"} <= {*ALLOWED}


@pytest.mark.parametrize(
    "module",
    [
        "kernels",
        "toolkit",
        "toolkit.store",
        "toolkit.loading.split_file",
        "toolkit.loading.sampler",
        "toolkit.evaluation.labels",
        "toolkit.models.folder",
        "toolkit.training.config",
        "toolkit.cli",
    ],
)
def test_nothing_heavy_is_imported_early(module: str) -> None:
    code = (
        f"import sys, {module}; print([m for m in ('torch', 'cupy', 'numba', 'scipy') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout.strip() == "[]"

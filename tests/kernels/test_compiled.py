"""The compile cache cannot serve an old kernel, and `kernels` stands alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

KERNELS = Path(__file__).parents[2] / "kernels"
FOLDER = "from kernels import _compiled; print(_compiled.cache_folder())"
EXTRACT = """
import numpy as np
from kernels import Brick, extract, pack
hu = np.full((2, 2, 2), 7, np.int16)
print(extract(pack([Brick(hu, None, np.eye(3, 4))], 1), 1)[0].item())
"""


def python(code, folder):
    """Run code with the `kernels` of a folder and a user cache of its own; return what it prints."""
    env = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(
        command, cwd=folder, env=env, check=True, capture_output=True, text=True, timeout=120
    )
    return done.stdout.strip()


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(KERNELS, tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def edit(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_an_edited_definition_gives_a_new_result(copy):
    assert python(EXTRACT, copy) == "7"
    assert list((copy / "cache").rglob("*.nbi")), "nothing was cached: the test proves nothing"
    edit(
        copy / "kernels" / "arith.py",
        "np.int16(math.floor(value + HALF))",
        "np.int16(math.floor(value + HALF + FULL))",
    )
    assert python(EXTRACT, copy) == "262"


def test_cache_folder_follows_every_source(copy):
    """`cache_folder` alone is asked, of a copy whose back end compiles nothing."""
    (copy / "kernels" / "cpu.py").write_text("extract_aligned = extract_direct = None\n")
    (copy / "kernels" / "cpu_rows.py").write_text("extract_rows = None\n")
    seen = {python(FOLDER, copy)}
    assert python(FOLDER, copy) in seen
    for name in ("arith.py", "bricks.py", "cpu.py"):
        with (copy / "kernels" / name).open("a") as source:
            source.write("# edited\n")
        folder = python(FOLDER, copy)
        assert folder not in seen
        assert Path(folder).is_dir()
        seen.add(folder)


def test_a_cache_that_cannot_be_written_is_no_failure(copy):
    (copy / "kernels" / "cpu.py").write_text("extract_aligned = extract_direct = None\n")
    (copy / "kernels" / "cpu_rows.py").write_text("extract_rows = None\n")
    (copy / "cache").write_text("a file where the folder should be")
    assert "toolkit-kernels-" in python(f"import tempfile; tempfile.tempdir = '.'; {FOLDER}", copy)


def test_kernels_import_nothing_of_the_toolkit_nor_torch_nor_cupy():
    """Nor does `import kernels` alone import Numba: the command line must answer at once."""
    code = """
import sys, kernels
assert "numba" not in sys.modules
import kernels._compiled, kernels.oracle
print(sorted({"toolkit", "torch", "cupy"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", code]
    assert subprocess.check_output(command, cwd=KERNELS.parent, text=True, timeout=120).strip() == "[]"


def test_no_kernel_source_names_the_toolkit():
    for source in KERNELS.glob("*.py"):
        assert "toolkit import" not in source.read_text()
        assert "import toolkit" not in source.read_text()

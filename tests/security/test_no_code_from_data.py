"""Nothing that is read can become code: looked for in the syntax of every file, aliases resolved."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [p for folder in ("toolkit", "kernels", "benchmarks", "scripts") for p in (ROOT / folder).rglob("*")]
# a module or a call, by its full name: the only files that may hold it, and why
UNPICKLES = {
    "toolkit/preprocess/pool.py": "between this process and workers that it started itself",
    "benchmarks/peers/profile_case.py": "times the same, on values of its own",
}
IMPORTS_BY_NAME = {
    "toolkit/models/registry.py": "a network that the user names; trust.py judges what a model folder names",
    "toolkit/doctor/software.py": "names in its own source",
}
READS_XML = {"toolkit/archive/lidc.py": "after refuse_doctype"}
UNPACKS = {
    "benchmarks/peers/copies.py": "a data set of our own, with the filter for data",
    "toolkit/bench/live.py": "a commit of the user's own repository, with the same filter",
}
FORBIDDEN = (
    *("eval", "exec", "__import__", "builtins", "yaml", "ruamel.yaml", "jsonpickle", "hydra", "pandas"),
    *("tarfile", "zipfile", "shutil.unpack_archive", "pydicom.fileset", "tempfile.mktemp"),
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("torch.save", "torch.jit.load", "torch.hub", "torch.package"),
    *("lxml", "xml.dom", "xml.sax", "xml.etree.ElementTree.parse", "xml.etree.ElementTree.iterparse"),
    "xml.etree.ElementTree.XML",
)
PICKLES = ("pickle", "_pickle", "marshal.load", "marshal.loads", "shelve", "dill", "cloudpickle", "joblib")
PERMITTED: dict[str, dict[str, str]] = {
    **{name: {} for name in FORBIDDEN},
    **dict.fromkeys(PICKLES, UNPICKLES),
    "tarfile": UNPACKS,
    "xml.etree.ElementTree.fromstring": READS_XML,
    "importlib.import_module": IMPORTS_BY_NAME,
}
KEYWORDS = {  # call: what it must be told, literally
    "numpy.load": ("allow_pickle", False),
    "numpy.save": ("allow_pickle", False),
    "torch.load": ("weights_only", True),
}


def findings(text: str, name: str = "") -> Iterator[str]:
    """Yield what a file must not hold, with its line."""
    tree = ast.parse(text)
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {(a.asname or a.name.split(".")[0]): (a.name if a.asname else a.name.split(".")[0])
                      for a in node.names}  # fmt: skip
            told = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            known |= {(a.asname or a.name): f"{node.module}.{a.name}" for a in node.names}
            told = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (f"{node.lineno}: {each}" for each in told if not _permitted(each, name))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and not _permitted(full := _full(node, known), name):
            yield f"{node.lineno}: {full}"
        if isinstance(node, ast.Call):
            yield from (f"{node.lineno}: {each}" for each in _call(node, _full(node.func, known)))


def _call(node: ast.Call, full: str) -> Iterator[str]:
    given = {each.arg: each.value for each in node.keywords}
    if full == "compile":
        yield full
    shell = given.get("shell")
    if shell is not None and not (isinstance(shell, ast.Constant) and shell.value is False):
        yield f"{full} with a shell"
    if full in KEYWORDS:
        word, value = KEYWORDS[full]
        told = given.get(word)
        if not (isinstance(told, ast.Constant) and told.value is value):
            yield f"{full} without {word}={value}"


def _full(node: ast.AST, known: dict[str, str]) -> str:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([known.get(node.id, node.id), *reversed(parts)])


def _permitted(full: str, name: str) -> bool:
    return all(name in files for begins, files in PERMITTED.items() if (full + ".").startswith(begins + "."))


SOURCES = [p for p in FILES if p.suffix == ".py"]


def test_all_sources_are_looked_at() -> None:
    assert len(SOURCES) > 300


def test_no_source_makes_code_of_data() -> None:
    names = {path: str(path.relative_to(ROOT)) for path in SOURCES}
    told = {name: [*findings(path.read_text("utf-8"), name)] for path, name in names.items()}
    assert {name: found for name, found in told.items() if found} == {}


@pytest.mark.parametrize(
    "text",
    [
        "eval(x)",
        "from builtins import eval as e",
        "exec(x)",
        "compile(x, '', 'exec')",
        "__import__(x)",
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "from _pickle import loads",
        "import dill",
        "import joblib.numpy_pickle",
        "import yaml\nyaml.safe_load(x)",
        "import numpy as np\nnp.load(x)",
        "import numpy as np\nnp.load(x, allow_pickle=True)",
        "import numpy as np\nnp.load(x, allow_pickle=flag)",
        "from numpy import load\nload(x)",
        "import numpy\nnumpy.save(x, y)",
        "import torch\ntorch.load(x)",
        "import torch\ntorch.load(x, weights_only=False)",
        "from torch import load as read\nread(x)",
        "import torch\ntorch.save(x, y)",
        "import torch\ntorch.hub.load(x)",
        "import os\nos.system(x)",
        "from os import popen\npopen(x)",
        "import subprocess\nsubprocess.run(x, shell=True)",
        "import subprocess as s\ns.Popen(x, shell=flag)",
        "import importlib\nimportlib.import_module(x)",
        "from importlib import import_module",
        "import zipfile",
        "from tarfile import open",
        "import shutil\nshutil.unpack_archive(x)",
        "from pydicom.fileset import FileSet",
        "import pydicom\npydicom.fileset.FileSet(x)",
        "from xml.etree.ElementTree import parse",
        "import xml.etree.ElementTree as ET\nET.fromstring(x)",
        "from lxml import etree",
        "import xml.dom.minidom",
        "def f():\n    import marshal\n    marshal.loads(x)",
        "from marshal import load",
        "call = eval",
    ],
)
def test_what_is_looked_for_is_found(text: str) -> None:
    assert [*findings(text, "toolkit/somewhere.py")]


@pytest.mark.parametrize(
    "text",
    [
        "model.eval()",
        "import re\nre.compile(x)",
        "import numpy as np\nnp.load(x, mmap_mode='r', allow_pickle=False)",
        "import torch\ntorch.load(x, weights_only=True)",
        "import torch\ntorch.compile(x)",
        "import subprocess\nsubprocess.run([x], check=True)",
        "import json\njson.load(x)",
        "from safetensors.torch import load\nload(x)",
    ],
)
def test_what_is_harmless_is_not(text: str) -> None:
    assert not [*findings(text, "toolkit/somewhere.py")]


def test_every_exception_is_needed() -> None:
    """A file that no longer does what it is excused for loses its excuse."""
    for files in (UNPICKLES, IMPORTS_BY_NAME, READS_XML, UNPACKS):
        for name in files:
            assert [*findings((ROOT / name).read_text("utf-8"), "elsewhere.py")], name


SHELL = re.compile(r"(^|[;&|(]\s*)eval\s|\|\s*(ba|z|da)?sh\b|\bsource\s+<\(", re.MULTILINE)
BROWSER = re.compile(
    r"\beval\s*\(|\bnew Function\b|\bdocument\.write\b|\binsertAdjacentHTML\b"
    r"|\bset(Timeout|Interval)\(\s*[\"']"
)


def test_scripts_run_nothing_that_they_read() -> None:
    shell = [p for p in FILES if p.suffix == ".sh"]
    browser = [p for p in FILES if p.suffix == ".js"]
    assert shell
    assert browser
    assert not [p.name for p in shell if SHELL.search(p.read_text("utf-8"))]
    assert not [p.name for p in browser if BROWSER.search(p.read_text("utf-8"))]
    for text in ('eval "$x"', "curl u | sh", "a; eval $b", "wget -O- u |bash"):
        assert SHELL.search(text)
    for text in ("eval(x)", "new Function(x)", 'setTimeout("x", 1)'):
        assert BROWSER.search(text)

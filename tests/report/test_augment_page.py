"""The page of draws: both back ends side by side, and honest where one cannot."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.report.stores import make
from tests.report.test_store_page import checked
from toolkit.loading.augment import preset
from toolkit.report.augment_page import chosen, make_page


@pytest.mark.parametrize("name", ["none", "light", "default"])
def test_fused_and_dali_stand_side_by_side_and_agree(tmp_path: Path, name: str) -> None:
    pytest.importorskip("nvidia.dali", reason="DALI is not installed")
    page = make_page(make(tmp_path / "s", 12, noise=40), preset(name), name, count=3)
    html = page.decode()
    checked(page)
    assert html.count("<img") == 4 * (1 + 2 * 3)  # the stored crop, and three draws of each back end
    apart = float(re.search(r"at most <b>([\d.e+-]+)</b>", html)[1])
    assert apart < 1e-3
    assert (apart == 0) == (name == "none")  # the identity is exact in both


def test_what_dali_does_not_have_is_said(tmp_path: Path) -> None:
    html = make_page(make(tmp_path / "s", 3), preset("strong"), "strong", count=2).decode()
    assert "DALI is left out" in html
    assert html.count("<img") == 3 * 3


def test_nodules_of_all_sizes_are_chosen(tmp_path: Path) -> None:
    store = make(tmp_path / "s", 12)
    sizes = [store.nodules[i].diameter_mm for i in chosen(store)]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (5.0, 12.0)
    assert chosen(make(tmp_path / "one", 1)) == [0]


def test_the_command_writes_both_pages(tmp_path: Path) -> None:
    make(tmp_path / "s", 3)
    words = [sys.executable, "-m", "toolkit", "inspect", str(tmp_path / "s"), "--augment"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "s" / "augment.html").is_file()
    wrong = subprocess.run([*words, "--preset", "heavy"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "heavy" in wrong.stderr

"""The page of every kind of store: sound markup, no network, no identifier, and the store left as it was."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tests.archive.dicom_files import make_slices, positions, write_all
from tests.preprocess.archives import grid, identity, run, scan, write_cases, write_nifti
from tests.report.stores import SIZE, ball, inspected, make, nodule
from toolkit.errors import StoreError, UsageError
from toolkit.preprocess.plan import Settings
from toolkit.report.contents import label_name, refusals, source_spacings
from toolkit.report.page import Section, block, render
from toolkit.report.sections import auroc
from toolkit.report.store_page import as_json, write_page
from toolkit.store import Store
from toolkit.store.verify import verify

SETTINGS = Settings(spacing_mm=1.0, size=40, margin=4)
VOID = {"meta", "link", "input", "br", "img"}


class Markup(HTMLParser):
    """Checks that every element is closed in its turn; gathers text, ids and what could be loaded."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), "a handler that the policy forbids"
            assert name != "style", "a style that the policy forbids"
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "srcset", "action", "data", "poster"):
                self.loads.append(value)

    def handle_startendtag(self, tag, attrs) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        if not {"script", "style"} & {*self.open}:
            self.text += data


def checked(page: bytes) -> Markup:
    html = page.decode()
    assert "://" not in html
    markup = Markup(html)
    assert len({*markup.ids}) == len(markup.ids)
    anchors = {load[1:] for load in markup.loads if load.startswith("#")}
    assert anchors <= {*markup.ids}
    assert all(load.startswith("data:") for load in markup.loads if not load.startswith("#"))
    return markup


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store made from files with names in them: a series with a point, one with a gap, a masked volume."""
    root = tmp_path_factory.mktemp("planted")
    archive = root / "DOE_JANE"
    slices = np.full((24, 20, 20), 200)
    datasets = make_slices(slices, places=positions(24), patient="DOE^JANE^19700101")
    for d in datasets:
        d.PatientName, d.PatientBirthDate, d.AccessionNumber = "DOE^JANE", "19700101", "ACC4711"
    write_all(archive / "JANE_CT", datasets)
    holed = make_slices(slices, places=positions(24), patient="ROE^RICHARD", series="1.2.9")
    write_all(archive / "ROE_CT", [d for k, d in enumerate(holed) if k != 9])
    geometry = grid((40, 48, 44), (1.5, 0.8, 0.9))
    image, mask = scan(geometry)
    write_nifti(archive / "MOUSE_MINNIE.nii", image, geometry)
    write_nifti(archive / "MOUSE_MINNIE_mask.nii", mask, geometry)
    x, y, z = (float(v) for v in positions(24)[12])
    rows = [
        {"case_id": "DOE^JANE", "patient_id": "DOE^JANE", "image": "JANE_CT", "x_mm": x + 5, "y_mm": y + 7,
         "z_mm": z, "diameter_mm": 6, "label": 1},
        {"case_id": "ROE", "patient_id": "ROE^RICHARD", "image": "ROE_CT"},
        {"case_id": "MINNIE", "patient_id": "MOUSE^MINNIE", "image": "MOUSE_MINNIE.nii",
         "mask": "MOUSE_MINNIE_mask.nii", "label": 0},
        {"case_id": "GONE", "patient_id": "GONE^GIRL", "image": "GONE_GIRL.nii"},
    ]  # fmt: skip
    write_cases(archive / "cases.csv", rows)
    summary = run(archive, root / "store", manifest=archive / "cases.csv", settings=SETTINGS)
    assert (summary.done, summary.nodules, sum(summary.refused.values())) == (2, 2, 2)
    return root / "store"


def test_a_store_of_an_archive_is_told_in_full(mixed: Path) -> None:
    found = inspected(mixed)
    text = checked(found.page).text
    assert "2 cases refused" in text
    for code in ("E-GEO-003", "E-FILE-001", "--allow-missing"):
        assert code in text
    assert "Slice spacing of the scans" in text
    assert found.advice is not None
    assert f"--size {found.advice.suggested.crop.size}" in text
    told = as_json(found)
    assert told["cases"] == {"done": 2, "empty": 0, "refused": 2}
    assert told["labels"] == {"malignant": 1, "benign": 1}
    assert told["mask_sources"] == {"none": 1, "volume": 1}
    json.dumps(told, allow_nan=False)


def test_no_identifier_and_no_path_reaches_the_page(mixed: Path) -> None:
    page = inspected(mixed).page
    for secret in ("DOE", "JANE", "ROE", "RICHARD", "MINNIE", "GONE", "1970", "ACC4711", ".nii", ".dcm"):
        # base64 may hold three letters by chance, so only whole words count there
        assert not re.search(rf"(?<![A-Za-z0-9+/]){re.escape(secret)}(?![A-Za-z0-9+/=])", page.decode()), (
            secret
        )
    for secret in ("DOE^JANE", "MOUSE", "RICHARD", str(mixed), str(mixed.parent), mixed.parent.name):
        assert secret.encode() not in page, secret


def test_the_store_is_left_as_it_was(mixed: Path) -> None:
    before = identity(mixed)
    write_page(mixed / "qc.html", inspected(mixed).page)
    assert list(verify(mixed)) == []
    archive = mixed.parent / "DOE_JANE"
    again = run(archive, mixed, manifest=archive / "cases.csv", settings=SETTINGS)
    assert (again.resumed, again.nodules) == (4, 2)
    after = identity(mixed)
    assert after.pop("qc.html") == inspected(mixed).page  # the same store, the same page
    assert after == before
    (mixed / "qc.html").unlink()


def test_a_store_without_nodules(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    slices = make_slices(np.full((12, 9, 8), 200), places=positions(12))
    write_all(archive / "a", [d for k, d in enumerate(slices) if k != 4])
    run(archive, tmp_path / "store")
    found = inspected(tmp_path / "store")
    text = checked(found.page).text
    assert "The store holds no nodule." in text
    assert "Without nodules there is nothing to fit a crop to." in text
    assert "E-GEO-003" in text
    assert "<script" not in found.page.decode()
    assert found.advice is None


@pytest.mark.parametrize("count", [1, 6, 60])
def test_a_store_of_crops(tmp_path: Path, count: int) -> None:
    make(tmp_path / "s", count)
    found = inspected(tmp_path / "s")
    text = checked(found.page).text
    assert f"Nodules{count}" in text.replace(" ", "")
    assert "Not in this store: " in text
    assert len(found.sheet.strips) == count


def test_points_have_no_mask_to_judge(tmp_path: Path) -> None:
    make(tmp_path / "s", 12, mask_source="none", occupancy=0.0, volume_mm3=None)
    found = inspected(tmp_path / "s")
    text = checked(found.page).text
    assert "12 none" in text
    assert "Empty mask" not in text
    assert "background, cut" in text  # among what is not in this store
    assert found.advice is not None


def test_no_label_at_all(tmp_path: Path) -> None:
    make(tmp_path / "s", 12, label=None)
    text = checked(inspected(tmp_path / "s").page).text
    assert "do not hold both classes" in text
    assert "AUROC" not in text


def test_a_diameter_that_nobody_measured(tmp_path: Path) -> None:
    make(tmp_path / "s", 12, mask_source="none", occupancy=0.0, volume_mm3=None)
    made = Store.open(tmp_path / "s")
    records = [replace(record, diameter_mm=None) for record in made.nodules]
    images = np.stack([made.image(k) for k in range(len(made))])
    masks = np.stack([made.mask(k) for k in range(len(made))])
    assert Store.create(tmp_path / "t", records, images, masks, 1.0, margin=4).nodules[0].diameter_mm is None
    found = inspected(tmp_path / "t")
    checked(found.page)
    assert found.advice is None
    assert (tmp_path / "t" / "nodules.csv").read_text().splitlines()[1].split(",")[7] == ""


def test_flags_are_counted_and_shown_first(tmp_path: Path) -> None:
    images, masks, records = [], [], []
    rng = np.random.default_rng(2)
    for k in range(30):
        image, mask = ball(SIZE, 3.0 + 0.05 * k)
        if k == 11:
            mask[:] = 0
        if k == 20:
            image, mask = ball(SIZE, 3.0, at_mm=(10.0, 0.0, 0.0))
        images.append(image + rng.integers(-9, 10, image.shape, dtype=np.int16))
        masks.append(mask)
        records.append(nodule(k, 6.0 + 0.1 * k))
    images[7] = images[3]
    Store.create(tmp_path / "s", records, np.stack(images), np.stack(masks), 1.0)
    found = inspected(tmp_path / "s", most=6)
    raised = {k: keys for k, keys in enumerate(found.flags) if keys}
    assert raised[11] == ("empty",)
    assert raised[20] == ("cut", "off")
    assert "twin" in raised[3]
    assert "twin" in raised[7]
    assert {*raised} <= {*found.sheet.indices} if len(raised) <= 6 else True
    assert len(found.sheet.indices) == 6
    text = checked(found.page).text
    assert "6 of 30 nodules are shown" in text
    assert "1 nodule Empty mask: a mask was given" in text


def test_what_the_store_holds_is_escaped(tmp_path: Path) -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    image, mask = ball(SIZE, 4.0)
    record = nodule(nodule_id=evil, patient_id=evil, case_id=evil, mask_source=evil, split=evil)
    Store.create(tmp_path / "s", [record], image[None], mask[None], 1.0)
    page = inspected(tmp_path / "s").page
    checked(page)
    assert b"<img" not in page


def test_an_unfinished_store_says_so(mixed: Path, tmp_path: Path) -> None:
    shutil.copytree(mixed, tmp_path / "s")
    next((tmp_path / "s" / "ledger").glob("*.jsonl")).unlink()
    assert "1 shard planned but not made yet" in checked(inspected(tmp_path / "s").page).text


@pytest.mark.parametrize(
    ("harm", "code"), [("nothing", "E-STORE-001"), ("ledger", "E-STORE-003"), ("array", "E-STORE-003")]
)
def test_a_damaged_store_is_refused_by_name(tmp_path: Path, harm: str, code: str) -> None:
    path = tmp_path / "s"
    if harm != "nothing":
        make(path, 3)
    if harm == "ledger":
        ledger = path / "ledger" / "00000.jsonl"
        ledger.write_bytes(ledger.read_bytes().replace(b"volume", b"volune", 1))
    if harm == "array":
        images = path / "shards" / "00000.images.npy"
        images.write_bytes(images.read_bytes()[:-100])
    with pytest.raises(StoreError) as error:
        inspected(path)
    assert error.value.problem.code == code


def test_another_file_is_not_overwritten(tmp_path: Path) -> None:
    page = render("T", "", [Section("a", "A", "<p>x</p>")])
    out = tmp_path / "new" / "page.html"
    write_page(out, page)
    write_page(out, page)  # our own page is
    out.write_text("years of work")
    with pytest.raises(UsageError) as error:
        write_page(out, page)
    assert (error.value.problem.code, out.read_text()) == ("E-OUT-001", "years of work")
    with pytest.raises(UsageError):
        write_page(tmp_path, page)
    write_page(out, page, force=True)
    assert out.read_bytes() == page
    assert [p.name for p in out.parent.iterdir()] == ["page.html"]


def test_data_cannot_end_their_element() -> None:
    with pytest.raises(ValueError, match="end its element"):
        block("text/plain", "x", "a</script>")


def test_auroc_is_the_share_of_pairs() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 9, 40), rng.integers(0, 7, 60)
    pairs = np.mean([(x > y) + (x == y) / 2 for x in a for y in b])
    assert auroc(a, b) == pytest.approx(pairs)


def test_labels_and_groups(mixed: Path) -> None:
    names = [label_name(v) for v in (None, float("nan"), 0.5, 0.0, 0.49, 0.51, 1.0)]
    assert names == ["open"] * 3 + ["benign"] * 2 + ["malignant"] * 2
    entries = inspected(mixed).contents.entries
    assert [(g.code, g.cases) for g in refusals(entries)] == [("E-FILE-001", 1), ("E-GEO-003", 1)]
    between, within = source_spacings(entries)
    assert sorted(between) == pytest.approx([1.5, 2.5])
    assert sorted(within) == pytest.approx([0.75, 0.9])


def test_the_command(tmp_path: Path) -> None:
    def toolkit(*args: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "toolkit", *map(str, args)], capture_output=True, text=True, check=False
        )

    make(tmp_path / "s", 5)
    ended = toolkit("inspect", tmp_path / "s")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "5 nodules" in ended.stdout
    checked((tmp_path / "s" / "qc.html").read_bytes())
    other = tmp_path / "other.html"
    told = json.loads(toolkit("inspect", tmp_path / "s", "--out", other, "--nodules", 2, "--json").stdout)
    assert (told["nodules"], told["shown"], told["page"]) == (5, 2, str(other))
    assert told["page_bytes"] == other.stat().st_size
    other.write_text("mine")
    kept = toolkit("inspect", tmp_path / "s", "--out", other)
    assert (kept.returncode, "E-OUT-001" in kept.stderr, other.read_text()) == (2, True, "mine")
    assert toolkit("inspect", tmp_path / "s", "--out", other, "--force").returncode == 0
    none = toolkit("inspect", tmp_path / "none")
    assert (none.returncode, "E-STORE-001" in none.stderr, "Traceback" in none.stderr) == (2, True, False)
    assert not (tmp_path / "none").exists()
    assert toolkit("verify", tmp_path / "s").returncode == 0

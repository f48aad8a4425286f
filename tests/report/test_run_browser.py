"""The page of a run in a real browser: pictures that move, evidence on and off, phones, both schemes."""

import json
from pathlib import Path

import numpy as np
import pytest
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.report.runs import make_folds, make_run, make_store
from tests.report.test_browser import contrast, luminance, outlined, pixels
from toolkit.report.run_page import report_run

CORNER = 8  # voxels: where the evidence of these tests lies
FULL = (255, 45, 110)


def evidence(index: int) -> np.ndarray:
    made = np.zeros((24, 24, 24), np.float32)
    made[:, :CORNER, :CORNER] = 1.0
    return made


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run-page")
    store = make_store(root / "store")
    run = make_run(root / "run", store)
    (root / "page.html").write_bytes(report_run(run.path, None, lambda run, store: evidence).page)
    return root / "page.html"


def opened(browser: Chrome, page: Path) -> WebElement:
    """Open a page at its pictures, and return the first of them."""
    browser.get(page.as_uri())
    browser.execute_script("document.getElementById('misses').scrollIntoView()")
    script = "return document.querySelector('.hold canvas')?.dataset.drawn"
    WebDriverWait(browser, 20).until(lambda b: b.execute_script(script))
    return browser.find_element(By.CSS_SELECTOR, ".hold canvas")


def tick(browser: Chrome, name: str) -> None:
    browser.find_element(By.CSS_SELECTOR, f"#look [name={name}]").click()


def test_it_opens_without_an_error_and_asks_for_nothing(viewport: Chrome, shown: Path) -> None:
    opened(viewport, shown)
    assert viewport.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in viewport.get_log("performance")]
    urls = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert {url.split(":")[0] for url in urls} <= {"file", "data"}
    assert {url for url in urls if url.startswith("file")} == {shown.as_uri()}


def test_evidence_is_laid_over_and_taken_away(viewport: Chrome, shown: Path) -> None:
    canvas = opened(viewport, shown)
    tick(viewport, "outline")
    hot = pixels(viewport, canvas).astype(int)
    tick(viewport, "heat")
    plain = pixels(viewport, canvas).astype(int)
    corner = len(plain) * CORNER // 24 // 2
    assert (plain.max(axis=-1) == plain.min(axis=-1)).all()  # grey
    grey, mixed = plain[:corner, :corner].mean(axis=(0, 1)), hot[:corner, :corner].mean(axis=(0, 1))
    assert mixed == pytest.approx(grey + 0.6 * (np.array(FULL) - grey), abs=4)
    far = 2 * len(plain) // 3
    assert (hot[far:, far:] == plain[far:, far:]).all()
    tick(viewport, "heat")
    assert (pixels(viewport, canvas) == hot).all()


def test_the_outline_is_switched(viewport: Chrome, shown: Path) -> None:
    canvas = opened(viewport, shown)
    tick(viewport, "heat")
    assert outlined(pixels(viewport, canvas)).any()
    tick(viewport, "outline")
    assert not outlined(pixels(viewport, canvas)).any()


def test_keys_wheel_drag_and_slider_go_through_the_slices(viewport: Chrome, shown: Path) -> None:
    canvas = opened(viewport, shown)
    slider = viewport.find_element(By.CSS_SELECTOR, ".hold .through")

    def place() -> int:
        assert int(slider.get_attribute("value")) == int(canvas.get_attribute("aria-valuenow")) - 1
        return int(canvas.get_attribute("aria-valuenow"))

    start, image = place(), pixels(viewport, canvas)
    viewport.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    canvas.click()
    canvas.send_keys(Keys.ARROW_DOWN)
    assert place() == start + 1
    canvas.send_keys(Keys.END)
    assert place() == int(canvas.get_attribute("aria-valuemax"))
    assert (pixels(viewport, canvas) != image).any()
    canvas.send_keys(Keys.HOME)
    box = viewport.execute_script("return arguments[0].getBoundingClientRect().toJSON()", canvas)
    at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    viewport.execute_cdp_cmd(
        "Input.dispatchMouseEvent", {"type": "mouseWheel", "deltaX": 0, "deltaY": 120, **at}
    )
    WebDriverWait(viewport, 5).until(lambda _: place() == 2)
    ActionChains(viewport).click_and_hold(canvas).move_by_offset(35, 0).release().perform()
    assert place() == 5
    set_slider = "arguments[0].value = 9; arguments[0].dispatchEvent(new Event('input', { bubbles: true }))"
    viewport.execute_script(set_slider, slider)
    assert place() == 10
    canvas.send_keys(Keys.ARROW_RIGHT)
    assert viewport.switch_to.active_element == viewport.find_elements(By.CSS_SELECTOR, ".hold canvas")[1]


@pytest.mark.parametrize("width", [320, 375])
def test_a_phone_never_scrolls_sideways(viewport: Chrome, shown: Path, width: int) -> None:
    metrics = {"width": width, "height": 812, "deviceScaleFactor": 3, "mobile": True}
    viewport.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    opened(viewport, shown)
    viewport.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    assert viewport.execute_script("return document.documentElement.scrollWidth") <= width
    fonts = """return Math.min(...[...document.querySelectorAll('.lines')].map(
        s => 11 * s.getBoundingClientRect().width / s.viewBox.baseVal.width))"""
    assert viewport.execute_script(fonts) >= 9  # CSS pixels of the smallest words in a chart


def test_dark_and_light_are_both_readable(viewport: Chrome, shown: Path) -> None:
    for scheme, darker in (("light", False), ("dark", True)):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        viewport.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        opened(viewport, shown)
        script = """const v = c => c.match(/\\d+/g).map(Number);
            const s = q => getComputedStyle(document.querySelector(q));
            return [v(s('body').backgroundColor), v(s('body').color), v(s('.answer ul').color),
                v(s('.lines text').fill), ...['model', 'other', 'malignant', 'benign'].map(
                    k => v(s(`.line.${k}`).stroke))]"""
        paper, *texts = viewport.execute_script(script)
        assert (luminance(paper) < 0.1) == darker
        for colour in texts:
            assert contrast(colour, paper) >= 4.5  # WCAG 2.2, level AA, lines included
    viewport.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_words_of_charts_do_not_run_into_each_other(viewport: Chrome, shown: Path) -> None:
    opened(viewport, shown)
    script = """const hits = [];
        for (const svg of document.querySelectorAll('.lines')) {
          const words = [...svg.querySelectorAll('text')];
          const boxes = words.map(t => [t.textContent, t.getBoundingClientRect()]);
          boxes.forEach(([a, p], i) => boxes.slice(i + 1).forEach(([b, q]) => {
            const w = Math.min(p.right, q.right) - Math.max(p.left, q.left);
            const h = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
            if (w > 1 && h > 4) hits.push([svg.getAttribute('aria-label').slice(0, 40), a, b]);
          }));
        }
        return hits"""
    assert viewport.execute_script(script) == []


def test_every_control_can_be_reached_by_keyboard(viewport: Chrome, shown: Path) -> None:
    opened(viewport, shown)
    script = """return [...document.querySelectorAll('.lines, .scroll, .hold canvas, summary, #look input')]
        .filter(e => e.tabIndex < 0).length"""
    assert viewport.execute_script(script) == 0


def test_folds_open_without_an_error(viewport: Chrome, tmp_path: Path, page_file: Path) -> None:
    folder = make_folds(tmp_path / "cv", make_store(tmp_path / "store"))
    page_file.write_bytes(report_run(folder.path).page)
    opened(viewport, page_file)
    assert viewport.find_elements(By.CSS_SELECTOR, "#look [name=heat]") == []
    assert viewport.get_log("browser") == []

"""The page in a real browser: what is drawn, what moves, what it asks the network for (nothing)."""

import json
from pathlib import Path

import numpy as np
import pytest
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.common.print_page_options import PrintOptions
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from tests.report.stores import LUNG_HU, NODULE_HU, SIZE, ball, inspected, make, nodule
from toolkit.store import Store

OUTLINE = (255, 176, 0)
TONE_ERROR = 2.5  # one of WebP's 220 grey levels: 3.5 HU in soft tissue, where 400 HU are 255 greys
PAINTED_MS, READY_MS = 1000, 3000  # measured: 130 and 770 at most, on two cores


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 60 balls, of which one has no mask and one lies off its centre."""
    path = tmp_path_factory.mktemp("shown")
    rng = np.random.default_rng(0)
    pairs = [ball(SIZE, 3 + (k % 8) / 2, at_mm=(0.0, 5.0 if k == 4 else 0.0, 0.0)) for k in range(60)]
    images = np.stack([i + rng.integers(-5, 6, i.shape, dtype=np.int16) for i, _ in pairs])
    masks = np.stack([m for _, m in pairs])
    masks[9] = 0
    records = [nodule(k, 6.0 + k % 8, patient_id=f"{k:016x}") for k in range(60)]
    Store.create(path / "store", records, images, masks, 1.0)
    (path / "page.html").write_bytes(inspected(path / "store").page)
    return path / "page.html"


def opened(browser: Chrome, page: Path) -> Chrome:
    browser.get(page.as_uri())
    browser.execute_script("document.getElementById('crops').scrollIntoView()")
    drawn(browser)
    return browser


def drawn(browser: Chrome) -> list[WebElement]:
    """Wait until every card in view is drawn, and return the cards."""
    script = """return [...document.querySelectorAll('#cards canvas')].every(c =>
        c.getBoundingClientRect().top > innerHeight || c.dataset.drawn)"""
    WebDriverWait(browser, 20).until(lambda b: b.execute_script(script))
    return browser.find_elements(By.CSS_SELECTOR, "#cards .card")


def canvas(card: WebElement) -> WebElement:
    return card.find_element(By.TAG_NAME, "canvas")


def pixels(browser: Chrome, element: WebElement) -> np.ndarray:
    script = """const c = arguments[0];
        return [c.width, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"""
    side, *values = browser.execute_script(script, element)
    return np.array(values, np.uint8).reshape(side, side, 4)[..., :3]


def outlined(image: np.ndarray) -> np.ndarray:
    return np.abs(image.astype(int) - OUTLINE).max(axis=-1) < 40


def ids(browser: Chrome) -> list[str]:
    return [e.get_attribute("title").split()[1] for e in browser.find_elements(By.CSS_SELECTOR, ".card .id")]


def grey(hu: float, center: float, width: float) -> float:
    return float(np.clip(255 * (hu - center + width / 2) / width, 0, 255))


def test_it_opens_without_an_error_and_asks_for_nothing(viewport: Chrome, shown: Path) -> None:
    opened(viewport, shown)
    assert viewport.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in viewport.get_log("performance")]
    urls = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert shown.as_uri() in urls
    assert {url.split(":")[0] for url in urls} <= {"file", "data"}
    assert {url for url in urls if url.startswith("file")} == {shown.as_uri()}


def test_the_policy_stops_what_is_not_the_pages_own(viewport: Chrome, shown: Path, page_file: Path) -> None:
    evil = b"<script>document.title='owned'</script><img src='https://example.invalid/x.png'>"
    page_file.write_bytes(shown.read_bytes().replace(b"</body>", evil + b"</body>"))
    opened(viewport, page_file)
    assert viewport.title == "Nodule store"
    told = " ".join(entry["message"] for entry in viewport.get_log("browser"))
    assert "script-src" in told
    assert "img-src" in told
    script = """const done = arguments[0];
        document.addEventListener('securitypolicyviolation', e => done(e.effectiveDirective));
        fetch('https://example.invalid/').catch(() => 0)"""
    assert viewport.execute_async_script(script) == "connect-src"


@pytest.mark.parametrize(("window", "center", "width"), [("lung", -600, 1500), ("soft", 40, 400)])
def test_pixels_are_the_crop_in_its_window(viewport: Chrome, shown: Path, window, center, width) -> None:
    opened(viewport, shown)
    viewport.find_element(By.CSS_SELECTOR, "[name=outline]").click()
    viewport.execute_script("document.querySelector(`[value=${arguments[0]}]`).click()", window)
    image = pixels(viewport, canvas(drawn(viewport)[6])).mean(axis=-1)  # a ball of 6 mm radius
    middle, eighth = len(image) // 2, len(image) // 8
    inside = image[middle - eighth : middle + eighth, middle - eighth : middle + eighth]
    assert inside.mean() == pytest.approx(grey(NODULE_HU, center, width), abs=TONE_ERROR)
    assert image[:eighth, :eighth].mean() == pytest.approx(grey(LUNG_HU, center, width), abs=TONE_ERROR)


def test_the_outline_is_where_the_mask_is(viewport: Chrome, shown: Path) -> None:
    opened(viewport, shown)
    for number, (radius, down) in {6: (6.0, 0.0), 4: (5.0, 5.0)}.items():
        image = pixels(viewport, canvas(drawn(viewport)[number]))
        rows, columns = np.nonzero(outlined(image))
        scale = len(image) / SIZE
        assert (rows.mean() / scale, columns.mean() / scale) == (
            pytest.approx(SIZE / 2 + down, abs=0.25),
            pytest.approx(SIZE / 2, abs=0.25),
        )
        away = np.hypot(rows / scale - SIZE / 2 - down, columns / scale - SIZE / 2)
        assert np.median(away) == pytest.approx(radius, abs=0.5)
    viewport.find_element(By.CSS_SELECTOR, "[name=outline]").click()
    assert not outlined(pixels(viewport, canvas(drawn(viewport)[6]))).any()


def test_a_nodule_without_a_mask_has_no_outline(viewport: Chrome, shown: Path) -> None:
    opened(viewport, shown)
    image = pixels(viewport, canvas(drawn(viewport)[9]))
    assert not outlined(image).any()
    assert image.std() > 5  # the nodule itself is there


def test_keys_wheel_and_drag_go_through_the_slices(viewport: Chrome, shown: Path) -> None:
    opened(viewport, shown)
    element = canvas(drawn(viewport)[0])

    def place() -> int:
        return int(element.get_attribute("aria-valuenow"))

    start, image = place(), pixels(viewport, element)
    element.click()
    assert place() == start
    element.send_keys(Keys.ARROW_DOWN)
    assert place() == start + 1
    element.send_keys(Keys.END)
    assert place() == int(element.get_attribute("aria-valuemax"))
    assert (pixels(viewport, element) != image).any()
    assert "\u2212" in element.get_attribute("aria-valuetext")  # foot is below the centre
    element.send_keys(Keys.ARROW_DOWN)
    assert place() == int(element.get_attribute("aria-valuemax"))
    element.send_keys(Keys.HOME)
    assert place() == 1
    scrolled = viewport.execute_script("return scrollY")
    wheel = {"type": "mouseWheel", "deltaX": 0, "deltaY": 120, **_middle(element)}
    viewport.execute_cdp_cmd("Input.dispatchMouseEvent", wheel)
    WebDriverWait(viewport, 5).until(lambda _: place() == 2)
    assert viewport.execute_script("return scrollY") == scrolled
    ActionChains(viewport).click_and_hold(element).move_by_offset(35, 0).release().perform()
    assert place() == 5
    element.send_keys(Keys.ARROW_RIGHT)
    assert viewport.switch_to.active_element == canvas(drawn(viewport)[1])


def test_a_wheel_over_a_card_that_was_not_clicked_scrolls_the_page(viewport: Chrome, shown: Path) -> None:
    opened(viewport, shown)
    element = canvas(drawn(viewport)[0])
    before, scrolled = element.get_attribute("aria-valuenow"), viewport.execute_script("return scrollY")
    wheel = {"type": "mouseWheel", "deltaX": 0, "deltaY": 120, **_middle(element)}
    viewport.execute_cdp_cmd("Input.dispatchMouseEvent", wheel)
    WebDriverWait(viewport, 5).until(lambda b: b.execute_script("return scrollY") > scrolled)
    assert element.get_attribute("aria-valuenow") == before


def _middle(element: WebElement) -> dict[str, float]:
    box = element.parent.execute_script("return arguments[0].getBoundingClientRect().toJSON()", element)
    return {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}


def test_filters_sorting_and_pages(viewport: Chrome, shown: Path) -> None:
    opened(viewport, shown)
    assert ids(viewport) == [f"{k:016x}-001" for k in range(48)]
    viewport.find_element(By.CSS_SELECTOR, "#tools [data-step='1']").click()
    assert ids(viewport) == [f"{k:016x}-001" for k in range(48, 60)]
    choose = {name: Select(viewport.find_element(By.NAME, name)) for name in ("label", "flag", "sort")}
    choose["label"].select_by_value("malignant")
    assert ids(viewport) == [f"{k:016x}-001" for k in range(1, 60, 2)]
    choose["sort"].select_by_value("largest")
    assert ids(viewport)[:8] == [f"{k:016x}-001" for k in range(7, 60, 8)] + [f"{5:016x}-001"]
    choose["flag"].select_by_value("none")
    assert len(ids(viewport)) == 29
    choose["label"].select_by_value("")
    choose["flag"].select_by_value("any")
    assert ids(viewport) == [f"{k:016x}-001" for k in (4, 9)]
    chip = viewport.find_element(By.CSS_SELECTOR, "button[data-flag=empty]")
    chip.click()
    assert ids(viewport) == [f"{9:016x}-001"]
    assert chip.get_attribute("aria-pressed") == "true"
    assert [e.text for e in viewport.find_elements(By.CSS_SELECTOR, ".card .flags span")] == ["empty mask"]
    chip.click()
    viewport.find_element(By.NAME, "text").send_keys("3b-")
    assert ids(viewport) == [f"{0x3B:016x}-001"]
    viewport.find_element(By.NAME, "text").send_keys("zzz")
    assert viewport.find_element(By.CSS_SELECTOR, ".nothing").text == "No nodule matches."
    assert viewport.get_log("browser") == []


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_never_scrolls_sideways(viewport: Chrome, shown: Path, width: int) -> None:
    metrics = {"width": width, "height": 844, "deviceScaleFactor": 3, "mobile": True}
    viewport.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    opened(viewport, shown)
    assert viewport.execute_script("return document.documentElement.scrollWidth") <= width
    side = viewport.execute_script("return document.querySelector('#cards canvas').width")
    assert side == pytest.approx(
        3 * (width - 2 * 16 - 10) / 2, abs=1
    )  # two a row, at the screen's own pixels
    viewport.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {**metrics, "width": 0, "height": 0})


def test_dark_and_light_are_both_readable(viewport: Chrome, shown: Path) -> None:
    for scheme, darker in (("light", False), ("dark", True)):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        viewport.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        opened(viewport, shown)
        script = """const s = getComputedStyle(document.body), v = c => c.match(/\\d+/g).map(Number);
            return [v(s.color), v(s.backgroundColor), ...['.malignant', '.benign', '.note, .second'].map(
                q => v(getComputedStyle(document.querySelector(q)).color))]"""
        ink, paper, *others = viewport.execute_script(script)
        assert (luminance(paper) < 0.1) == darker
        for colour in (ink, *others):
            assert contrast(colour, paper) >= 4.5  # WCAG 2.2, level AA
    viewport.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def luminance(rgb: list[int]) -> float:
    """Relative luminance as WCAG defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.array(rgb[:3]) / 255]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(a: list[int], b: list[int]) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_it_prints(viewport: Chrome, shown: Path) -> None:
    opened(viewport, shown)
    assert len(viewport.print_page(PrintOptions())) > 20_000


def test_text_of_a_store_stays_text(viewport: Chrome, tmp_path: Path, page_file: Path) -> None:
    evil = "</script><img src=x onerror=document.title='owned'>"
    image, mask = ball(SIZE, 4.0)
    record = nodule(nodule_id=evil, patient_id=evil, mask_source=evil)
    Store.create(tmp_path / "s", [record], image[None], mask[None], 1.0)
    page_file.write_bytes(inspected(tmp_path / "s").page)
    opened(viewport, page_file)
    assert viewport.title == "Nodule store"
    assert viewport.find_elements(By.TAG_NAME, "img") == []
    assert viewport.find_element(By.CSS_SELECTOR, ".card .id").text.startswith("</script><img")
    assert viewport.get_log("browser") == []


def test_a_point_says_that_it_has_no_mask(viewport: Chrome, tmp_path: Path, page_file: Path) -> None:
    make(tmp_path / "s", 1, mask_source="none", occupancy=0.0, volume_mm3=None, label=None)
    page_file.write_bytes(inspected(tmp_path / "s").page)
    opened(viewport, page_file)
    assert "no mask" in viewport.find_element(By.CSS_SELECTOR, ".card .second").text
    assert viewport.get_log("browser") == []


def test_five_thousand_nodules_open_at_once(viewport: Chrome, tmp_path: Path, page_file: Path) -> None:
    """Strong noise, which nothing can compress well: a page about as large as any may become."""
    make(tmp_path / "s", 5000, margin=0, noise=600)
    page_file.write_bytes(inspected(tmp_path / "s").page)
    assert 25_000_000 < page_file.stat().st_size < 60_000_000
    opened(viewport, page_file)
    script = """const entry = performance.getEntriesByType('navigation')[0];
        return [performance.getEntriesByName('first-contentful-paint')[0].startTime,
                entry.domContentLoadedEventEnd, document.querySelectorAll('.card').length]"""
    painted, ready, cards = viewport.execute_script(script)
    assert painted < PAINTED_MS
    assert ready < READY_MS
    assert cards == 48
    Select(viewport.find_element(By.NAME, "sort")).select_by_value("largest")
    assert len(drawn(viewport)) == 48
    assert viewport.get_log("browser") == []

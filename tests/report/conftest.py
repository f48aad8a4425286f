"""A browser for the tests: Debian's Chromium, without a window and without a network."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


def _programs() -> tuple[str, str]:
    """Return where Chromium and its driver are; a CI machine installs them, others skip."""
    if not _found() and os.environ.get("CI") and shutil.which("apt-get") and os.geteuid() == 0:
        quiet = {
            "check": True,
            "stdout": sys.stderr,
            "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        }
        subprocess.run(["apt-get", "update", "-qq"], **quiet)
        packages = ["chromium", "chromium-driver"]
        subprocess.run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages], **quiet)
    found = _found()
    if not found:
        pytest.skip("needs Chromium and its driver (Debian: chromium, chromium-driver)")
    return found


def _found() -> tuple[str, str] | None:
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    program, driver = _programs()
    options = ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = Chrome(options=options, service=Service(driver, log_output=subprocess.DEVNULL))
    yield chrome
    chrome.quit()


@pytest.fixture
def viewport(browser: Chrome) -> Iterator[Chrome]:
    """The browser with an ordinary window and empty logs, whatever the test before it did."""
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.set_window_size(1400, 1000)
    still = {"name": "prefers-reduced-motion", "value": "reduce"}  # clicks go where things are
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [still]})
    for log in ("browser", "performance"):
        browser.get_log(log)
    yield browser
    browser.get("about:blank")


@pytest.fixture
def page_file(tmp_path: Path) -> Path:
    return tmp_path / "page.html"

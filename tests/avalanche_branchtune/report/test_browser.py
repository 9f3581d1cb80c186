"""The page in a real browser, without a network."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from avalanche_branchtune.report import write_report
from tests.run_records import FIRST, full, joint, run

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="needs Debian's chromium and chromium-driver"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium.webdriver.chrome.service import Service

    long = "a-strategy-with-a-very-long-name-and-no-space-" * 3
    runs = [full(), run(long, rows=FIRST[:2]), joint()]
    runs[1].settings = {"augmentation": "x" * 400}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("avalanche_branchtune.report.figures.style.FORMATS", ("svg",))  # in the page
        page = write_report(
            runs, tmp_path_factory.mktemp("report"), title="Title & <b>not bold</b>"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        driver.execute_cdp_cmd("Network.enable", {})
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
        driver.get_log("performance")  # what the browser asked for before
        driver.get(page.as_uri())
        yield driver
    finally:
        driver.quit()


def resize(browser: Any, width: int, height: int) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def test_opens_without_a_network(browser: Any) -> None:
    asked = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.append(message["params"]["request"]["url"])
    assert any(url.startswith("file:") for url in asked)
    assert all(url.startswith(("file:", "data:")) for url in asked), asked
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert browser.title == "Title & <b>not bold</b>"


@pytest.mark.parametrize("size", [(320, 640), (390, 844), (768, 1024), (1280, 900)])
def test_only_tables_scroll_sideways(browser: Any, size: tuple[int, int]) -> None:
    resize(browser, *size)
    width, inner = browser.execute_script(
        "return [document.documentElement.scrollWidth, window.innerWidth]"
    )
    assert inner == size[0]
    assert width <= inner
    for box in browser.find_elements("css selector", ".scroll"):
        left, right = browser.execute_script(
            "const r = arguments[0].getBoundingClientRect(); return [r.left, r.right]", box
        )
        assert left >= 0 and right <= inner
        assert box.get_attribute("tabindex") == "0", "can be scrolled by keyboard"


def test_text_on_a_phone_can_be_read(browser: Any) -> None:
    resize(browser, 390, 844)
    smallest = browser.execute_script(
        "return Math.min(...[...document.querySelectorAll('p, td, th, li, figcaption, span')]"
        ".map(e => parseFloat(getComputedStyle(e).fontSize)))"
    )
    assert smallest >= 12


def test_images(browser: Any) -> None:
    images = browser.find_elements("css selector", "img")
    assert len(images) == 9
    for image in images:
        natural, shown = browser.execute_script(
            "return [arguments[0].naturalWidth, arguments[0].clientWidth]", image
        )
        assert natural > 0 and shown > 0
        assert len(image.get_attribute("alt")) > 30


def test_headings_and_tables(browser: Any) -> None:
    levels = browser.execute_script(
        "return [...document.querySelectorAll('h1,h2,h3,h4')].map(h => Number(h.tagName[1]))"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for table in browser.find_elements("css selector", "table"):
        assert browser.execute_script("return arguments[0].caption.innerText.length > 5", table)


def test_prints(browser: Any) -> None:
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    resize(browser, 703, 1000)  # the width of A4 less the margins, in CSS pixels
    clipped = browser.execute_script(
        "return [...document.querySelectorAll('.scroll')].filter(s =>"
        " getComputedStyle(s).overflowX !== 'visible' || s.scrollWidth > s.clientWidth + 1)"
        ".map(s => s.innerText.slice(0, 80))"
    )
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert clipped == [], "tables must fit the paper"
    pdf = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    content = base64.b64decode(pdf["data"])
    assert content.startswith(b"%PDF") and len(content) > 50_000
    assert 3 <= content.count(b"/Type /Page\n") <= 30

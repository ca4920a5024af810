"""The built site in a real browser: `make test-browser`."""

import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import ROOT, SITE

pytestmark = pytest.mark.browser
AXE = ROOT / ".venv" / "browser" / "node_modules" / "axe-core" / "axe.min.js"
PAGES = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html") if "_static" not in path.parts)
# One page of each kind; the demo has tests of its own.
KINDS = ["index.html", "sessions/s04_three_iterations.html", "results.html", "glossary.html", "run.html"]
KINDS += [
    "benchmarks.html",
    "common/model.html",
    "_modules/common/model.html",
    "search.html",
    *[page for page in PAGES if "exercises/" in page][:1],
]

TITLE = "article h1, body > header h1"  # of a page, of the demo


@pytest.fixture
def width(browser):
    """A function that makes the window as wide as a phone or laptop; undone afterwards."""

    def set_width(pixels):
        metrics = {"width": pixels, "height": 844, "deviceScaleFactor": 1, "mobile": pixels < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    yield set_width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def set_mode(browser, mode):
    """Light or dark, as the theme's button sets it, for pages opened from now on."""
    browser.execute_script("localStorage.mode = localStorage.theme = arguments[0]", mode)


def requested(browser):
    """The addresses that the browser asked for since the last call."""
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    sent = [message["params"] for message in messages if message["method"] == "Network.requestWillBeSent"]
    return [params["request"]["url"] for params in sent]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_loads_nothing_from_elsewhere_and_the_console_has_no_warning(browser, site, page):
    requested(browser), browser.get_log("browser")
    browser.get(f"{site}/{page}")
    addresses = requested(browser)
    assert f"{site}/{page}" in addresses
    assert [url for url in addresses if not url.startswith((site, "data:"))] == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"] == []


@pytest.mark.parametrize("page", PAGES)
def test_a_page_fits_on_a_phone(browser, site, width, page):
    width(390)
    browser.get(f"{site}/{page}")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("page", KINDS)
def test_a_page_has_no_serious_accessibility_problem(browser, site, page, mode):
    if not AXE.exists():
        pytest.skip("`make test-browser` installs axe-core where there is npm")
    browser.get(f"{site}/{page}")
    set_mode(browser, mode)
    browser.get(f"{site}/{page}")
    browser.execute_script(AXE.read_text(encoding="utf-8"))
    found = browser.execute_async_script("axe.run().then(arguments[0])")
    assert found["passes"]
    serious = [rule for rule in found["violations"] if rule["impact"] in ("serious", "critical")]
    assert [(rule["id"], node["html"], node["failureSummary"]) for rule in serious for node in rule["nodes"]] == []


def test_every_way_to_begin_is_one_click_from_the_start_page(browser, site):
    browser.get(f"{site}/index.html")
    links = {link.text: link.get_attribute("href") for link in browser.find_elements("css selector", ".begin a")}
    assert list(links) == ["Begin with session 3", "Open it in Colab", "Draw a digit", "Run it at home"]
    assert urlsplit(links["Open it in Colab"]).path.endswith("/sessions/s03_first_convnet/session.ipynb")
    for name, heading in {
        "Begin with session 3": "Session 3: the first convolutional network",
        "Draw a digit": "Draw a digit",
        "Run it at home": "Run it at home",
    }.items():
        browser.get(f"{site}/index.html")
        browser.find_element("link text", name).click()
        assert browser.find_element("css selector", TITLE).text.startswith(heading)


def test_every_image_of_a_readme_is_shown_with_its_text(browser, site):
    browser.get(f"{site}/sessions/s04_three_iterations.html")
    readme = (ROOT / "sessions" / "s04_three_iterations" / "README.md").read_text(encoding="utf-8")
    images = browser.find_elements("css selector", "article img")
    assert len(images) == readme.count("](images/") > 0
    for image in images:
        browser.execute_script("arguments[0].loading = 'eager'; return arguments[0].decode()", image)
        assert int(image.get_property("naturalWidth")) > 0 and len(image.get_attribute("alt")) > 30


def test_a_table_of_results_is_sorted_by_keyboard(browser, site):
    from selenium.webdriver.common.keys import Keys

    browser.get(f"{site}/results.html")
    table = browser.find_elements("css selector", ".sortable table")[1]
    (head,) = (head for head in table.find_elements("css selector", "th") if head.text == "test accuracy")

    def column():
        return [float(row.text.split()[0]) for row in table.find_elements("css selector", "tbody td:nth-child(4)")]

    before = column()
    head.find_element("css selector", "button").send_keys(Keys.ENTER)
    assert column() == sorted(before) and head.get_attribute("aria-sort") == "ascending"
    head.find_element("css selector", "button").send_keys(Keys.ENTER)
    assert column() == sorted(before, reverse=True) and head.get_attribute("aria-sort") == "descending"


def test_folded_parts_open_by_keyboard(browser, site):
    from selenium.webdriver.common.keys import Keys

    browser.get(f"{site}/sessions/s04_three_iterations.html")
    folded = browser.find_element("css selector", "article details:has(table)")
    table = folded.find_element("css selector", "table")
    assert not table.is_displayed()
    folded.find_element("css selector", "summary").send_keys(Keys.ENTER)
    assert table.is_displayed()


def test_the_first_tab_skips_the_navigation(browser, site):
    from selenium.webdriver.common.keys import Keys

    browser.get(f"{site}/glossary.html")
    browser.find_element("css selector", "body").send_keys(Keys.TAB)
    link = browser.switch_to.active_element
    assert link.get_property("textContent").strip() == "Skip to main content"


def test_the_search_finds_a_word(browser, site):
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(f"{site}/search.html?q=residual")
    word = "#search-results a[href$='glossary.html#residual-block']"
    assert WebDriverWait(browser, 20).until(lambda _: browser.find_elements("css selector", word))


def test_the_site_opens_without_a_server(browser, site):
    browser.get(Path(SITE / "index.html").as_uri())
    browser.find_element("link text", "Begin with session 3").click()
    assert browser.find_element("css selector", TITLE).text.startswith("Session 3")

"""The page in headless Chromium: whole at a phone's and a desktop's width, light and dark, and its tables sort.

Screenshots are kept in `tmp/screenshots/`.
"""

import shutil
from collections.abc import Iterator

import pytest
from conftest import Made
from fake_run import REPO
from playwright.sync_api import Browser, Locator, Page, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SCREENSHOTS = REPO / "tmp/screenshots"
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path: `apt install chromium`")


@pytest.fixture(scope="module")
def address(text: Made) -> str:
    return (text.report / "index.html").as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The report, open."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(address)
        yield page


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_whole(browser: Browser, address: str, width: int, scheme: str) -> None:
    said, asked = list[str](), list[str]()
    with browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme) as context:
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.wait_for_load_state("networkidle")
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"report-{width}-{scheme}.png", full_page=True)
        assert said == []
        assert [url for url in asked if not url.startswith("data:")] == [address]
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert page.evaluate(
            "[...document.querySelectorAll('svg text')].every("
            "t => parseFloat(getComputedStyle(t).fontSize) * Math.hypot(t.getScreenCTM().a, t.getScreenCTM().b) >= 8)"
        ), "text of a figure below 8 pixels"
        assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
        red = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0] * 1")
        assert red > 200 if scheme == "light" else red < 60


def column(table: Locator, number: int) -> list[str]:
    """Texts of a column's cells, the foot apart."""
    return [text.strip() for text in table.locator(f"tbody tr > :nth-child({number + 1})").all_text_contents()]


def value(cell: str) -> float:
    return float(cell.split(" ")[0].replace("−", "-"))


def test_a_click_or_a_key_sorts_numbers_as_numbers_and_the_third_restores_the_order(page: Page) -> None:
    table = page.locator("#results ~ figure table.sortable").first
    table.evaluate("t => { const c = t.tBodies[0].rows[0].cells[1]; c.textContent = '–'; }")
    heading, button = table.locator("thead th").nth(1), table.locator("thead button").nth(1)
    before = column(table, 0)
    for direction, act in (("ascending", button.click), ("descending", lambda: page.keyboard.press("Enter"))):
        act()
        assert heading.get_attribute("aria-sort") == direction
        *known, last = column(table, 1)
        assert known == sorted(known, key=value, reverse=direction == "descending")
        assert last == "–"  # what is not known comes last in either direction
    button.click()
    assert heading.get_attribute("aria-sort") is None and column(table, 0) == before
    table.locator("thead button").first.click()
    assert column(table, 0) == sorted(before)

"""Every built page, opened in Chromium: wide and narrow, light and dark; and each check seen red.

Where LLMTUTOR_SCREENSHOTS names a folder, pictures of the pages are left there for people.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import browser as tool
import drawings
import pages
import pytest
from playwright.sync_api import Browser, sync_playwright

pytestmark = pytest.mark.browser
FRONT = "index.html"  # leads to the landing page
BUILT = [path.relative_to(pages.HTML).as_posix() for path in pages.built()]
SHOTS = os.environ.get("LLMTUTOR_SCREENSHOTS")
CHECKS = ["math", "explore", "axe", "pictures", "drawings", "overflow", "code"]
NARROW_CHECKS = [
    "math",
    "pictures",
    "drawings",
    "overflow",
]  # the others do not depend on the width
# Opening a page takes seconds: once in each scheme, and each width is once that of the opening.
LOOKS = [("light", [tool.WIDE, tool.NARROW]), ("dark", [tool.NARROW, tool.WIDE])]


def without(reason: str) -> None:
    """Skip with the reason; where a browser is required (CI) a skip is a failure."""
    if os.environ.get("LLMTUTOR_REQUIRE_BROWSER"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if not tool.AXE.exists():
        without("axe is not installed: run `make assets` (it needs npm)")
    with sync_playwright() as playwright:
        program = tool.chromium(playwright)
        if program is None:
            without("no Chromium found: install it, or name one in the variable CHROMIUM")
        browser = playwright.chromium.launch(executable_path=program, args=tool.FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    if not (pages.HTML / "_static" / "vendor" / "mathjax").exists():
        without("the pages were not built for reading offline: run `make book` with npm installed")
    with tool.serve(pages.HTML, pages.PREFIX) as address:
        yield address


def test_there_are_pages() -> None:
    if not BUILT:
        without("no pages: run `make book` first")
    assert FRONT in BUILT


def test_front_door_leads_to_the_landing_page(chromium: Browser, site: str) -> None:
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto(site)
        page.wait_for_url("**/book/intro.html")
        assert page.locator("article h1").count() == 1


@pytest.mark.parametrize(("scheme", "widths"), LOOKS, ids=["light", "dark"])
@pytest.mark.parametrize("path", [path for path in BUILT if path != FRONT])
def test_page(chromium: Browser, site: str, path: str, scheme: str, widths: list[int]) -> None:
    with tool.Visit(chromium, site, path, scheme, widths[0]) as visit:
        for width in widths:
            visit.page.set_viewport_size({"width": width, "height": tool.HEIGHT})
            if SHOTS:
                name = path.removesuffix(".html").replace("/", "-")
                visit.page.screenshot(path=f"{SHOTS}/{name}-{scheme}-{width}.png", full_page=True)
            for check in CHECKS if width == tool.WIDE else NARROW_CHECKS:
                visit.problems += [f"{width} px: {said}" for said in tool.look(visit.page, check)]
        assert visit.problems == []


def test_search_finds_a_word_without_a_server_behind_it(chromium: Browser, site: str) -> None:
    with tool.Visit(chromium, site, "search.html?q=token", "light", tool.WIDE) as visit:
        visit.page.wait_for_selector("#search-results li a")
        assert visit.problems == []


def test_a_wrong_address_is_answered_by_a_page_of_this_book(chromium: Browser, site: str) -> None:
    with tool.Visit(chromium, site, "no/such/page.html", "light", tool.NARROW) as visit:
        refused = f"answer 404: {site}no/such/page.html"
        assert visit.problems == [refused]  # and all that the page is made of was there
        visit.page.get_by_role("link", name="4. Attention").last.click()
        visit.page.wait_for_url(f"{site}book/chapters/04_attention.html")


def test_two_models_are_picked_and_all_are_shown(chromium: Browser, site: str) -> None:
    with tool.Visit(chromium, site, "book/models.html", "light", tool.NARROW) as visit:
        shown = visit.page.locator(".lt-model:visible h3")
        assert shown.all_inner_texts() == ["gpt2", "llama3-8b"]
        visit.page.get_by_label("right").select_option("gemma3-1b")
        visit.page.get_by_label("left").select_option("qwen3-0.6b")
        assert shown.all_inner_texts() == ["qwen3-0.6b", "gemma3-1b"]
        visit.page.get_by_role("button", name="show all").click()
        assert shown.count() == len(drawings.SOURCES) >= 10
        for check in NARROW_CHECKS:
            visit.problems += tool.look(visit.page, check)
        assert visit.problems == []


def test_colour_scheme_of_the_reader_is_followed(chromium: Browser, site: str) -> None:
    for scheme in ("light", "dark"):
        with tool.Visit(chromium, site, "book/intro.html", scheme, tool.WIDE) as visit:
            assert visit.page.locator(f"html[data-theme={scheme}]").count() == 1


# Each check once on a page with exactly one fault, so that none of them can be asleep.
PAGE = """<!doctype html><html lang="en"><head><title>Page</title>
<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"></head>
<body><main><h1>Page</h1>
<span class="math"><mjx-container>x</mjx-container></span>
<div class="lt-explore" id="fine"><label for="n">n</label>
<input id="n" type="range" min="0" max="2" value="0" oninput="p.textContent = this.value">
<div class="lt-view" id="p">0</div></div>
{drawing}<article><img alt="square" style="width: 40px; padding: 8px" src="{SQUARE}"></article>
{fault}</main></body></html>"""
ASLEEP = """<div class="lt-explore" id="asleep"><label for="m">m</label>
<input id="m" type="range" min="0" max="2" value="0"><div class="lt-view">0</div></div>"""
DRAWING = """<svg class="lt-drawing" viewBox="0 0 90 20" style="width: 90px; height: 20px">{words}
<rect width="60" height="20" fill="#fff"/>
<text x="5" y="15" font-size="12" fill="{ink}">{text}</text></svg>"""
TITLED = "<title>A</title><desc>B</desc>"
SQUARE = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/%3E"
FAULTS = {
    "external image": ('<img alt="x" src="http://192.0.2.1/x.png">', "request leaves the site"),
    "external script": ('<script src="http://192.0.2.1/x.js"></script>', "request leaves the site"),
    "missing file": ('<img alt="x" src="gone.png">', "answer 404"),
    "script error": ("<script>throw new Error('broken')</script>", "script error: broken"),
    "console error": ("<script>console.error('broken')</script>", "console error: broken"),
    "bent picture": (
        f'<article><img alt="bent" style="width: 90px; height: 40px" src="{SQUARE}"></article>',
        "picture out of proportion: bent",
    ),
    "empty picture": (
        '<article><img alt="x" src="data:image/png;base64,AA"></article>',
        "picture not drawn",
    ),
    "drawing without words": (
        DRAWING.format(words="<title>A</title>", ink="#000", text="a"),
        "drawing without title or description: A",
    ),
    "letters too long": (
        DRAWING.format(words=TITLED, ink="#000", text="far too long for it"),
        "letters stick out of their shape in A",
    ),
    "pale letters": (
        DRAWING.format(words=TITLED, ink="#bbb", text="a"),
        "letters too pale in A: a",
    ),
    "code cut": (
        '<div class="highlight"><pre tabindex="0" style="width: 90px; overflow: auto">'
        "a = far_too_long</pre></div>",
        "code wider than its box: a = far_too_long",
    ),
    "formula in error": ("<mjx-merror>\\frac</mjx-merror>", "formula in error"),
    "formula not drawn": ('<span class="math">\\(x^2\\)</span>', "formula not drawn"),
    "control asleep": (ASLEEP, "explore asleep: m changes nothing"),
    "explore without control": (
        '<div class="lt-explore" id="bare"></div>',
        "no picture or no control",
    ),
    "pale text": ('<p style="color: #ccc; background: #fff">pale</p>', "axe color-contrast"),
    "pale text, folded": (
        '<details><summary>s</summary><p style="color: #ccc">pale</p></details>',
        "axe color-contrast",
    ),
    "input without label": ("<input type='text'>", "axe label (critical)"),
    "too wide": ('<div style="width: 500px">wide</div>', "page scrolls sideways at 390 px"),
}


def problems_of(chromium: Browser, folder: Path, fault: str) -> list[str]:
    drawing = DRAWING.format(words=TITLED, ink="#000", text="fine")
    page = PAGE.replace("{SQUARE}", SQUARE).replace("{drawing}", drawing).replace("{fault}", fault)
    (folder / "page.html").write_text(page, encoding="utf-8")
    with (
        tool.serve(folder) as address,
        tool.Visit(chromium, address, "page.html", "light", tool.NARROW) as visit,
    ):
        return visit.problems + [said for check in CHECKS for said in tool.look(visit.page, check)]


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_noticed(chromium: Browser, tmp_path: Path, name: str) -> None:
    fault, said = FAULTS[name]
    found = problems_of(chromium, tmp_path, fault)
    assert len(found) == 1 and said in found[0], found


def test_page_without_faults_has_no_problems(chromium: Browser, tmp_path: Path) -> None:
    assert problems_of(chromium, tmp_path, "") == []


def test_a_colour_on_its_way_is_looked_at_where_it_ends(chromium: Browser, tmp_path: Path) -> None:
    moving = """<p id="m" style="color: #ccc; transition: color 60s">text</p>
<script>getComputedStyle(m).color; m.style.color = "#000"</script>"""
    assert problems_of(chromium, tmp_path, moving) == []

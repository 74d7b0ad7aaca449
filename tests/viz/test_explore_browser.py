"""The `explore` box in a real browser, inside the markup and the styles of a published page."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import browser as tool
import pydata_sphinx_theme
import pytest
import sphinx_book_theme
from playwright.sync_api import Browser, Page, sync_playwright

from llmtutor.viz import bar_table, explore, lines

THEMES = (
    Path(pydata_sphinx_theme.__file__).parent
    / "theme/pydata_sphinx_theme/static/styles/pydata-sphinx-theme.css",
    Path(sphinx_book_theme.__file__).parent
    / "theme/sphinx_book_theme/static/styles/sphinx-book-theme.css",
)
pytestmark = pytest.mark.browser


def without(reason: str) -> None:
    if os.environ.get("LLMTUTOR_REQUIRE_BROWSER"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        program = tool.chromium(playwright)
        if program is None:
            without("no Chromium on this machine")
        browser = playwright.chromium.launch(executable_path=program, args=tool.FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def body() -> str:
    boxes = box("words", words, size=[2, 3, 5], corpus=["tales", "Shakespeare"])
    boxes += box("picture", picture, slope=[1, 2])
    css = "".join(f"<style>{theme.read_text(encoding='utf-8')}</style>" for theme in THEMES)
    return (
        f"<head><meta charset='utf-8'><title>Box</title>{css}</head><body>"
        f"<main class='bd-content'><h1>Box</h1><div class='cell_output'>{boxes}</div></main></body>"
    )


@pytest.fixture(params=["light", "dark"])
def page(
    request: pytest.FixtureRequest, chromium: Browser, body: str, tmp_path: Path
) -> Iterator[Page]:
    html = f'<!doctype html><html lang="en" data-theme="{request.param}">{body}'
    file = tmp_path / "page.html"
    file.write_text(html, encoding="utf-8")
    page = chromium.new_page(viewport={"width": 680, "height": 900})
    errors: list[str] = []
    requests: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda r: requests.append(r.url))
    page.goto(file.as_uri())
    yield page
    assert errors == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    page.close()


def words(size: int, corpus: str) -> str:
    tokens = [f"<span>{corpus[:i]}</span> <small>{i}</small>" for i in range(1, size)]
    return " ".join([*tokens, "<br>the end "]) + bar_table(
        [(corpus, size), ("others", 5)], columns=("corpus", "size (tokens)"), caption="Sizes"
    )


def picture(slope: int):
    return lines([0, 1], {"a line": [0, slope]}, x_label="time (s)", y_label="way (m)")


def explore_bundle(render, **options) -> dict:
    """What `explore` displays."""
    shown: list[dict] = []
    module = sys.modules["llmtutor.viz.explore"]
    with mock.patch.object(module, "display", lambda bundle, raw: shown.append(bundle)):
        explore(render, **options)
    return shown[0]


def box(name: str, render, **values) -> str:
    html = explore_bundle(render, name=name, **values)["text/html"]
    return f'<div class="output text_html">{html}</div>'


def test_every_state_is_reached_by_keyboard_and_by_choice(page: Page) -> None:
    assert page.locator("#words-note").count() == 0  # it is for pages without scripts
    view = page.locator("#words-view")
    for corpus in ("tales", "Shakespeare"):
        page.get_by_label("corpus").select_option(corpus)
        page.get_by_label("size").focus()
        page.keyboard.press("Home")
        for size in (2, 3, 5):
            expected = page.evaluate(
                "html => { const d = document.createElement('div'); d.innerHTML = html;"
                " return d.innerHTML; }",
                words(size, corpus),
            )
            assert view.inner_html() == expected
            assert page.get_by_label("size").get_attribute("aria-valuetext") == str(size)
            page.keyboard.press("ArrowRight")


def test_a_picture_moves_and_keeps_its_alternative_text(page: Page) -> None:
    image = page.locator("#picture-view img")
    before = image.get_attribute("src")
    assert image.evaluate("i => i.naturalWidth") > 400
    page.get_by_label("slope").press("ArrowRight")
    assert image.get_attribute("src") != before
    assert "to 2 at 1" in (image.get_attribute("alt") or "")


def test_no_serious_accessibility_violation(page: Page) -> None:
    if not tool.AXE.exists():
        without("axe is not installed: run `make assets`")
    assert tool.look(page, "axe") == []
    page.get_by_label("size").press("End")
    assert tool.look(page, "axe") == []


def test_the_box_brings_its_own_background(page: Page, request: pytest.FixtureRequest) -> None:
    """In the dark the theme lays a pale sheet under every HTML output; ours has to hide it."""
    assert tool.look(page, "explore") == []
    light = "light" in request.node.name
    look = "e => [getComputedStyle(e).backgroundColor, getComputedStyle(e).color]"
    for place, part in ((".lt-explore", 0), (".lt-explore", 1)):
        color = page.locator(place).first.evaluate(look)[part]
        channels = [int(c) for c in color.strip("rgb()").split(",")]
        assert (min(channels) > 200) == (light == (part == 0)), color
    outer = page.locator(".text_html").first.evaluate(look)[0]
    assert outer == "rgba(0, 0, 0, 0)"


def test_without_scripts_the_first_state_and_a_note_are_there(chromium: Browser, tmp_path) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.set_content(box("words", words, size=[2, 3], corpus=["tales", "x"]))
    assert "the end" in page.locator("#words-view").inner_text()
    assert page.locator("#words-note").is_visible()
    context.close()

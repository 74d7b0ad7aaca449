"""The widgets in Chromium: from a file and from a server, by the keyboard alone, and for everybody.

Where LLMTUTOR_SCREENSHOTS names a folder, pictures of the widgets are left there for people.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import browser as tool
import pytest
import torch
from playwright.sync_api import Browser, Page

from llmtutor.data.places import find_local
from llmtutor.experiments.kept import load_kept
from llmtutor.generate.generate import generate
from llmtutor.generate.sampling import Sampler
from llmtutor.interop.llama2c import TOKENIZER, WEIGHTS, load_stories260k
from llmtutor.web.boxes import box
from llmtutor.web.export import model_script
from llmtutor.web.page_files import standalone
from llmtutor.web.recorded import EXAMPLES, recorded_html
from llmtutor.web.site import FIRST, site_files

pytestmark = pytest.mark.browser
SHOTS = os.environ.get("LLMTUTOR_SCREENSHOTS")
BEFORE, AFTER = 30_000, 1.3
"""Bytes of scripts and style before a click; after it, bytes for each byte of the int8 weights."""
HERE = all(find_local(file.name) is not None for file in (WEIGHTS, TOKENIZER))
OPEN = ".lt-widget[data-open]"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a page for each widget."""
    folder = tmp_path_factory.mktemp("site")
    for name, content in site_files().items():
        (folder / name).write_text(content, encoding="utf-8")
    for name in EXAMPLES:
        page = standalone(name, box(name, {}, recorded_html(name, {})))
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    if HERE:
        script = model_script(*load_stories260k(), dtype="f32", name="stories")
        (folder / "stories.js").write_text(script, encoding="utf-8")
    return folder


@pytest.fixture(params=["file", "server"])
def address(request: pytest.FixtureRequest, site: Path) -> Iterator[str]:
    if request.param == "file":
        yield f"{site.as_uri()}/"
        return
    with tool.serve(site) as served:
        yield served


WRITE = """async ([name, text, simd]) => {
  await LLMTutor.load("engine");
  if (!simd) LLMTutor.kernel = btoa("no");
  const model = await LLMTutor.openModel(name);
  const ids = [];
  const settings = { text, count: 200, seed: 1, temperature: 0 };
  await model.ask("write", settings, (token) => ids.push(token.id));
  return { ids, logits: await model.ask("logits", { text }) };
}"""


@pytest.mark.parametrize("simd", [True, False], ids=["simd", "loops"])
@pytest.mark.parametrize("name", ["staircase", "stories"])
def test_200_greedy_tokens_and_the_logits_are_pythons(
    chromium: Browser, address: str, name: str, simd: bool
) -> None:
    if name == "stories" and not HERE:
        pytest.skip("stories260K is not here: set LLMTUTOR_MIRROR to a folder that holds it")
    model, tokenizer = load_kept() if name == "staircase" else load_stories260k()
    text = "O Romeo" if name == "staircase" else "Once upon a time"
    with tool.Visit(chromium, address, "write.html", "light", tool.WIDE) as visit:
        found = visit.page.evaluate(WRITE, [name, text, simd])
        assert visit.problems == []
    ids = tokenizer.encode(text)
    sampler = Sampler(greedy=True)
    assert [found["ids"]] == generate(model, [ids], max_new_tokens=200, sampler=sampler)
    with torch.inference_mode():
        expected = model(torch.tensor([ids]))[0, -1]
    torch.testing.assert_close(torch.tensor(found["logits"]), expected, atol=1e-4, rtol=0)


def opened(page: Page) -> None:
    """Press the button of the widget by the keyboard, and wait."""
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "lt-start"
    page.keyboard.press("Enter")
    page.wait_for_selector(OPEN)


def said(page: Page, words: str) -> None:
    page.wait_for_function(
        "words => document.querySelector('.lt-widget').textContent.includes(words)", arg=words
    )


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def write(page: Page) -> None:
    press(page, "Control+A")
    page.keyboard.type("Good morrow")
    press(page, "Tab", "ArrowLeft", "Tab", "End", "Tab", "ArrowLeft", "Tab", "ArrowUp", "Tab")
    assert page.evaluate("document.activeElement.textContent") == "Write"
    press(page, "Enter")
    said(page, "200 tokens")
    first = page.inner_text(".lt-tokens")
    press(page, "Tab", "Enter")  # Stop cannot be pressed now: this is "again"
    page.wait_for_function(
        "old => document.querySelector('.lt-tokens').innerText !== old", arg=first
    )
    said(page, "200 tokens")
    press(page, "Tab", "Enter")
    assert "#lt-write?prompt=Good+morrow&temperature=0.7" in page.url
    press(page, "Tab", "ArrowRight", "ArrowRight", "Enter")
    assert page.locator(".lt-table tbody tr").count() == 10


def cut(page: Page) -> None:
    press(page, "Control+A")
    page.keyboard.type("To be")
    said(page, "2 tokens, 2.50 bytes each")
    press(page, "Tab", "ArrowDown")
    said(page, "5 tokens, 1.00 bytes each")
    press(page, "Tab", "ArrowRight", "Enter")
    said(page, "Token 2: id 111, 1 bytes")


def surprise(page: Page) -> None:
    press(page, "Control+A")
    page.keyboard.type("To be, or not to be")
    said(page, "for 17 bytes")
    press(page, "Tab", "ArrowRight", "Enter")
    said(page, "of what was expected")
    press(page, "Home", "Enter")
    said(page, "Nothing comes before the first token")


def look(page: Page) -> None:
    press(page, "Control+A")
    page.keyboard.type("The king")
    said(page, "“·king” looks at")
    press(page, "Tab", "End", "Tab", "End", "Tab", "Home", "Enter")
    said(page, "“The” looks at: The 100.0 %")


def inside(page: Page) -> None:
    press(page, "Control+A")
    page.keyboard.type("To be, or")
    said(page, "Behind “·or”. Here the text ends.")
    press(page, "Tab", "ArrowLeft", "Enter")
    said(page, "Behind “,”. In the text comes “·or”.")
    assert page.locator(".lt-table tbody tr").count() == 6


DRIVERS = {"write": write, "cut": cut, "surprise": surprise, "look": look, "inside": inside}


@pytest.mark.parametrize("name", DRIVERS)  # test_cost_widget.py drives the one without a model
def test_a_widget_by_the_keyboard_alone(chromium: Browser, site: Path, name: str) -> None:
    with tool.Visit(chromium, f"{site.as_uri()}/", f"{name}.html", "light", tool.WIDE) as visit:
        opened(visit.page)
        DRIVERS[name](visit.page)
        assert visit.problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", DRIVERS)
def test_a_widget_for_everybody(chromium: Browser, site: Path, name: str, scheme: str) -> None:
    with (  # from a server: axe reads the style, which a page from a file may not
        tool.serve(site) as served,
        tool.Visit(chromium, served, f"{name}.html", scheme, tool.WIDE) as visit,
    ):
        page = visit.page
        for state in ("closed", "open"):
            if state == "open":
                page.click(".lt-start")
                page.wait_for_selector(OPEN)
                if name == "write":
                    page.fill("textarea", "O Romeo, Romeo!")
                    page.click("button.lt-main")
                    said(page, "200 tokens")
                    page.click(".lt-token:nth-child(9)")
                page.wait_for_timeout(100)
            for width in (tool.WIDE, tool.NARROW):
                page.set_viewport_size({"width": width, "height": tool.HEIGHT})
                assert tool.look(page, "axe") == []
                assert tool.look(page, "overflow") == []
                if SHOTS:
                    Path(SHOTS).mkdir(parents=True, exist_ok=True)
                    shot = Path(SHOTS) / f"widget-{name}-{state}-{scheme}-{width}.png"
                    page.screenshot(path=str(shot), full_page=True)
        assert visit.problems == []


def test_what_is_loaded_before_the_click_and_after_it(chromium: Browser, site: Path) -> None:
    files: list[str] = []
    with tool.serve(site) as served:
        context = chromium.new_context()
        page = context.new_page()
        page.on("request", lambda request: files.append(request.url.removeprefix(served)))
        page.goto(f"{served}write.html")
        assert set(files) == {"write.html", *FIRST}
        page.click(".lt-start")
        page.wait_for_selector(OPEN)
        context.close()
    sizes = {name: (site / name).stat().st_size for name in files if not name.startswith("blob:")}
    before = sum(sizes[name] for name in ("write.html", *FIRST))
    weights = sum(p.numel() for p in load_kept()[0].parameters())
    assert before <= BEFORE and sum(sizes.values()) - before <= AFTER * weights


def test_without_javascript_the_example_stands_there(chromium: Browser, site: Path) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site.as_uri()}/write.html")
    assert (
        "O Romeo, Romeo!" in page.inner_text(".lt-widget") and page.locator("button").count() == 0
    )
    context.close()


def test_a_shared_link_opens_and_writes_the_same(chromium: Browser, site: Path) -> None:
    texts = []
    for _ in range(2):
        hash_ = "#lt-write?prompt=Come+hither&temperature=1&topK=20&topP=0.9&seed=5"
        with tool.Visit(chromium, f"{site.as_uri()}/", f"write.html{hash_}", "light", 800) as visit:
            said(visit.page, "200 tokens")
            texts.append(visit.page.inner_text(".lt-tokens"))
            assert visit.page.input_value("textarea") == "Come hither"
    assert texts[0] == texts[1]


def test_a_missing_file_is_said(chromium: Browser, site: Path, tmp_path: Path) -> None:
    for name in ("write.html", *FIRST, "kit.js", "widget-write.js"):
        (tmp_path / name).write_text((site / name).read_text(encoding="utf-8"), encoding="utf-8")
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"{tmp_path.as_uri()}/write.html")
    page.click(".lt-start")
    said(page, "It could not start: engine.js is not there: is the page whole?")
    assert page.is_enabled(".lt-start")
    context.close()

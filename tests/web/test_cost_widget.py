"""The widget Cost in a real browser, moved by keys alone, against the package's own numbers.

Where LLMTUTOR_SCREENSHOTS names a folder, pictures of it are left there for people.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import browser as tool
import pytest
import torch
from playwright.sync_api import Browser, Page

from llmtutor.model.accounting import cache_bytes, parameters, token_flops
from llmtutor.model.config import ModelConfig
from llmtutor.web.costs import STARTS, cost_script, recorded_cost

pytestmark = pytest.mark.browser
SHOTS = os.environ.get("LLMTUTOR_SCREENSHOTS")
LOADED = ("kit.js", "costs.js", "widget-cost.js", "widgets.js", "widgets.css")
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Cost</title>
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,"><link rel="stylesheet" href="widgets.css"></head><body
style="font-family: sans-serif; color: CanvasText; background: Canvas"><main>
<h1>Cost</h1><section class="lt-widget" id="lt-cost" data-widget="cost" data-options="{options}"
data-invitation="Move the sizes" aria-label="Widget: cost"><div class="lt-recorded">{recorded}</div>
</section></main><script src="widgets.js"></script></body></html>"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All that the widget loads, and nothing else."""
    for name in LOADED:
        text = (files("llmtutor.web") / "page" / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "cost-data.js").write_text(cost_script(), encoding="utf-8")
    return tmp_path


@contextmanager
def shown(
    chromium: Browser, folder: Path, options: dict[str, Any], look: str = "light", width: int = 1280
) -> Iterator[tool.Visit]:
    """A page with the widget, before it starts."""
    options_text, recorded = escape(json.dumps(options)), recorded_cost(options)
    page = PAGE.replace("{options}", options_text).replace("{recorded}", recorded)
    (folder / "page.html").write_text(page, encoding="utf-8")
    with (
        tool.serve(folder) as address,
        tool.Visit(chromium, address, "page.html", look, width) as visit,
    ):
        yield visit


def start(page: Page) -> None:
    """By keys, as everything here."""
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "lt-start"
    page.keyboard.press("Enter")
    page.wait_for_selector("#lt-cost[data-open], .lt-start:enabled")
    assert page.locator("#lt-cost[data-open]").count(), page.locator(".lt-note").inner_text()


def go_to(page: Page, label: str) -> None:
    """Tab until the control of that label, or the button of that name, has the focus."""
    said = """() => { const one = document.activeElement;
        return one.labels?.[0]?.textContent ?? one.textContent; }"""
    for _ in range(40):
        if page.evaluate(said).endswith(label):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"no key leads to {label!r}")


def press(page: Page, label: str, *keys: str) -> None:
    go_to(page, label)
    for key in keys:
        page.keyboard.press(key)
    go_back(page)


def go_back(page: Page) -> None:
    """To the first control, so that the next one lies ahead."""
    first = "document.activeElement === document.querySelector('#lt-cost select')"
    for _ in range(40):
        if page.evaluate(first):
            return
        page.keyboard.press("Shift+Tab")
    raise AssertionError("no key leads back")


def rows(page: Page, column: int = 0) -> dict[str, str]:
    """The costs as they stand on the page: those now, or those of the model begun with."""
    found = page.locator(".lt-costs table").first.locator("tbody tr")
    return {
        one.locator("th").inner_text(): one.locator("td").nth(column).inner_text()
        for one in found.all()
    }


def exact(config: ModelConfig, seq: int) -> dict[str, str]:
    """The costs of a configuration with all their digits."""
    config = config.replace(max_seq_len=max(config.max_seq_len, seq))
    found = parameters(config)
    return {
        "parameters": f"{found.total:,}",
        "used by one token": f"{found.active:,}",
        "FLOPs for one token": f"{token_flops(config, seq):,} FLOP",
        "KV cache, bfloat16": f"{cache_bytes(config, 1, seq, torch.bfloat16):,} bytes",
        "weights, bfloat16": f"{2 * found.total:,} bytes",
        "training, float32": f"{16 * found.total:,} bytes",
    }


def test_it_starts_with_what_was_recorded(chromium: Browser, folder: Path) -> None:
    for options in ({}, {"start": "mixtral-8x7b", "show": "moe"}, {"start": "gpt2", "seq": 512}):
        with shown(chromium, folder, options) as visit:
            cells = """() => [...document.querySelectorAll(".lt-costs tbody tr")].map((row) =>
                [...row.cells].map((one) => one.textContent))"""
            before = visit.page.evaluate(cells)
            start(visit.page)
            after = visit.page.evaluate(cells)
            assert [row[:2] for row in after[:6]] == before[:6]
            assert after[6:] == before[6:]
            assert visit.problems == []


def test_keys_alone_move_heads_and_the_text(chromium: Browser, folder: Path) -> None:
    llama = STARTS["llama3-8b"]
    with shown(chromium, folder, {"show": "gqa"}) as visit:
        page = visit.page
        start(page)
        press(page, "Exact numbers", "Enter")
        assert rows(page) == rows(page, 1) == exact(llama, 8192)
        press(page, "n_kv_heads", "ArrowUp", "ArrowUp")  # 8, 4, 2
        assert rows(page) == exact(llama.replace(n_kv_heads=2), 8192)
        press(page, "Length of the text", "ArrowRight", "ArrowRight")
        assert rows(page) == exact(llama.replace(n_kv_heads=2), 32768)
        assert rows(page, 1) == exact(llama, 32768)
        page.wait_for_function(
            "document.querySelector('.lt-status').textContent.includes('was made for 8,192 tokens')"
        )
        press(page, "n_heads", "ArrowUp")  # 33 do not divide
        assert set(rows(page).values()) == {"–"}
        words = "n_heads must divide d_model = 4096 where head_dim is 0."
        page.wait_for_function(
            "(words) => document.querySelector('.lt-status').textContent === words", arg=words
        )
        assert page.get_by_label("Heads of queries").get_attribute("aria-invalid") == "true"
        press(page, "Back to its sizes", "Enter")
        assert rows(page) == exact(llama, 8192)
        assert visit.problems == []


def test_keys_alone_change_the_model_its_attention_and_its_experts(
    chromium: Browser, folder: Path
) -> None:
    with shown(chromium, folder, {"start": "deepseek-v2-lite", "show": "mla"}) as visit:
        page, lite = visit.page, STARTS["deepseek-v2-lite"]
        start(page)
        press(page, "Exact numbers", "Enter")
        assert rows(page) == exact(lite, 8192)
        press(page, "kv_rank", "ArrowDown", "ArrowDown")
        assert rows(page) == exact(lite.replace(kv_rank=480), 8192)
        press(page, "All other sizes", "Enter")
        press(page, "top_k", "ArrowUp")
        assert rows(page) == exact(lite.replace(kv_rank=480, top_k=7), 8192)
        assert page.get_by_label("Heads of keys").count() == 1
        assert page.get_by_label("Heads of keys").is_hidden()
        press(page, "attention", "ArrowUp")
        assert page.get_by_label("Heads of keys").is_visible()
        assert page.get_by_label("Latent of keys").is_hidden()
        press(page, "Begin with", "Home", "ArrowDown")
        assert rows(page) == exact(STARTS["gpt2"], 1024)
        press(page, "Length of the text", "ArrowRight")
        assert set(rows(page).values()) == {"–"}
        assert visit.problems == []


def test_the_bars_show_where_parameters_sit(chromium: Browser, folder: Path) -> None:
    with shown(chromium, folder, {"start": "mixtral-8x7b", "show": "moe"}) as visit:
        start(visit.page)
        table = visit.page.locator(".lt-costs table").nth(1)
        shares = {
            one.locator("th").inner_text(): one.locator("td").first.inner_text()
            for one in table.locator("tbody tr").all()
        }
        found = parameters(STARTS["mixtral-8x7b"])
        assert shares["idle experts"] == f"{100 * found.idle / found.total:.1f} %"
        assert shares["feed-forward"] == f"{100 * (found.ffns - found.idle) / found.total:.1f} %"
        assert shares["attention"] == f"{100 * found.mixers / found.total:.1f} %"
        widths = table.locator(".lt-bar").evaluate_all("all => all.map(one => one.offsetWidth)")
        percents = [float(re.sub(r"[^\d.]", "", share)) for share in shares.values()]
        assert [*sorted(zip(percents, widths, strict=True))] == [
            *zip(sorted(percents), sorted(widths), strict=True)
        ]


def test_a_shared_link_opens_what_was_moved(chromium: Browser, folder: Path) -> None:
    with shown(chromium, folder, {"show": "moe", "start": "mixtral-8x7b"}) as visit:
        page = visit.page
        start(page)
        press(page, "top_k", "ArrowUp")
        press(page, "A weight", "ArrowDown", "ArrowDown")
        press(page, "Copy link", "Enter")
        page.wait_for_function("location.hash.includes('top_k=3')")
        before = rows(page)
        assert "weights, 4 bit" in before
        page.reload()
        page.wait_for_selector("#lt-cost[data-open]")
        assert rows(page) == before
        assert visit.problems == []


@pytest.mark.parametrize(
    ("link", "wrong"),
    [
        ("start=gpt9&seq=much&cache=x&weights=", False),
        ("attention=none&ffn=&tie_weights=perhaps", False),
        ("n_kv_heads=5", True),
        ("d_ff=wide", True),
    ],
)
def test_nonsense_in_a_link_breaks_nothing(
    chromium: Browser, folder: Path, link: str, wrong: bool
) -> None:
    with shown(chromium, folder, {}) as visit:
        page = visit.page
        page.goto(f"{page.url}#lt-cost?{link}")
        page.reload()
        page.wait_for_selector("#lt-cost[data-open]")
        assert "NaN" not in page.locator("#lt-cost").inner_text()
        assert (set(rows(page).values()) == {"–"}) == wrong
        assert visit.problems == []


@pytest.mark.parametrize("look", ["light", "dark"])
def test_it_can_be_read_by_all(chromium: Browser, folder: Path, look: str) -> None:
    """Before it starts, as it starts, with all digits, and with a fault; axe opens the fold."""
    options = {"start": "deepseek-v3", "show": "moe"}  # the longest numbers
    with shown(chromium, folder, options, look, tool.NARROW) as visit:
        page = visit.page
        problems = tool.look(page, "axe") + tool.look(page, "overflow")
        start(page)
        for width in (tool.NARROW, tool.WIDE):
            page.set_viewport_size({"width": width, "height": tool.HEIGHT})
            for step in ("started", "exact", "wrong"):
                if step == "exact":
                    press(page, "Exact numbers", "Enter")
                if step == "wrong":
                    press(page, "top_k", "Home", "Shift+End", *"300")
                    page.wait_for_function(
                        "document.querySelector('.lt-status').textContent.includes('at most 256')"
                    )
                if SHOTS:
                    name = f"{SHOTS}/cost-{look}-{width}-{step}.png"
                    page.screenshot(path=name, full_page=True)
                found = tool.look(page, "axe") + tool.look(page, "overflow")
                problems += [f"{width} px, {step}: {one}" for one in found]
            press(page, "Exact numbers", "Enter")
            press(page, "Back to its sizes", "Enter")
        assert problems + visit.problems == []

"""What the world is told of the pages: heads, pictures, the map, the page for wrong addresses."""

import functools
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import addresses
import cards
import heads
import pages
import pytest
import redraw
from docutils import nodes
from PIL import Image

BASE = "https://example.org/book/"
CONF = """
extensions = ["myst_parser", "heads", "addresses"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
project = html_title = "LLM Tutor"
html_theme = "sphinx_book_theme"
html_use_index = False
root_doc = "book/intro"
html_baseurl = {base!r}
"""
FIRST = """# LLM Tutor

This book builds a model, part by part, until nothing in it is a black box. Another sentence.

## Contents

```{toctree}
:numbered:
deep/attention
```

```{toctree}
look_up
```
"""
CHAPTER = """# Attention: a mean

*Love* looks not with the eyes, it says here and goes on.

:::{admonition} In this chapter
**You will be able to**

- derive attention with its $\\lambda$ from a mean, and "write" it for one query
- do something else that is told at such a length that there is no room for it besides the first

**You need** nothing.
:::

## A drawing

```{raw} html
<svg class="lt-drawing" viewBox="-1 -1 30 30"><title id="a">One box</title><desc>b</desc>
<rect class="lt-query" width="20" height="10" rx="4"/></svg>
```
"""
LOOK_UP = """---
myst:
  html_meta:
    description: "Words that somebody wrote by hand, long enough to be of use."
---
# Words

Short.

## More
"""


def build(folder: Path, base: str, **pages_of: str) -> tuple[Path, str]:
    """A book of three pages; where it is, and what Sphinx warned of."""
    source = folder / "source"
    texts = {"book/intro": FIRST, "book/deep/attention": CHAPTER, "book/look_up": LOOK_UP}
    for name, text in {**texts, **pages_of}.items():
        path = source / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (source / "conf.py").write_text(CONF.format(base=base), encoding="utf-8")
    code = f"import sys; sys.path.insert(0, {str(pages.ROOT / 'book' / '_ext')!r})\n"
    code += "from sphinx.cmd.build import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "-q", "-b", "html", str(source), str(folder / "html")]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return folder / "html", done.stderr


@pytest.fixture(scope="module", params=["", BASE], ids=["no address", "an address"])
def book(request, tmp_path_factory) -> tuple[Path, str]:
    html, warnings = build(tmp_path_factory.mktemp("book"), request.param)
    assert warnings == ""
    return html, request.param


def metas(path: Path) -> dict[str, str]:
    found = pages.head(path).find_all("meta")
    return {str(m.get("name") or m.get("property")): str(m.get("content")) for m in found}


def test_heads_are_complete_with_and_without_an_address(book: tuple[Path, str]) -> None:
    html, base = book
    built = {path.relative_to(html).as_posix(): path for path in pages.built(html)}
    assert {"index.html", "404.html", "search.html", "book/deep/attention.html"} <= set(built)
    for path in built.values():
        assert pages.head_problems(path, html, base) == []


def test_a_chapter_is_described_by_what_it_promises(book: tuple[Path, str]) -> None:
    html, base = book
    told = metas(html / "book" / "deep" / "attention.html")
    words = "Attention: derive attention with its λ from a mean, and “write” it for one query."
    assert told["description"] == told["og:description"] == words
    assert told["og:title"] == "Chapter 1, Attention: a mean" and told["og:type"] == "article"
    assert "One box" in told["og:image:alt"]
    picture = "_images/cards/book-deep-attention.png"
    assert told["og:image"] == (base + picture if base else f"../../{picture}")
    assert told.get("og:url") == (f"{base}book/deep/attention.html" if base else None)
    assert metas(html / "book" / "look_up.html")["og:description"].startswith("Words that somebody")


def test_the_front_door_has_the_head_of_the_first_page(book: tuple[Path, str]) -> None:
    html, _ = book
    door, first = metas(html / "index.html"), metas(html / "book" / "intro.html")
    assert door["og:description"] == first["og:description"] and "part by part" in first["og:title"]
    text = (html / "index.html").read_text(encoding="utf-8")
    assert '<meta http-equiv="refresh" content="0; url=book/intro.html">' in text
    assert pages.parse(html / "book" / "intro.html").title.text.count("LLM Tutor") == 1


def test_the_map_lists_every_page_where_there_is_an_address(book: tuple[Path, str]) -> None:
    html, base = book
    if not base:
        assert not (html / "sitemap.xml").exists() and not (html / "robots.txt").exists()
        return
    listed = re.findall(r"<loc>(.*?)</loc>", (html / "sitemap.xml").read_text(encoding="utf-8"))
    names = ["book/deep/attention", "book/intro", "book/look_up"]
    assert listed == [f"{base}{name}.html" for name in names]
    assert f"Sitemap: {base}sitemap.xml" in (html / "robots.txt").read_text(encoding="utf-8")


def test_the_page_for_wrong_addresses_works_at_any_depth(book: tuple[Path, str]) -> None:
    html, base = book
    prefix = "/book/" if base else "/"
    page = pages.parse(html / "404.html")
    assert pages.broken_links(html / "404.html", page, html, prefix) == []
    used = [
        tag[name] for name in ("href", "src", "action") for tag in page.find_all(**{name: True})
    ]
    assert len(used) > 10
    assert all(re.match(r"[a-z]+:|#", link) or link.startswith(prefix) for link in used), used
    article = pages.article(page)
    links = [link.text for link in article.find_all("a")]
    assert links == ["The first page of the book", "1. Attention: a mean", "Words"]
    assert article.find("form")["action"] == f"{prefix}search.html"
    assert metas(html / "404.html")["robots"] == "noindex"


def test_a_page_that_cannot_be_described_is_a_warning(tmp_path: Path) -> None:
    _, warnings = build(tmp_path, "", **{"book/look_up": "# Words\n\nShort.\n\n## More\n"})
    assert (
        "book/look_up: expected a description of 50 to 160 characters, found 'Short.'" in warnings
    )


@pytest.mark.parametrize("base", ["example.org/", "https://example.org", "https://example.org/x"])
def test_an_address_that_pages_cannot_stand_behind_is_an_error(base: str) -> None:
    config = type("Config", (), {"html_baseurl": base})
    with pytest.raises(
        ValueError, match=r"expected html\.baseurl like 'https://example\.org/book/'"
    ):
        addresses.check(None, config)


PICTURE = "_images/cards/book-look_up.png"
FAULTS = {
    "<title>": ("<title>a</title><title>", "2 titles"),
    ' name="description"': (' name="about"', "expected one description"),
    'content="Words that': ('content="' + "Words " * 20 + "that", "description of 17"),
    'property="og:title"': ('property="og:name"', "expected one og:title"),
    'property="og:image:alt"': ('property="og:alt"', "expected one og:image:alt"),
    PICTURE: ("_images/cards/gone.png", "no picture _images/cards/gone.png"),
    'content="630"': ('content="631"', "pixels, not ['1200', '631']"),
    'name="twitter:card"': ('name="card"', "expected one twitter:card"),
    "</head>": ('<link rel="canonical" href="https://else.org/"></head>', "expected the address"),
}


@pytest.mark.parametrize("old", FAULTS)
def test_each_fault_of_a_head_is_noticed(book: tuple[Path, str], old: str) -> None:
    html, base = book
    path, (new, said) = html / "book" / "look_up.html", FAULTS[old]
    whole = path.read_text(encoding="utf-8")
    assert old in whole
    path.write_text(whole.replace(old, new, 1), encoding="utf-8")
    found = pages.head_problems(path, html, base)
    path.write_text(whole, encoding="utf-8")
    assert any(said in one for one in found), found


# Pictures ----------------------------------------------------------------------------------------


@functools.cache
def drawing() -> str:
    notebook = json.loads(
        (pages.ROOT / "book/chapters/01_tokenizer.ipynb").read_text(encoding="utf-8")
    )
    outputs = [o for cell in notebook["cells"] for o in cell.get("outputs", [])]
    htmls = ["".join(o.get("data", {}).get("text/html", "")) for o in outputs]
    return next(
        re.search(r'<svg class="lt-drawing".*?</svg>', h, re.DOTALL)[0]
        for h in htmls
        if "lt-drawing" in h
    )


def test_a_card_is_the_same_each_time_and_small() -> None:
    made = [cards.card("Attention", "Chapter 4", "Words", drawing()) for _ in range(2)]
    assert made[0] == made[1] and len(made[0]) < 60_000
    assert Image.open(io.BytesIO(made[0])).size == (cards.WIDTH, cards.HEIGHT)


def test_the_drawing_stands_on_the_card_in_its_light_colours() -> None:
    with_it, without = (
        Image.open(io.BytesIO(cards.card("A", "", "B", svg))).convert("RGB")
        for svg in (
            '<svg viewBox="0 0 9 9"><rect class="lt-query" width="9" height="9"/></svg>',
            "",
        )
    )
    assert with_it.getpixel((888, 328)) == (0xCF, 0xE5, 0xF7)  # --query of the style sheet
    assert without.getpixel((888, 328)) == (0xF3, 0xF6, 0xF9)


def test_what_is_moved_stands_where_it_was_moved_to() -> None:
    half = '<g transform="translate(200 0)"><rect class="lt-new" width="200" height="400"/></g>'
    svg = f'<svg viewBox="0 0 400 400">{half}</svg>'
    moved = Image.open(io.BytesIO(cards.card("A", "", "B", svg))).convert("RGB")
    assert moved.getpixel((788, 328)) == (0xFF, 0xFF, 0xFF)
    assert moved.getpixel((988, 328)) == (0xFF, 0xF3, 0xA3)


def test_a_card_says_nothing_twice() -> None:
    said = heads._on_card("Norms: why", "Chapter 7", "Norms: compute them.")
    assert said == ("Norms: why", "Chapter 7", "Compute them.")
    assert heads._on_card("LLM Tutor: build it", "", "A book.") == ("Build it", "", "A book.")


def test_a_drawing_inside_of_another_is_a_window() -> None:
    big = '<rect class="lt-query" width="400" height="400"/>'
    svg = f'<svg viewBox="0 0 400 400"><svg width="9" height="9">{big}</svg></svg>'
    inside = Image.open(io.BytesIO(cards.card("A", "", "B", svg))).convert("RGB")
    assert inside.getpixel((888, 328)) == (0xFF, 0xFF, 0xFF)
    named = svg.replace("<svg ", '<svg class="lt-drawing" ', 1)
    for text, found in ((svg, ""), (f"<p>{named}</p><svg></svg>", named)):
        page = nodes.document(None, None)
        page += nodes.raw("", text)
        assert heads.first_drawing(page) == (found, "")
    assert heads.first_drawing(None) == ("", "")


def test_a_long_title_keeps_to_its_column() -> None:
    lines = cards.wrap("words without an end " * 9, 52, 536, 4, bold=True)
    assert len(lines) == 4 and lines[-1].endswith("…")
    assert all(cards.text_width(line, 52, bold=True) <= 536 for line in lines)


def test_style_of_a_drawing_is_read_from_its_sheet() -> None:
    assert redraw.look("rect", "lt-new", "")["fill"] == "#fff3a3"
    assert redraw.look("polygon", "lt-head lt-line-stream", "")["fill"] == "#9a7500"
    assert redraw.look("rect", "lt-plain lt-dashed", "")["stroke-dasharray"] == "4 3"
    assert redraw.look("rect", "lt-plain", "stroke-width:9")["stroke-width"] == "9"
    assert redraw.look("text", "lt-text", "")["fill"] == "#1a1a1a"


def test_a_path_that_a_card_cannot_draw_is_an_error() -> None:
    ((start, *_, end),) = redraw.strokes("M0 0A5 5 0 0 1 10 0")
    assert start == (0, 0) and end == pytest.approx((10, 0))
    with pytest.raises(ValueError, match="expected a path of lines and arcs, received 'C'"):
        redraw.strokes("M0 0C1 1 2 2 3 3")

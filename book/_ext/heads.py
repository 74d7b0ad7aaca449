"""Sphinx extension of this book: what search engines and link previews are told of a page.

Every page gets a description, and the title, words and picture that a site shows beside a link to
it. A chapter is described by what its box "In this chapter" promises, any other page by
``html_meta`` in its front matter or by its first sentences. Where the book has no public address
(``html.baseurl`` in ``_config.yml``) nothing is said that needs one.
"""

import re
from collections.abc import Iterator
from html import escape, unescape
from pathlib import Path
from typing import Any

from cards import HEIGHT, WIDTH, card
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

LEAST, MOST = 50, 160
"""Characters of a description: fewer say nothing, more are cut by those who show it."""
BOX = "In this chapter"
FRONT_TITLE = "LLM Tutor: build a modern language model, part by part"
FOLDER = "_images/cards"
WRONG = "404"
OWN = {
    "search": "Search the chapters, the glossary and the code reference of LLM Tutor, a book that "
    "builds a modern language model part by part.",
    "_modules/index": "All modules of the package behind the book LLM Tutor, each with its source.",
    WRONG: "There is no page at this address. From here you can search LLM Tutor or go on to one "
    "of its chapters.",
}
"""Descriptions of pages that have no source."""
SOURCE = "The source code of {name}, a module of the package behind the book LLM Tutor."
REDIRECT = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<meta http-equiv="refresh" content="0; url={target}">
{tags}
</head>
<body><p><a href="{target}">{title}</a></p></body>
</html>
"""
logger = logging.getLogger(__name__)


def describe(doctree: nodes.document, title: str) -> str:
    """At most MOST characters of plain text about a page; empty where nothing fits."""
    for meta in doctree.findall(nodes.meta):
        if meta.get("name") == "description":
            return str(meta["content"])
    if promises := list(_promises(doctree)):
        return _as_many(promises, "; ", f"{title.partition(':')[0]}: ", ".")
    paragraphs = [
        p for p in doctree.findall(nodes.paragraph) if isinstance(p.parent, nodes.section)
    ]
    text = plain(paragraphs[0]) if paragraphs else ""
    return _as_many(re.split(r"(?<=[.?!])\s+(?=[A-Z“\"])", text), " ", "", "")


def _promises(doctree: nodes.document) -> Iterator[str]:
    """The points of the box at the head of a chapter."""
    for box in doctree.findall(nodes.admonition):
        if box.children and box[0].astext() == BOX:
            yield from (plain(item) for item in box.findall(nodes.list_item))
            return


def _as_many(parts: list[str], between: str, before: str, after: str) -> str:
    """As many of the first parts as fit; empty where even the first does not."""
    said = ""
    for part in parts:
        longer = f"{said}{between if said else ''}{part}"
        if len(before + longer + after) > MOST:
            break
        said = longer
    return before + said + after if said else ""


def plain(node: nodes.Node) -> str:
    """The words of a node on one line, with Greek letters as letters."""
    words = "".join(
        _greek(leaf.astext()) if isinstance(leaf.parent, nodes.math) else leaf.astext()
        for leaf in node.findall(nodes.Text)
    )
    return " ".join(words.split())


def _greek(formula: str) -> str:
    """A formula that is readable as text: HTML knows the same names of letters.

    >>> _greek(r"\\lambda q")
    'λ q'
    """
    return re.sub(r"\\([A-Za-z]+)", lambda found: unescape(f"&{found[1]};"), formula)


def tags(title: str, description: str, kind: str, image: str, said: str, address: str) -> str:
    """The elements of a head: ``image`` as it is linked, ``said`` its words, an address or none."""
    properties = {
        "og:site_name": "LLM Tutor",
        "og:type": kind,
        "og:title": title,
        "og:description": description,
        "og:url": address,
        "og:image": image,
        "og:image:type": "image/png",
        "og:image:width": str(WIDTH),
        "og:image:height": str(HEIGHT),
        "og:image:alt": said,
    }
    lines = [
        f'<meta property="{name}" content="{escape(value)}">'
        for name, value in properties.items()
        if value
    ]
    lines.append('<meta name="twitter:card" content="summary_large_image">')
    return "\n".join([f'<meta name="description" content="{escape(description)}">', *lines])


def first_drawing(doctree: nodes.document | None) -> tuple[str, str]:
    """The first drawing of a page as SVG, and its title; two empty texts where it has none."""
    for raw in doctree.findall(nodes.raw) if doctree else ():
        _, begin, rest = raw.astext().partition('<svg class="lt-drawing"')
        if begin:
            title = re.search(r"<title[^>]*>(.*?)</title>", rest)
            return _element(begin + rest), title[1] if title else ""
    return "", ""


def _element(text: str) -> str:
    """The SVG at the beginning of a text, to its own end: a drawing may hold others.

    >>> _element("<svg a><svg b></svg></svg><p>")
    '<svg a><svg b></svg></svg>'
    """
    depth = 0
    for tag in re.finditer(r"<(/?)svg\b", text):
        depth += -1 if tag[1] else 1
        if not depth:
            return text[: tag.end()] + ">"
    return text


def add_head(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Complete the head of one page, and draw its picture."""
    root = page == app.config.root_doc
    if root:
        context["title"], context["docstitle"] = FRONT_TITLE, ""
    if page == WRONG:  # it answers for addresses that are not its own
        context["pageurl"] = None
    title = re.sub(r"<[^>]*>", "", str(context.get("title", "Search")))
    number, name = re.match(r"(?:(\d+)\. )?(.*)", title, re.DOTALL).groups()  # type: ignore[union-attr]
    kicker = f"Chapter {number}" if number else ""
    if doctree is None:
        module = page.removeprefix("_modules/").replace("/", ".")
        description = OWN.get(page, SOURCE.format(name=module))
    else:
        description = describe(doctree, name)
        if not LEAST <= len(description) <= MOST:
            logger.warning(
                "%s: expected a description of %d to %d characters, found %r; write one as "
                "html_meta in the front matter of the page",
                *(page, LEAST, MOST, description),
            )
    svg, about = first_drawing(doctree)
    picture = f"{FOLDER}/{(page if doctree else app.config.root_doc).replace('/', '-')}.png"
    if doctree:
        path = Path(app.outdir, picture)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(card(*_on_card(name, kicker, description), svg))
    base = app.config.html_baseurl
    made = tags(
        f"{kicker}, {name}" if kicker else name,
        description,
        "article" if kicker else "website",
        base + picture if base else context["pathto"](picture, resource=True),
        f"A card with the title and a drawing: {about}" if about else "A card with the title",
        context.get("pageurl") or "",
    )
    if page == WRONG:
        made = made.partition("\n")[0]  # nobody passes a wrong address on
    own = re.sub(r'<meta [^>]*name="description"[^>]*>\n?', "", context.get("metatags") or "")
    context["metatags"] = f"{own}\n{made}\n"
    if root:
        _front_door(app, made.replace(f'content="../{picture}', f'content="{picture}'), context)


def _on_card(name: str, kicker: str, description: str) -> tuple[str, str, str]:
    """The same words without what stands twice on a card: the book, and the title."""
    title, words = name.removeprefix("LLM Tutor: "), description
    words = words.removeprefix(f"{name.partition(':')[0]}: ")
    return title[:1].upper() + title[1:], kicker, words[:1].upper() + words[1:]


def _front_door(app: Sphinx, made: str, context: dict[str, Any]) -> None:
    """The address of the site itself: it leads to the first page and has the same head."""
    if context["pageurl"]:
        made += f'\n<link rel="canonical" href="{escape(context["pageurl"])}">'
    target = f"{app.config.root_doc}.html"
    door = REDIRECT.format(title=escape(FRONT_TITLE), target=target, tags=made)
    Path(app.outdir, "index.html").write_text(door, encoding="utf-8", newline="\n")


def setup(app: Sphinx) -> dict[str, object]:
    """Called by Sphinx."""
    app.connect("html-page-context", add_head, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

"""What a built page must hold, read from its HTML alone. `problems` says all that is wrong."""

import re
from functools import cache
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import yaml
from bs4 import BeautifulSoup, Tag
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
REFERS = {"a": "href", "link": "href", "img": "src", "script": "src", "source": "src"}
# A role or fence that reached the reader was not understood.
RAW = ("{cite}", "{cite:", "{term}", "{ref}", "{doc}", "{eq}", "{numref}", ":::", "```", "$$")

BASE: str = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["html"]["baseurl"]
"""The public address of the pages; empty while there is none."""
PREFIX = urlsplit(BASE).path or "/"
"""What stands between the server and the pages, for links that begin at the server's root."""
NO_PREVIEW = {"404.html"}

READ_BEHIND = {25: 19}
"""Chapters that stand behind another than the one before their number: the last of a part was
written later, and the number of a page that exists does not change."""


def reading_order(name: str) -> tuple[float, str]:
    """What sorts the files of chapters, "04_attention", as the contents lists them.

    >>> sorted(["20_comparison", "25_linear_attention", "19_ssm"], key=reading_order)
    ['19_ssm', '25_linear_attention', '20_comparison']
    """
    number = int(name[:2])
    return (READ_BEHIND[number] + 0.5 if number in READ_BEHIND else number), name


def built(html: Path = HTML) -> list[Path]:
    """Every page for readers; sources shown by viewcode and the theme's templates are not pages."""
    return sorted(
        path
        for path in html.rglob("*.html")
        if not {"_static", "_modules", "_sources"} & set(path.relative_to(html).parts)
    )


def parse(path: Path) -> BeautifulSoup:
    """The parsed page."""
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def head(path: Path) -> BeautifulSoup:
    """The parsed head of a page, without the cost of the rest."""
    text = path.read_text(encoding="utf-8").partition("</head>")[0]
    return BeautifulSoup(text, "html.parser")


def article(page: BeautifulSoup) -> Tag | None:
    """The part written by us; None on pages that the theme makes (search, index, redirect)."""
    return page.select_one("article.bd-article")


def broken_links(
    path: Path, page: BeautifulSoup, html: Path | None = None, prefix: str = PREFIX
) -> list[str]:
    """References to files or anchors that are not there; ``html`` is the folder of all pages."""
    found = []
    html = html or HTML
    for tag in page.find_all(list(REFERS)):
        address = str(tag.get(REFERS[tag.name]) or "")
        parts = urlsplit(address)
        if parts.scheme or parts.netloc or not address or address == "#":
            continue
        place = path.parent
        if parts.path.startswith(prefix):  # only the page for wrong addresses has such links
            place, parts = html, parts._replace(path=parts.path.removeprefix(prefix))
        target = (place / unquote(parts.path)).resolve() if parts.path else path
        anchor = unquote(urldefrag(address).fragment)
        if not target.is_file():
            found.append(f"link to a missing file: {address}")
        elif anchor and target.suffix == ".html" and anchor not in anchors(target):
            found.append(f"link to a missing anchor: {address}")
    return found


@cache
def anchors(path: Path) -> set[str]:
    """The ids (and old-fashioned names) in a page, without the cost of parsing it."""
    text = path.read_text(encoding="utf-8")
    return {unescape(name) for name in re.findall(r"""\s(?:id|name)=["']([^"']+)""", text)}


def head_problems(path: Path, html: Path = HTML, base: str = BASE) -> list[str]:
    """What is missing or wrong in the head of a page, for search engines and previews."""
    page = head(path)
    name = path.relative_to(html).as_posix()
    said: dict[str, list[str]] = {}
    for meta in page.find_all("meta"):
        key = str(meta.get("name") or meta.get("property") or "")
        said.setdefault(key, []).append(str(meta.get("content")))
    titles = page.find_all("title")
    found = [] if len(titles) == 1 else [f"{len(titles)} titles"]
    wanted = ["description"]
    if name not in NO_PREVIEW:
        wanted += ["og:title", "og:description", "og:type", "og:image", "og:image:alt"]
        wanted += ["og:image:width", "og:image:height", "twitter:card", *["og:url"] * bool(base)]
    for key in wanted:
        if len(said.get(key, [])) != 1 or not said[key][0].strip():
            found.append(f"expected one {key}, found {said.get(key, [])}")
    if not 50 <= len(said.get("description", [""])[0]) <= 160:
        found.append(f"description of {len(said.get('description', [''])[0])} characters")
    canonical = [str(link["href"]) for link in page.find_all("link", rel="canonical")]
    home = name if name != "index.html" else "book/intro.html"  # the front door leads there
    right = [base + home] if base and name not in NO_PREVIEW else []
    if canonical != right or said.get("og:url", []) != right:
        found.append(f"expected the address {right}, found {canonical}, {said.get('og:url', [])}")
    for image in said.get("og:image", []):
        found += _picture_problems(urljoin(base + name, image).removeprefix(base), html, said)
    return found


def _picture_problems(name: str, html: Path, said: dict[str, list[str]]) -> list[str]:
    if not (html / name).is_file():
        return [f"no picture {name}"]
    with Image.open(html / name) as picture:
        size = [str(n) for n in picture.size]
    told = [said[f"og:image:{side}"][0] for side in ("width", "height")]
    return [] if size == told else [f"picture {name} is {size} pixels, not {told}"]


def problems(path: Path) -> list[str]:
    """All that is wrong with one page, in words; an empty list when it is fine."""
    page = parse(path)
    found = broken_links(path, page)
    if str(ROOT) in path.read_text(encoding="utf-8"):
        found.append(f"names a folder of the machine that built it: {ROOT}")
    body = article(page)
    if body is None:
        return found
    if not body.find("h2"):
        found.append("no heading of the second level")
    for image in body.find_all("img"):
        if not str(image.get("alt") or "").strip():
            found.append(f"image without alternative text: {image.get('src')}")
    prose = BeautifulSoup(str(body), "html.parser")
    for code in prose.find_all(["pre", "code", "script", "style"]):
        code.decompose()
    for mark in prose.select(".math"):
        mark.decompose()
    text = prose.get_text()
    found += [f"markup left in the text: {mark}" for mark in RAW if mark in text]
    return found

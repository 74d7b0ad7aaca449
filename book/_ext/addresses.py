"""Sphinx extension of this book: the files that answer for the whole site.

``404.html`` is what a server shows for a wrong address, however deep, so its own links begin at the
root of the server. With a public address (``html.baseurl`` in ``_config.yml``) there are a map of
the pages for search engines and a ``robots.txt`` that names it.
"""

import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from urllib.parse import urlsplit
from xml.sax.saxutils import escape as escape_xml

from sphinx.application import Sphinx
from sphinx.config import Config

WRONG = "404"
RELATIVE = re.compile(r'(\s(?:href|src|action|data-content_root)=")(?![a-z]+:|[/#"])([^"]*)')
BODY = """<section><h1>There is no page at this address</h1>
<p>It may have been renamed, or the address has a slip in it.
<a href="index.html">The first page of the book</a> is a good place to start again.</p>
<form action="search.html" method="get" class="lt-wrong" role="search">
<label for="q">Search the book</label> <input type="search" id="q" name="q">
<button type="submit">Search</button></form>
<h2>The chapters</h2>
<ul class="lt-wrong">{chapters}</ul>
<h2>To look things up</h2>
<ul>{others}</ul></section>"""


def check(app: Sphinx, config: Config) -> None:
    """An address ends in a slash: everything on the site is written behind it.

    Raises:
        ValueError: it is no address, or has no slash at its end.
    """
    base = config.html_baseurl
    if base and not re.fullmatch(r"https?://[^/\s]+/(?:[^\s?#]*/)?", base):
        raise ValueError(
            f"_config.yml: expected html.baseurl like 'https://example.org/book/', with a slash at "
            f"its end, received {base!r}"
        )


def wrong_address(app: Sphinx) -> Iterator[tuple[str, dict[str, str], str]]:
    """The page for addresses where nothing is."""
    body = BODY.format(chapters="".join(_items(app, True)), others="".join(_items(app, False)))
    yield WRONG, {"title": "Page not found", "body": body}, "page.html"


def _items(app: Sphinx, numbered: bool) -> Iterator[str]:
    """A list item for each page that the first page leads to, of those with a number or without."""
    for page in app.env.toctree_includes.get(app.config.root_doc, []):
        numbers = app.env.toc_secnumbers.get(page, {}).get("")
        if bool(numbers) == numbered:
            words = f"{numbers[0]}. " if numbers else ""
            title = escape(app.env.titles[page].astext())
            yield f'<li><a href="{page}.html">{words}{title}</a></li>'


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Write what is for the whole site, once all pages are there."""
    if exception is not None or app.builder.name != "html":
        return
    base = app.config.html_baseurl
    wrong = Path(app.outdir, f"{WRONG}.html")
    root = urlsplit(base).path or "/"
    page = RELATIVE.sub(rf"\g<1>{root}\g<2>", wrong.read_text(encoding="utf-8"))
    page = page.replace(f'="{root}./', f'="{root}')
    page = page.replace("<head>", '<head>\n    <meta name="robots" content="noindex">', 1)
    wrong.write_text(page, encoding="utf-8", newline="\n")
    if base:
        _map(Path(app.outdir), base, sorted(app.env.found_docs))


def _map(folder: Path, base: str, pages: list[str]) -> None:
    listed = "\n".join(
        f"<url><loc>{escape_xml(f'{base}{page}.html')}</loc></url>" for page in pages
    )
    sitemap = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{listed}\n</urlset>\n'
    )
    robots = f"User-agent: *\nAllow: /\n\nSitemap: {base}sitemap.xml\n"
    for name, text in {"sitemap.xml": sitemap, "robots.txt": robots}.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


def setup(app: Sphinx) -> dict[str, object]:
    """Called by Sphinx."""
    app.connect("config-inited", check)
    app.connect("html-collect-pages", wrong_address)
    # After the names for screen readers are mended (book/_ext/accessible.py).
    app.connect("build-finished", finish, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

"""Sphinx extension of this book: what the theme and docutils get wrong for screen readers.

axe names each of these faults on every page; the browser tests would find them again. A name that
differs from the text one sees cannot be spoken to, a fold without a name cannot be found, and a
list must hold list items.
"""

import re
from pathlib import Path

from sphinx.application import Sphinx

MENDS = [
    # The search button is called what stands on it; the icons of the colour button say nothing.
    (r'(<button class="btn search-button-field[^>]*?) aria-label="Search"', r"\1"),
    (r'(<i class="theme-switch [^>]*?) +title="[^"]*"', r'\1 aria-hidden="true"'),
    # A fold in the contents has an arrow and no name; one around a cell has a name beside its text.
    (r'<summary>(?=<span class="toctree-toggle")', '<summary aria-label="Pages of this section">'),
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),
    # The entries of a bibliography are paragraphs, not items of a list.
    (r'<div role="list" class="citation-list">', '<div class="citation-list">'),
    (r'(<div class="citation" id="[^"]*") role="doc-biblioentry"', r"\1"),
]


def mend(app: Sphinx, exception: Exception | None) -> None:
    """Rewrite the finished pages."""
    if exception is not None or app.builder.format != "html":
        return
    for path in Path(app.outdir).rglob("*.html"):
        if "_static" in path.parts:
            continue
        old = new = path.read_text(encoding="utf-8")
        for pattern, replacement in MENDS:
            new = re.sub(pattern, replacement, new)
        if new != old:
            path.write_text(new, encoding="utf-8", newline="\n")


def setup(app: Sphinx) -> dict[str, object]:
    """Called by Sphinx."""
    app.connect("build-finished", mend)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

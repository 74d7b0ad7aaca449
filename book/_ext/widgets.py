"""Sphinx extension of this book: the widgets that run a model inside the page.

```{widget} write
{"prompt": "O Romeo, Romeo!"}
```

puts one on a page of text; chapters show theirs from a cell (``llmtutor.web.widget``). A page with
a widget loads a small script and a style; whatever else there is lies beside them, for a click.
"""

import json
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from llmtutor.web.boxes import box
from llmtutor.web.recorded import recorded_html
from llmtutor.web.site import FIRST, site_files
from llmtutor.web.tokenizers import GPT2

FOLDER = "_static/web"
logger = logging.getLogger(__name__)


class Widget(SphinxDirective):
    """The directive ``widget``; its content is what the widget begins with, as JSON."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        """The box with its recorded example."""
        name = self.arguments[0]
        options = json.loads("\n".join(self.content) or "{}")
        html = box(name, options, recorded_html(name, options))
        return [nodes.raw("", html, format="html")]


def load(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Name script and style on the pages that have a widget."""
    if 'class="lt-widget"' in context.get("body", ""):
        for name in FIRST:
            add = app.add_js_file if name.endswith(".js") else app.add_css_file
            add(f"web/{name}")


def write(app: Sphinx, exception: Exception | None) -> None:
    """Put the files beside the pages."""
    if exception is not None or app.builder.format != "html":
        return
    folder = Path(app.outdir) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    found = site_files()
    for name, content in found.items():
        (folder / name).write_text(content, encoding="utf-8", newline="\n")
    if f"{GPT2}.js" not in found:
        logger.info("GPT-2's vocabulary is not here: the widget that cuts text goes without")


def setup(app: Sphinx) -> dict[str, object]:
    """Called by Sphinx."""
    app.add_directive("widget", Widget)
    app.connect("html-page-context", load)
    app.connect("build-finished", write)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

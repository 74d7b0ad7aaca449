"""Sphinx extension of this book: pages that need no network, and hooks for the style sheet.

Jupyter Book loads extensions that this book does not use, puts MathJax only on pages whose source
has mathematics, and gives the cost line and the solutions of a chapter nothing to tell them by.
"""

from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.ext.mathjax import MATHJAX_URL
from sphinx.util import logging

UNUSED = ("sphinx_thebe", "sphinx_comments")
UNDECLARED = ("sphinx_multitoc_numbering", "sphinx_jupyterbook_latex")
logger = logging.getLogger(__name__)


def silence(app: Sphinx, extensions: tuple[str, ...]) -> None:
    """Disconnect what Jupyter Book always loads; sphinx_thebe names a CDN on every page."""
    for event, listeners in app.events.listeners.items():
        app.events.listeners[event] = [
            listener for listener in listeners if listener.handler.__module__ not in extensions
        ]
    app.registry.css_files = [
        (name, options) for name, options in app.registry.css_files if "thebe" not in name
    ]


def choose_mathjax(app: Sphinx, config: Config) -> None:
    """Fall back to the public MathJax, and say so, when the local copy was not installed."""
    statics = [Path(app.confdir) / folder for folder in config.html_static_path]
    if not any((folder / config.mathjax_path).is_file() for folder in statics):
        config.mathjax_path = MATHJAX_URL
        logger.info("MathJax is not installed here: these pages load it from %s", MATHJAX_URL)


def mark_parts(app: Sphinx, doctree: nodes.document) -> None:
    """Class ``cost`` for a paragraph that begins "Cost.", a plain label for solutions, terms."""
    for paragraph in doctree.findall(nodes.paragraph):
        if paragraph.astext().startswith("Cost. "):
            paragraph["classes"].append("cost")
    for cell in doctree.findall(nodes.container):
        if "tag_solution" in cell["classes"]:
            cell["prompt_show"], cell["prompt_hide"] = "Show the solution", "Hide the solution"
    for reference in doctree.findall(addnodes.pending_xref):
        if reference["reftype"] == "term":  # the glossary's own apostrophes were made typographic
            reference["reftarget"] = reference["reftarget"].replace("'", "’")


def read_on_all_cores(app: Sphinx, config: Config) -> None:
    """Two extensions do not say whether processes may read side by side. They may: one numbers
    chapters when all are read, the other has to do with LaTeX alone."""
    for name in UNDECLARED:
        app.extensions[name].parallel_read_safe = True


def setup(app: Sphinx) -> dict[str, object]:
    """Called by Sphinx after all extensions of Jupyter Book."""
    app.set_html_assets_policy("always")
    silence(app, UNUSED)
    app.connect("config-inited", choose_mathjax)
    app.connect("config-inited", read_on_all_cores)
    app.connect("doctree-read", mark_parts)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

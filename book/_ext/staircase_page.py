"""Sphinx extension of this book: the staircase of the record on a page.

```{staircase}
```

shows all rungs that are recorded with all their seeds, with what the last one writes and what it
took to train it.
"""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from llmtutor.viz.staircase import staircase


class Climb(SphinxDirective):
    """The directive ``staircase``."""

    def run(self) -> list[nodes.Node]:
        """The rungs as HTML."""
        stairs = staircase()
        last = stairs.shown[-1]
        took = (
            f"{last.rung} has {last.n_params:,} parameters. Reading {last.bytes_seen / 1e6:.1f} MB "
            f"of text took {last.cpu_seconds / 60:.0f} minutes of one core."
        )
        return [nodes.raw("", f"<div>{stairs._repr_html_()}</div><p>{took}</p>", format="html")]


def setup(app: Sphinx) -> dict[str, object]:
    """Register the directive."""
    app.add_directive("staircase", Climb)
    return {"version": "1", "parallel_read_safe": True}

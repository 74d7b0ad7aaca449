"""Sphinx extension of this book: a chapter has the number of its file, also after a gap.

The parts of the contents are numbered through, so a chapter that stands behind one that is not
written yet would take its number. The page of ``book/chapters/NN_name`` is chapter NN, whatever is
missing before it.
"""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment


def renumber(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Give headings, equations and contents their first number; returns the pages that changed."""
    changed = []
    for name, numbers in env.toc_secnumbers.items():
        found = re.match(r"(\d\d)_", name.rpartition("/")[2])
        if not found or all(n is None or n[0] == int(found[1]) for n in numbers.values()):
            continue
        chapter = int(found[1])
        env.toc_secnumbers[name] = {a: n and (chapter, *n[1:]) for a, n in numbers.items()}
        for kind, things in env.toc_fignumbers.get(name, {}).items():
            counted = {thing: (chapter, *n[1:]) for thing, n in things.items()}
            env.toc_fignumbers[name][kind] = counted
        titles: list[Any] = [env.titles[name], *env.tocs[name].findall(nodes.reference)]
        for title in titles:
            if title.get("secnumber"):
                title["secnumber"] = [chapter, *title["secnumber"][1:]]
        changed.append(name)
    return changed


def setup(app: Sphinx) -> dict[str, object]:
    """Called by Sphinx."""
    # After Sphinx has counted, which it does for the same event at the usual priority of 500.
    app.connect("env-get-updated", renumber, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

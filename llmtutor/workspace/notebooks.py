"""A chapter as it is handed out: a notebook without outputs, and what tells two of them apart.

Nothing but the standard library is used here, because the wheel is built with it.
"""

import hashlib
import json
import re
from typing import Any, NamedTuple

ELSEWHERE = re.compile(r"\[([^\]]*)\]\(\.\./[^)]*\)|\{download\}`([^`<]*?)\s*<\.\./[^`]*`")
"""A link to a page of the book or a file beside it, which a folder of chapters does not have."""
CHAPTER = re.compile(r"\{doc\}`(\d\d_\w+)`")
"""A link to a chapter, as only the pages understand it."""

FOLD = re.compile(r"<summary>(?!▸)\s*")
"""What opens a fold, which JupyterLab shows without a mark."""


class Digests(NamedTuple):
    """sha256 of a file, and of nothing but the text of its cells."""

    file: str
    cells: str


def handed_out(chapter: bytes) -> bytes:
    """The notebook without what running it left, links and folds as they work in JupyterLab.

    What was handed out already comes back as it is.
    """
    notebook = json.loads(chapter)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"execution_count": None, "outputs": []}
        else:
            text = ELSEWHERE.sub(lambda found: found[1] or found[2], _text(cell))
            text = FOLD.sub("<summary>▸ ", CHAPTER.sub(r"[\1](\1.ipynb)", text))
            cell["source"] = text.splitlines(keepends=True)
    notebook["metadata"].pop("widgets", None)
    return as_file(notebook)


def as_file(notebook: dict[str, Any]) -> bytes:
    """A notebook as JupyterLab writes it."""
    return (json.dumps(notebook, ensure_ascii=False, indent=1) + "\n").encode()


def digests(content: bytes) -> Digests:
    """What tells one version of a file from another.

    Running a notebook changes the first digest alone; so do empty cells. A file that is no notebook
    has one digest twice.
    """
    whole = hashlib.sha256(content).hexdigest()
    try:
        cells = [(cell["cell_type"], _text(cell)) for cell in json.loads(content)["cells"]]
    except (ValueError, KeyError, TypeError):
        return Digests(whole, whole)
    text = json.dumps([cell for cell in cells if cell[1].strip()])
    return Digests(whole, hashlib.sha256(text.encode()).hexdigest())


def _text(cell: dict[str, Any]) -> str:
    source: str | list[str] = cell["source"]
    return source if isinstance(source, str) else "".join(source)

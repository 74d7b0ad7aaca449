"""What a workspace is given: the start page and every chapter, as they come with the package."""

import re
from pathlib import Path
from typing import Any

from llmtutor.checks import check_name
from llmtutor.data.shipped import shipped
from llmtutor.workspace.notebooks import as_file, handed_out

START = "START.ipynb"


def lessons() -> dict[str, bytes]:
    """The files of a workspace by their names, the start page first.

    Raises:
        FileNotFoundError: the package came without its chapters.
    """
    folder = shipped("chapters")
    chapters = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not chapters:
        raise FileNotFoundError(f"{folder}: expected the chapters; install the package again")
    return {START: start_page()} | {path.name: handed_out(path.read_bytes()) for path in chapters}


def find_lesson(name: str, known: list[str]) -> str:
    """The file that a learner means by ``04_attention``, ``4``, ``attention`` or the file's name.

    Raises:
        ValueError: there is no such chapter; the message names the nearest.
    """
    stems = {Path(file).stem: file for file in known}
    short = {"start": Path(START).stem}
    for stem in stems.keys() - short.values():
        number, _, title = stem.partition("_")
        short |= {number: stem, number.lstrip("0"): stem, title: stem}
    wanted = Path(name).name.removesuffix(".ipynb")
    return stems[check_name("chapter", short.get(wanted.lower(), wanted), stems)]


def start_page() -> bytes:
    """The start page: its text, with code where the text has code."""
    text = Path(__file__).with_name("start.md").read_text(encoding="utf-8")
    cells = []
    for i, part in enumerate(re.split(r"```python\n(.*?)```\n", text, flags=re.S)):
        cell: dict[str, Any] = {"cell_type": "markdown", "id": f"c{i:03}", "metadata": {}}
        if i % 2:
            cell |= {"cell_type": "code", "execution_count": None, "outputs": []}
        cells.append(cell | {"source": part.strip().splitlines(keepends=True)})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel}
    return as_file({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})

"""A chapter as it is handed out, and what tells two versions apart."""

import json
import re
from pathlib import Path

import nbformat
import pytest

from llmtutor.workspace.lessons import START, find_lesson, lessons
from llmtutor.workspace.notebooks import as_file, digests, handed_out

CHAPTERS = sorted((Path(__file__).parents[2] / "book" / "chapters").glob("*.ipynb"))
LESSONS = lessons()


def notebook(*cells: tuple[str, str]) -> dict:
    made = [
        {"cell_type": kind, "id": f"c{i}", "metadata": {}, "source": text}
        | ({"outputs": [], "execution_count": None} if kind == "code" else {})
        for i, (kind, text) in enumerate(cells)
    ]
    return {"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_keeps_its_cells_and_loses_its_outputs(path: Path) -> None:
    book, given = json.loads(path.read_bytes()), json.loads(LESSONS[path.name])
    for mine, theirs in zip(given["cells"], book["cells"], strict=True):
        if mine["cell_type"] == "code":
            assert mine == theirs | {"outputs": [], "execution_count": None}
        else:
            text = "".join(mine.pop("source"))
            assert not re.search(r"\]\(\.\./|<\.\./|\{doc\}", text)
            assert len(text) > 0.8 * len("".join(theirs.pop("source"))) and mine == theirs
    assert handed_out(LESSONS[path.name]) == LESSONS[path.name]


def test_what_is_handed_out_are_notebooks() -> None:
    for name in (START, "04_attention.ipynb"):
        nbformat.validate(nbformat.reads(LESSONS[name].decode("utf-8"), as_version=4))


def test_links_that_lead_nowhere_become_words() -> None:
    text = "See [the gallery](../models.md), {doc}`01_tokenizer`, {download}`a file <../x.txt>`."
    given = json.loads(handed_out(as_file(notebook(("markdown", text)))))
    assert given["cells"][0]["source"] == [
        "See the gallery, [01_tokenizer](01_tokenizer.ipynb), a file."
    ]


def test_a_fold_is_marked_once() -> None:
    text = "<details><summary>Answer</summary>\n\n42</details>"
    once = handed_out(as_file(notebook(("markdown", text))))
    assert json.loads(once)["cells"][0]["source"][0] == "<details><summary>▸ Answer</summary>\n"
    assert handed_out(once) == once


def test_running_changes_the_file_and_not_its_cells() -> None:
    plain, run = notebook(("code", "1 + 1")), notebook(("code", "1 + 1"), ("code", ""))
    run["cells"][0]["execution_count"] = 1
    run["cells"][0]["source"] = ["1 ", "+ 1"]  # as some programs write it
    changed = notebook(("code", "1 + 2"))
    one, two, three = (digests(as_file(n)) for n in (plain, run, changed))
    assert one.file != two.file and one.cells == two.cells != three.cells
    assert digests(as_file(notebook(("markdown", "1 + 1")))).cells != one.cells


@pytest.mark.parametrize("content", [b"not JSON", b"[]", b"{}", b'{"cells": [1]}', b"\xff"])
def test_what_is_no_notebook_is_told_by_its_bytes(content: bytes) -> None:
    file, cells = digests(content)
    assert file == cells != digests(content + b" ").file


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("04_attention", "04_attention.ipynb"),
        ("04_attention.ipynb", "04_attention.ipynb"),
        ("my-work/04_attention.ipynb", "04_attention.ipynb"),
        ("4", "04_attention.ipynb"),
        ("04", "04_attention.ipynb"),
        ("Attention", "04_attention.ipynb"),
        ("start", START),
    ],
)
def test_a_chapter_may_be_named_shortly(name: str, file: str) -> None:
    assert find_lesson(name, list(LESSONS)) == file


@pytest.mark.parametrize("name", ["04_atention", "atention", "26", ""])
def test_a_chapter_that_is_not_there(name: str) -> None:
    with pytest.raises(ValueError, match="unknown chapter"):
        find_lesson(name, list(LESSONS))

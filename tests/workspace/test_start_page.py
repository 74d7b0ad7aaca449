"""The start page says what the landing page of the book says, and leads to every chapter."""

import re
from pathlib import Path

import nbformat
import pytest
import yaml

from llmtutor.data.corpora import CORPORA, Corpus
from llmtutor.workspace import lessons as module
from llmtutor.workspace.lessons import START, lessons, start_page

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = ROOT / "book" / "chapters"
PAGE = nbformat.reads(start_page().decode("utf-8"), as_version=4)
TEXT = "\n".join(cell.source for cell in PAGE.cells if cell.cell_type == "markdown")


def test_it_is_a_notebook_that_comes_first() -> None:
    nbformat.validate(PAGE)
    assert next(iter(lessons())) == START


def test_every_link_leads_to_a_file_beside_it() -> None:
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert links and all((CHAPTERS / link).is_file() for link in links)


def test_all_chapters_in_the_order_of_the_book() -> None:
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = [entry["file"] for part in contents["parts"] for entry in part["chapters"]]
    wanted = [Path(file).name for file in files if file.startswith("book/chapters/")]
    listed = TEXT.partition("## The chapters")[2].partition("\n## ")[0]
    assert re.findall(r"\]\((\w+)\.ipynb\)", listed) == wanted


def test_the_routes_are_those_of_the_landing_page() -> None:
    def routes(text: str, link: str) -> dict[str, list[str]]:
        part = text.partition("## Where to begin")[2].partition("\n## ")[0]
        bullets = re.findall(r"^- \*\*(.*?)\*\*(.*?)(?=^- |\Z)", part, re.M | re.S)
        return {reader: re.findall(link, rest) for reader, rest in bullets}

    book = (ROOT / "book" / "intro.md").read_text(encoding="utf-8")
    ours = routes(TEXT, r"\]\((\w+)\.ipynb\)")
    assert ours == routes(book, r"<chapters/(\w+)>") and len(ours) == 4


def test_its_code_says_that_the_corpus_is_there(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (code,) = (cell.source for cell in PAGE.cells if cell.cell_type == "code")
    corpus = Corpus("tiny", ["To be", "or not"], [], CORPORA["shakespeare"])
    monkeypatch.setattr("llmtutor.data.load_corpus", lambda: corpus)
    exec(code, {})
    assert capsys.readouterr().out == "13 characters of Shakespeare are here: you can begin.\n"


def test_a_package_without_chapters_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "shipped", lambda what: tmp_path)
    with pytest.raises(FileNotFoundError, match="install the package again"):
        lessons()

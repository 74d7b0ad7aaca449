"""Every example in a docstring of the package says what really comes out."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import llmtutor

BOOK = Path(__file__).resolve().parents[1] / "book"
MODULES = [module.name for module in pkgutil.walk_packages(llmtutor.__path__, "llmtutor.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed == 0


PAGES = [
    path
    for path in [*BOOK.glob("*.md"), *BOOK.glob("api/*.md")]
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_examples_of_a_page(path: Path) -> None:
    # A fence ends what is expected, as an empty line does.
    text = re.sub(r"^```.*$", "", path.read_text(encoding="utf-8"), flags=re.M)
    test = doctest.DocTestParser().get_doctest(text, {}, path.name, str(path), 0)
    tried = doctest.DocTestRunner().run(test)
    assert tried.attempted >= 3 and tried.failed == 0


def test_every_page_of_the_reference_begins_with_what_one_can_do() -> None:
    for path in BOOK.glob("api/*.md"):
        opening = path.read_text(encoding="utf-8").partition("\n## ")[0]
        assert path.stem == "index" or ("What you can do here" in opening and ">>> " in opening)


@pytest.mark.parametrize(
    "room", ["data", "evaluate", "exercises", "layers", "model", "tokenizer", "viz"]
)
def test_there_are_examples(room: str) -> None:
    modules = [importlib.import_module(m) for m in MODULES if m.startswith(f"llmtutor.{room}.")]
    finder = doctest.DocTestFinder()
    assert sum(len(test.examples) for module in modules for test in finder.find(module)) >= 3

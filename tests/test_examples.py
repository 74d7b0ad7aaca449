"""Every example in a docstring of the package says what really comes out."""

import doctest
import importlib
import pkgutil

import pytest

import llmtutor

MODULES = [module.name for module in pkgutil.walk_packages(llmtutor.__path__, "llmtutor.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed == 0


@pytest.mark.parametrize(
    "room", ["data", "evaluate", "exercises", "layers", "model", "tokenizer", "viz"]
)
def test_there_are_examples(room: str) -> None:
    modules = [importlib.import_module(m) for m in MODULES if m.startswith(f"llmtutor.{room}.")]
    finder = doctest.DocTestFinder()
    assert sum(len(test.examples) for module in modules for test in finder.find(module)) >= 3

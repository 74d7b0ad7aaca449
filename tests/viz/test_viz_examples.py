"""The examples in the docstrings of llmtutor.viz say what really comes out."""

import doctest
import importlib
import pkgutil

import pytest

import llmtutor.viz as room

NAMES = [module.name for module in pkgutil.iter_modules(room.__path__)]
MODULES = [importlib.import_module(f"{room.__name__}.{name}") for name in NAMES]


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_examples(module) -> None:
    assert doctest.testmod(module).failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    assert sum(len(test.examples) for m in MODULES for test in finder.find(m)) >= 3
